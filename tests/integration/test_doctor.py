"""``emissary doctor`` on the real path: each fault breaks its own rung, with its own exit status."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from emissary_lib import Key, LocalCloud
from emissary_lib.commands.doctor import run_doctor
from emissary_lib.demo.postgres import Postgres, embedded_postgres
from emissary_lib.exit_status import Exit
from emissary_lib.local import Faults
from emissary_lib.protocol.keys import format_keys
from emissary_lib.protocol.targets import Target
from tests.helpers.cloudside import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    ROOT,
    SOON,
    TEMPLATE,
    audit_record,
    eventually,
)
from tests.helpers.servers import BlackHole, Server, echo, greeter, sink, source, unused_port
from tests.helpers.tls_front import pass_on
from tests.helpers.ws_server import WsServer
from tests.unit.doctor.test_greetings import MARIADB_SAYS

pytestmark = LINUX_ONLY

#: Timeout of a rung that a test lets run out, in seconds: more than a cold start, less than patience.
SHORT = 4.0


class Told:
    """What the doctor said, as its JSON has it."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.report: dict[str, Any] = json.loads(text)
        self.rungs: dict[str, dict[str, Any]] = {each["rung"]: each for each in self.report["rungs"]}

    def broke(self) -> tuple[str | None, int]:
        return self.report["broken_at"], self.status

    def __getitem__(self, rung: str) -> str:
        return str(self.rungs[rung]["status"])

    def fact(self, rung: str) -> str:
        return str(self.rungs[rung]["fact"])

    def remedy(self, rung: str) -> str:
        return str(self.rungs[rung]["remedy"])


def ask(
    url: str, key: Key, target: tuple[str, int] | None = None, *, timeout: float = DIAL, greet: str = "auto"
) -> Told:
    out = io.StringIO()
    environ = {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([key])}
    made = Target(*target) if target else None
    status = run_doctor(
        made, environ=environ, out=out, greet=greet, timeout=timeout, json_line=True, env_file="no.env"
    )
    return Told(status, out.getvalue())


@contextmanager
def faulty(cloud: LocalCloud, **faults: Any) -> Iterator[None]:
    """Faults in force, and gone afterwards."""
    cloud.set_faults(Faults(seed=5, **faults))
    try:
        yield
    finally:
        cloud.set_faults(Faults())


