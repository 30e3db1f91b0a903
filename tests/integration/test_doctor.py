"""``emissary doctor`` on the real path: each fault breaks its own check, with its own exit status."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from emissary_lib import Key
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_local import LocalCloud
from tests.helpers.bridge import KEY as BRIDGE_KEY
from tests.helpers.bridge import Behaviour, Bridge
from tests.helpers.doctor_cloud import ask
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, ROOT, audit_record, json_lines
from tests.helpers.patience import wait_until
from tests.helpers.servers import BlackHole, Server, echo, source, unused_port
from tests.helpers.ws_server import Request, WsServer, refusal
from tools.demo.postgres import Postgres

pytestmark = LINUX_ONLY


# -- all is well --------------------------------------------------------------------------------


def test_a_real_postgres_passes_every_check(cloud: LocalCloud, postgres: Postgres) -> None:
    diagnosis = ask(cloud.url, cloud.key, (postgres.host, postgres.port), service="postgres")
    assert diagnosis.outcome() == (None, 0)
    assert "PostgreSQL answers, without TLS" in diagnosis.fact("service")
    skipped = {check for check, each in diagnosis.checks.items() if each["status"] == "skipped"} - {"warm"}
    assert skipped == {"tls", "name"}  # ws://, and an address
    hops = {"dns", "tcp", "upgrade", "opening", "relay", "round_trip", "service", "target"}
    assert hops <= set(diagnosis.report["latency_ms"])


def test_without_a_target_no_relay_starts_and_the_session_ends(cloud: LocalCloud) -> None:
    before = cloud.logs("RelayFunction").count("claimed")
    lines = cloud.logs("DefaultFunction").count("session ended")
    diagnosis = ask(cloud.url, cloud.key)
    assert diagnosis.outcome() == (None, 0)
    assert diagnosis["proof"] == "ok"
    assert f"valid key ids: {cloud.key.key_id}; sessions in all: not limited" in diagnosis.fact("health")
    assert "126,000 characters passes" in diagnosis.fact("long_messages")
    assert diagnosis["relay"] == "skipped"

    wait_until(lambda: cloud.logs("DefaultFunction").count("session ended") > lines, "the end of the session")
    assert cloud.logs("RelayFunction").count("claimed") == before


def test_a_session_that_the_doctor_opened_ends_clean(cloud: LocalCloud) -> None:
    with Server(echo) as target:
        assert ask(cloud.url, cloud.key, target).outcome() == (None, 0)
        lines = json_lines(cloud, "DefaultFunction")
        session = next(
            str(line["session"]) for line in lines if line.get("target") == f"{target[0]}:{target[1]}"
        )
        assert audit_record(cloud, session)["code"] == "OK"


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
    assert done.stdout.rstrip().endswith("All checks passed.")


# -- before the bridge --------------------------------------------------------------------------


def test_a_gateway_name_that_does_not_exist() -> None:
    diagnosis = ask("wss://no-such-name.invalid/emissary", Key(1, bytes(32)))
    assert diagnosis.outcome() == ("dns", Exit.GATEWAY_NAME)


def test_a_dead_gateway_port() -> None:
    with unused_port() as (host, port):
        diagnosis = ask(f"ws://{host}:{port}/emissary", Key(1, bytes(32)))
    assert diagnosis.outcome() == ("tcp", Exit.GATEWAY)
    assert "connection refused" in diagnosis.fact("tcp")


def test_a_gateway_that_swallows_connections() -> None:
    with BlackHole() as (host, port):
        diagnosis = ask(f"ws://{host}:{port}/emissary", Key(1, bytes(32)), short={"connect": 0.5})
    assert diagnosis.outcome() == ("tcp", Exit.GATEWAY)
    assert "no answer in time" in diagnosis.fact("tcp")


def test_a_gateway_without_tls_at_a_wss_url(cloud: LocalCloud) -> None:
    diagnosis = ask(cloud.url.replace("ws://", "wss://"), cloud.key, short={"secure": 1.0})
    assert diagnosis.outcome() == ("tls", Exit.GATEWAY_TLS)


# -- the bridge ---------------------------------------------------------------------------------


def test_a_wrong_key(cloud: LocalCloud) -> None:
    diagnosis = ask(cloud.url, Key(cloud.key.key_id, bytes(32)))
    assert diagnosis.outcome() == ("connect", Exit.KEY)
    assert "EMISSARY_AUTH_KEYS" in diagnosis.hint("connect")


def test_an_unknown_key_id(cloud: LocalCloud) -> None:
    diagnosis = ask(cloud.url, Key(77, cloud.key.secret))
    assert diagnosis.outcome() == ("connect", Exit.KEY)
    assert "key id 77" in diagnosis.hint("connect")


def test_a_wrong_stage(cloud: LocalCloud) -> None:
    diagnosis = ask(cloud.url + "x", cloud.key)
    assert diagnosis.outcome() == ("connect", Exit.KEY)
    assert "stage" in diagnosis.hint("connect")


def test_a_server_that_speaks_another_subprotocol() -> None:
    def upgrades_only(request: Request) -> bytes | None:
        return None if "upgrade" in request.headers else refusal(426)

    with WsServer(subprotocol="chat", answer=upgrades_only) as server:
        diagnosis = ask(server.url, Key(1, bytes(32)))
    assert diagnosis.outcome() == ("connect", Exit.CONNECT)
    assert "something else answers" in diagnosis.hint("connect")


def test_a_server_of_another_kind_altogether() -> None:
    with Server(source(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")) as (host, port):
        diagnosis = ask(f"ws://{host}:{port}/emissary", Key(1, bytes(32)))
    assert diagnosis.outcome() == ("connect", Exit.CONNECT)
    assert "does not speak HTTP" in diagnosis.fact("clock")


def test_a_server_that_does_not_hold_the_key() -> None:
    with Bridge(Behaviour(false_proof=True)) as bridge:
        diagnosis = ask(bridge.url, BRIDGE_KEY)
    assert (diagnosis["answer"], diagnosis["version"]) == ("ok", "ok")
    assert diagnosis.outcome() == ("proof", Exit.PROOF)


def test_a_bridge_of_another_version() -> None:
    banner = Banner("emissary-lambda", "9.0.0", 3, bytes(32), bytes(36)).encode()
    frame = Frame(FrameType.DATA, generation=1, window=65_536, ack=3, payload=banner)
    with Bridge(Behaviour(answer=encode(frame))) as bridge:
        diagnosis = ask(bridge.url, BRIDGE_KEY)
    assert diagnosis["answer"] == "ok"
    assert diagnosis.outcome() == ("version", Exit.VERSION)
    assert "version 3" in diagnosis.fact("version")
