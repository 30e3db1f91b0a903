"""``emissary doctor`` behind the bridge: relay, target and greeting, each fault at its own rung."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emissary_lib import LocalCloud
from emissary_lib.doctor.vpc import GREETING_TIMEOUT
from emissary_lib.exit_status import Exit
from tests.helpers.cloudside import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of, eventually
from tests.helpers.doctor_cloud import ask, faulty
from tests.helpers.patience import HANG
from tests.helpers.servers import BlackHole, Server, echo, greeter, sink, source, unused_port
from tests.helpers.tls_front import pass_on
from tests.unit.doctor.test_service_probes import MARIADB_SAYS

pytestmark = LINUX_ONLY


# -- the relay and the target -------------------------------------------------------------------


def test_a_relay_that_cannot_be_invoked(sick: LocalCloud) -> None:
    with faulty(sick, invoke_429=1.0), Server(sink) as target:
        told = ask(sick.url, sick.key, target, short={"dial": 2.0})
    assert told.broke() == ("relay", Exit.RELAY)


def test_a_relay_that_finds_no_way_out_of_its_vpc() -> None:
    with BlackHole() as (host, port), Server(sink) as target:
        away = {"RelayFunction": {"http_proxy": f"http://{host}:{port}"}}  # nothing comes back from there
        with LocalCloud(TEMPLATE, parameters=PARAMETERS, variables=away) as cloud:
            told = ask(cloud.url, cloud.key, target, short={"dial": 2.0})
    assert told.broke() == ("relay", Exit.RELAY)
    assert f"no relay reported within {HANG:g} s" in told.fact("relay")
    assert "the VPC lets nothing out" in told.remedy("relay")


def test_a_limit_of_sessions_that_is_reached() -> None:
    limits = {name: {"EMISSARY_MAX_SESSIONS": "1"} for name in ("ConnectFunction", "DefaultFunction")}
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, variables=limits) as cloud, Server(echo) as target:
        with dialer_of(cloud) as dialer, dialer.dial(target, DIAL):
            told = ask(cloud.url, cloud.key, target)
    assert told["health"] == "warning"
    assert "sessions in all: 1 of 1" in told.fact("health")
    assert told.broke() == ("relay", Exit.LIMIT)


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


@pytest.mark.slow  # the relay waits for ten seconds
def test_a_target_that_swallows_connections(cloud: LocalCloud) -> None:
    with BlackHole() as target:
        told = ask(cloud.url, cloud.key, target)
    assert told.broke() == ("target", Exit.TIMED_OUT)
    assert "security group" in told.remedy("target")


@pytest.mark.parametrize("how", ["close", "reset", "mid-frame", "silent"])
def test_a_tunnel_that_is_cut_while_the_target_is_asked(sick: LocalCloud, how: str) -> None:
    with Server(sink) as target:
        told = ask(
            sick.url,
            sick.key,
            target,
            greet="postgres",
            short={"converse": 1.0},
            before_greeting=lambda: sick.cut("dialer", how),
        )
    assert told.broke() == ("greeting", Exit.CUT_OFF)
    assert "the tunnel broke" in told.fact("greeting")


# -- greetings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("greet", ["postgres", "mysql", "redis"])
def test_a_target_that_does_not_speak(cloud: LocalCloud, greet: str) -> None:
    with Server(sink) as target:
        told = ask(cloud.url, cloud.key, target, greet=greet, short={"converse": 1.0})
    assert told.broke() == ("greeting", Exit.GREETING)
    assert f"silent for {GREETING_TIMEOUT:g} s" in told.fact("greeting")


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
        if connection.recv(6) == b"PING\r\n":  # a second dial, after a slow start, asks nothing
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
            process.wait(HANG)


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