@pytest.fixture(scope="module")
def sick() -> Iterator[LocalCloud]:
    """A cloud of this file's own, whose faults come and go."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as running:
        yield running


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with embedded_postgres() as server:
        yield server


# -- all is well --------------------------------------------------------------------------------


def test_a_real_postgres_holds_on_every_rung(cloud: LocalCloud, postgres: Postgres) -> None:
    told = ask(cloud.url, cloud.key, (postgres.host, postgres.port), greet="postgres")
    assert told.broke() == (None, 0)
    assert "PostgreSQL answers, without TLS" in told.fact("greeting")
    skipped = {rung for rung, each in told.rungs.items() if each["status"] == "skipped"} - {"warm"}
    assert skipped == {"tls", "name"}  # ws://, and an address
    hops = {"dns", "tcp", "upgrade", "opening", "relay", "round_trip", "greeting", "target"}
    assert hops <= set(told.report["latency_ms"])


def test_without_a_target_no_relay_starts_and_the_session_ends(cloud: LocalCloud) -> None:
    before = cloud.logs("RelayFunction").count("claimed")
    lines = cloud.logs("DefaultFunction").count("session ended")
    told = ask(cloud.url, cloud.key)
    assert told.broke() == (None, 0)
    assert told["proof"] == "ok"
    assert told["relay"] == "skipped"

    def ended() -> bool | None:
        return cloud.logs("DefaultFunction").count("session ended") > lines or None

    eventually(ended, "the end of the session")
    assert cloud.logs("RelayFunction").count("claimed") == before


def test_a_session_that_the_doctor_opened_ends_clean(cloud: LocalCloud) -> None:
    with Server(echo) as target:
        assert ask(cloud.url, cloud.key, target).broke() == (None, 0)
        lines = [json.loads(line) for line in cloud.logs("DefaultFunction").splitlines() if line[:1] == "{"]
        session = next(
            str(line["session"]) for line in lines if line.get("target") == f"{target[0]}:{target[1]}"
        )
        assert audit_record(cloud, session)["code"] == "OK"


def test_a_first_cold_start_is_told_from_a_warm_one(sick: LocalCloud) -> None:
    with Server(echo) as target:
        ask(sick.url, sick.key, target)  # every other function is warm from here on
        sick.retire("RelayFunction")
        told = ask(sick.url, sick.key, target)
    assert told.broke() == (None, 0)
    if "cold" in told.fact("relay"):
        assert told["warm"] == "ok"
        assert told.report["latency_ms"]["relay_warm"] > 0
    else:  # a fast machine starts one in less than what counts as warm
        assert told.report["latency_ms"]["relay"] <= 300


def test_the_command_itself_says_so_and_ends_with_zero(cloud: LocalCloud, tmp_path: pathlib.Path) -> None:
    keys = format_keys([cloud.key])
    (tmp_path / ".env").write_text(f"EMISSARY_URL={cloud.url}\nEMISSARY_AUTH_KEYS='{keys}'\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EMISSARY_")}
    done = subprocess.run(
        [sys.executable, "-m", "emissary_lib", "doctor"],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DIAL,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("It holds.")


# -- before the bridge --------------------------------------------------------------------------


def test_a_gateway_name_that_does_not_exist() -> None:
    told = ask("wss://no-such-name.invalid/emissary", Key(1, bytes(32)))
    assert told.broke() == ("dns", Exit.GATEWAY_NAME)


def test_a_dead_gateway_port() -> None:
    with unused_port() as (host, port):
        told = ask(f"ws://{host}:{port}/emissary", Key(1, bytes(32)))
    assert told.broke() == ("tcp", Exit.GATEWAY)
    assert "connection refused" in told.fact("tcp")


def test_a_gateway_that_swallows_connections() -> None:
    with BlackHole() as (host, port):
        told = ask(f"ws://{host}:{port}/emissary", Key(1, bytes(32)), timeout=0.5)
    assert told.broke() == ("tcp", Exit.GATEWAY)
    assert "no answer in time" in told.fact("tcp")


def test_tls_with_an_unknown_authority_and_with_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, tls=True) as cloud:
        told = ask(cloud.url, cloud.key)
        assert told.broke() == ("tls", Exit.GATEWAY_TLS)
        assert "SSL_CERT_FILE" in told.remedy("tls")
        assert cloud.meter.connects == 0

        assert cloud.ca_file is not None
        monkeypatch.setenv("SSL_CERT_FILE", cloud.ca_file)  # as the remedy says
        told = ask(cloud.url, cloud.key)
        assert told.report["broken_at"] is None
        assert told["tls"] == "warning"  # made for a day
        assert "Emissary local cloud" in told.fact("tls")
        assert "tls" in told.report["latency_ms"]


def test_a_gateway_without_tls_at_a_wss_url(cloud: LocalCloud) -> None:
    told = ask(cloud.url.replace("ws://", "wss://"), cloud.key, timeout=SHORT)
    assert told.broke() == ("tls", Exit.GATEWAY_TLS)


@pytest.mark.parametrize("ahead", [1200.0, -1200.0])
def test_a_skewed_clock(ahead: float) -> None:
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=Faults(skew_seconds=ahead)) as cloud:
        told = ask(cloud.url, cloud.key)
        assert told.broke() == ("clock", Exit.CLOCK)
        assert ("behind" if ahead > 0 else "ahead of") in told.fact("clock")  # this machine's, that is


def test_a_clock_that_is_a_little_off_is_a_warning() -> None:
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=Faults(skew_seconds=200.0)) as cloud:
        told = ask(cloud.url, cloud.key)
        assert told.broke() == (None, 0)
        assert told["clock"] == "warning"


# -- the bridge ---------------------------------------------------------------------------------


def test_a_wrong_key(cloud: LocalCloud) -> None:
    told = ask(cloud.url, Key(cloud.key.key_id, bytes(32)))
    assert told.broke() == ("connect", Exit.KEY)
    assert "EMISSARY_AUTH_KEYS" in told.remedy("connect")


def test_an_unknown_key_id(cloud: LocalCloud) -> None:
    told = ask(cloud.url, Key(77, cloud.key.secret))
    assert told.broke() == ("connect", Exit.KEY)
    assert "key id 77" in told.remedy("connect")


def test_a_wrong_stage(cloud: LocalCloud) -> None:
    told = ask(cloud.url + "x", cloud.key)
    assert told.broke() == ("connect", Exit.KEY)
    assert "stage" in told.remedy("connect")


def test_a_server_that_speaks_another_subprotocol() -> None:
    with WsServer(subprotocol="chat") as server:
        told = ask(server.url, Key(1, bytes(32)), timeout=SHORT)
    assert told.broke() == ("connect", Exit.DOOR)
    assert "something else answers" in told.remedy("connect")


def test_a_server_of_another_kind_altogether() -> None:
    with Server(source(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")) as (host, port):
        told = ask(f"ws://{host}:{port}/emissary", Key(1, bytes(32)), timeout=SHORT)
    assert told.broke() == ("connect", Exit.DOOR)
    assert "does not speak HTTP" in told.fact("clock")


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"connect_429": 1.0}, "HTTP status 429: throttled"),
        ({"connect_500": 1.0}, "HTTP status 502: $connect fails"),
        ({"connect_lost": 1.0}, "cut each time before the upgrade is answered"),
        ({"crash": 1.0, "functions": ("ConnectFunction",)}, "HTTP status 502: $connect fails"),
    ],
)
def test_a_door_that_does_not_open(sick: LocalCloud, faults: dict[str, Any], says: str) -> None:
    with faulty(sick, **faults):
        told = ask(sick.url, sick.key)
    assert told.broke() == ("connect", Exit.DOOR)
    assert says in told.fact("connect")


@pytest.mark.parametrize(
    "faults",
    [
        {"message_429": 1.0},
        {"message_500": 1.0},
        {"drop": 1.0},
        {"crash": 1.0, "functions": ("DefaultFunction",)},
        {"post_429": 1.0},
        {"post_410": 1.0},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_a_bridge_that_does_not_answer(sick: LocalCloud, faults: dict[str, Any]) -> None:
    with faulty(sick, **faults):
        told = ask(sick.url, sick.key, timeout=SHORT)
    assert told.broke() == ("answer", Exit.BRIDGE)


def test_a_gateway_that_fails_now_and_then_is_a_warning(sick: LocalCloud) -> None:
    with faulty(sick, message_500=0.5), Server(echo) as target:
        for _ in range(10):
            told = ask(sick.url, sick.key, target)
            if "warning" in (told["answer"], told["round_trip"]):
                break
    assert told.broke() == (None, 0)
    assert "warning" in (told["answer"], told["round_trip"])


@pytest.mark.parametrize(
    "faults",
    [
        {"reorder": 0.3},
        {"duplicate": 0.5},
        {"drop": 0.05},
        {"delay": 0.3},
        {"post_500": 0.2},
        {"lost_write": 0.3},
        {"stale_read": 0.5},
        {"database_500": 0.1},
        {"kept_dead": 0.5},
        {"disconnect_missing": 1.0},
        {"disconnect_late": 1.0},
        {"duplicate_invoke": 1.0},
        {"cold_start": 1.0},
        {"invoke_500": 0.3},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_what_a_dial_survives_the_doctor_survives(sick: LocalCloud, faults: dict[str, Any]) -> None:
    with faulty(sick, **faults), Server(echo) as target:
        assert ask(sick.url, sick.key, target).broke() == (None, 0)


# -- the relay and the target -------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {"crash": 1.0, "functions": ("RelayFunction",), "crash_seconds": 0.0},
        {"invoke_429": 1.0},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_a_relay_that_does_not_come(sick: LocalCloud, faults: dict[str, Any]) -> None:
    with Server(sink) as target:
        ask(sick.url, sick.key)  # warm, so that only the relay is slow
        with faulty(sick, **faults):
            told = ask(sick.url, sick.key, target, timeout=SHORT)
    assert told.broke() == ("relay", Exit.RELAY)
    assert "RelayFunction" in told.remedy("relay")


def test_a_target_that_is_not_allowed(cloud: LocalCloud) -> None:
    told = ask(cloud.url, cloud.key, ("db.internal", 5432))
    assert told.broke() == ("allowed", Exit.NOT_ALLOWED)
    assert "AllowedTargets" in told.remedy("allowed")


def test_a_name_that_does_not_resolve(cloud: LocalCloud) -> None:
    told = ask(cloud.url, cloud.key, ("no-such-name.invalid", 5432))
    assert told.broke() == ("name", Exit.NAME_NOT_FOUND)
    assert told["relay"] == "ok"


def test_a_target_that_refuses(cloud: LocalCloud) -> None:
    with unused_port() as target:
        told = ask(cloud.url, cloud.key, target)
    assert told.broke() == ("target", Exit.REFUSED)


def test_a_target_that_swallows_connections(cloud: LocalCloud) -> None:
    with BlackHole() as target:
        told = ask(cloud.url, cloud.key, target)
    assert told.broke() == ("target", Exit.TIMED_OUT)
    assert "security group" in told.remedy("target")


def test_a_tunnel_that_is_cut_while_it_is_looked_at(sick: LocalCloud) -> None:
    def cut_it(connection: socket.socket) -> None:
        connection.recv(1)  # the greeting's request: the doctor is in the middle of it
        sick.cut("dialer", "reset")
        sink(connection)

    with Server(cut_it) as target:
        told = ask(sick.url, sick.key, target, greet="postgres")
    assert told.broke() == ("greeting", Exit.GREETING)
    assert "broke before PostgreSQL greeted" in told.fact("greeting")


# -- greetings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("greet", ["postgres", "mysql", "redis"])
def test_a_target_that_does_not_speak(cloud: LocalCloud, greet: str) -> None:
    with Server(sink) as target:
        told = ask(cloud.url, cloud.key, target, greet=greet, timeout=SHORT)
    assert told.broke() == ("greeting", Exit.GREETING)
    assert "silent for 4 s" in told.fact("greeting")


def test_a_target_that_hangs_up(cloud: LocalCloud) -> None:
    with Server(source(b"")) as target:
        told = ask(cloud.url, cloud.key, target, greet="redis")
    assert told.broke() == ("greeting", Exit.GREETING)
    assert "hung up without a word of Redis" in told.fact("greeting")


def test_a_target_that_is_somebody_else(cloud: LocalCloud) -> None:
    with Server(greeter(b"SSH-2.0-OpenSSH_9.6\r\n")) as target:
        told = ask(cloud.url, cloud.key, target, greet="mysql")
    assert told.broke() == ("greeting", Exit.GREETING)
    assert "an SSH server answers" in told.fact("greeting")


def test_a_recorded_mariadb_and_a_recorded_redis_are_recognised(cloud: LocalCloud) -> None:
    def redis(connection: socket.socket) -> None:
        assert connection.recv(6) == b"PING\r\n"
        connection.sendall(b"-NOAUTH Authentication required.\r\n")
        sink(connection)

    with Server(greeter(MARIADB_SAYS)) as target:
        told = ask(cloud.url, cloud.key, target, greet="mysql")
        assert "MariaDB 10.11.18" in told.fact("greeting")
    with Server(redis) as target:
        told = ask(cloud.url, cloud.key, target, greet="redis")
        assert "asks for a password" in told.fact("greeting")
    assert told.broke() == (None, 0)


@contextmanager
def behind(*words: str, directory: pathlib.Path) -> Iterator[tuple[str, int]]:
    """A real server that listens on the socket file ``s`` in its directory; gives a TCP address before it."""
    path = str(directory / "s")

    def serve(connection: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as back:
            back.connect(path)
            pass_on(connection, back)

    def listens() -> bool | None:
        assert process.poll() is None, (directory / "log").read_text()
        with socket.socket(socket.AF_UNIX) as trial:
            return trial.connect_ex(path) == 0 or None

    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=directory)
        try:
            eventually(listens, words[0])
            with Server(serve) as address:
                yield address
        finally:
            process.terminate()
            process.wait(SOON)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
@pytest.mark.parametrize(("options", "says"), [([], "no password"), (["--requirepass", "x"], "a password")])
def test_a_real_redis(cloud: LocalCloud, tmp_path: pathlib.Path, options: list[str], says: str) -> None:
    words = ["redis-server", "--port", "0", "--unixsocket", "s", "--save", "", *options]
    with behind(*words, directory=tmp_path) as target:
        told = ask(cloud.url, cloud.key, target, greet="redis")
    assert told.broke() == (None, 0)
    assert f"asks for {says}" in told.fact("greeting")


@pytest.mark.skipif(shutil.which("mariadbd") is None, reason="no mariadbd is installed")
def test_a_real_mariadb(cloud: LocalCloud, tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    words = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={tmp_path / 's'}"]
    words += ["--skip-networking", "--skip-grant-tables", *(["--user=root"] if os.getuid() == 0 else [])]
    with behind(*words, directory=tmp_path) as target:
        told = ask(cloud.url, cloud.key, target, greet="mysql")
    assert told.broke() == (None, 0)
    assert re.match(r"MariaDB \d+\.\d+", told.fact("greeting"))
