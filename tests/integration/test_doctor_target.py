"""``emissary doctor`` behind the bridge: relay, target and service, each fault at its own check."""

from __future__ import annotations

import pathlib
import re
import shutil
import socket

import pytest

from emissary_lib.doctor.vpc import SERVICE_TIMEOUT
from emissary_lib.exit_status import Exit
from emissary_local import LocalCloud
from tests.helpers.doctor_cloud import ask, faulty
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of
from tests.helpers.patience import HANG
from tests.helpers.real_servers import behind, mariadb_words, redis_words
from tests.helpers.servers import BlackHole, Server, echo, greeter, sink, source, unused_port
from tests.unit.doctor.test_service_probes import MARIADB_SAYS

pytestmark = [LINUX_ONLY, pytest.mark.slow]


# -- the relay and the target -------------------------------------------------------------------


def test_a_relay_that_cannot_be_invoked(sick: LocalCloud) -> None:
    with faulty(sick, invoke_429=1.0), Server(sink) as target:
        diagnosis = ask(sick.url, sick.key, target, short={"dial": 2.0})
    assert diagnosis.outcome() == ("relay", Exit.RELAY)


def test_a_relay_that_finds_no_way_out_of_its_vpc(artifacts: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shut_in = tmp_path / "build"
    shutil.copytree(artifacts, shut_in)
    with BlackHole() as gateway, Server(sink) as target:
        with open(shut_in / "RelayFunction" / "functions" / "relay" / "app.py", "a") as app:
            app.write(  # the gateway is on this machine, and no rule of a network would stop that
                "\nfrom emissary_lib.transport import happy_eyeballs\n"
                "connect = happy_eyeballs.connect\n"
                f"happy_eyeballs.connect = lambda _, *rest, **more: connect({gateway}, *rest, **more)\n"
            )
        with LocalCloud(TEMPLATE, parameters=PARAMETERS, artifacts=shut_in) as cloud:
            diagnosis = ask(cloud.url, cloud.key, target, short={"dial": 2.0})
    assert diagnosis.outcome() == ("relay", Exit.RELAY)
    assert f"no relay reported within {HANG:g} s" in diagnosis.fact("relay")
    assert "the VPC lets nothing out" in diagnosis.hint("relay")


def test_a_limit_of_sessions_that_is_reached() -> None:
    limits = {name: {"EMISSARY_MAX_SESSIONS": "1"} for name in ("ConnectFunction", "DefaultFunction")}
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, variables=limits) as cloud, Server(echo) as target:
        with dialer_of(cloud) as dialer, dialer.dial(target, DIAL):
            diagnosis = ask(cloud.url, cloud.key, target)
    assert diagnosis["health"] == "warning"
    assert "sessions in all: 1 of 1" in diagnosis.fact("health")
    assert diagnosis.outcome() == ("relay", Exit.LIMIT)


def test_an_allow_list_that_the_bridge_cannot_read_is_found_with_a_target_and_without() -> None:
    """Symptom: all checks passed, or the target was said not to be on the list."""
    list_of_targets = {"EMISSARY_ALLOWED_PROXY_TARGETS": '[{"host":"db.internal","port":5432},]'}
    broken = dict.fromkeys(("ConnectFunction", "DefaultFunction"), list_of_targets)
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, variables=broken) as cloud:
        for target in (None, ("db.internal", 5432)):
            diagnosis = ask(cloud.url, cloud.key, target)
            assert diagnosis.outcome() == ("health", Exit.NOT_REACHED)
            assert "AllowedTargets" in diagnosis.fact("health")
            assert "deploys again" in diagnosis.hint("health")


def test_a_target_that_is_not_allowed(cloud: LocalCloud) -> None:
    diagnosis = ask(cloud.url, cloud.key, ("db.internal", 5432))
    assert diagnosis.outcome() == ("allowed", Exit.NOT_ALLOWED)
    assert "AllowedTargets" in diagnosis.hint("allowed")


def test_a_name_that_does_not_resolve(cloud: LocalCloud) -> None:
    diagnosis = ask(cloud.url, cloud.key, ("no-such-name.invalid", 5432))
    assert diagnosis.outcome() == ("name", Exit.NAME_NOT_FOUND)
    assert diagnosis["relay"] == "ok"


def test_a_target_that_refuses(cloud: LocalCloud) -> None:
    with unused_port() as target:
        diagnosis = ask(cloud.url, cloud.key, target)
    assert diagnosis.outcome() == ("target", Exit.REFUSED)


def test_a_target_that_swallows_connections(cloud: LocalCloud) -> None:
    with BlackHole() as target:
        diagnosis = ask(cloud.url, cloud.key, target)
    assert diagnosis.outcome() == ("target", Exit.TIMED_OUT)
    assert "security group" in diagnosis.hint("target")


@pytest.mark.parametrize("how", ["close", "reset", "mid-frame", "silent"])
def test_a_tunnel_that_is_cut_while_the_target_is_asked(sick: LocalCloud, how: str) -> None:
    with Server(sink) as target:
        diagnosis = ask(
            sick.url,
            sick.key,
            target,
            service="postgres",
            short={"request": 1.0},
            before_request=lambda: sick.cut("dialer", how),
        )
    assert diagnosis.outcome() == ("service", Exit.CUT_OFF)
    assert "the tunnel broke" in diagnosis.fact("service")


# -- services -----------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["postgres", "mysql", "redis"])
def test_a_target_that_does_not_speak(cloud: LocalCloud, service: str) -> None:
    with Server(sink) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service=service, short={"request": 1.0})
    assert diagnosis.outcome() == ("service", Exit.SERVICE)
    assert f"silent for {SERVICE_TIMEOUT:g} s" in diagnosis.fact("service")


def test_a_target_that_hangs_up(cloud: LocalCloud) -> None:
    with Server(source(b"")) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service="redis")
    assert diagnosis.outcome() == ("service", Exit.SERVICE)
    assert "closed the connection without an answer of Redis" in diagnosis.fact("service")


def test_a_target_that_is_somebody_else(cloud: LocalCloud) -> None:
    with Server(greeter(b"SSH-2.0-OpenSSH_9.6\r\n")) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service="mysql")
    assert diagnosis.outcome() == ("service", Exit.SERVICE)
    assert "an SSH server answers" in diagnosis.fact("service")


def test_a_recorded_mariadb_and_a_recorded_redis_are_recognised(cloud: LocalCloud) -> None:
    def redis(connection: socket.socket) -> None:
        if connection.recv(6) == b"PING\r\n":  # a second dial, after a slow start, asks nothing
            connection.sendall(b"-NOAUTH Authentication required.\r\n")
            sink(connection)

    with Server(greeter(MARIADB_SAYS)) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service="mysql")
        assert "MariaDB 10.11.18" in diagnosis.fact("service")
    with Server(redis) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service="redis")
        assert "asks for a password" in diagnosis.fact("service")
    assert diagnosis.outcome() == (None, 0)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
@pytest.mark.parametrize(("options", "says"), [([], "no password"), (["--requirepass", "x"], "a password")])
def test_a_real_redis(cloud: LocalCloud, tmp_path: pathlib.Path, options: list[str], says: str) -> None:
    with behind(*redis_words(*options), directory=tmp_path) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service="redis")
    assert diagnosis.outcome() == (None, 0)
    assert f"asks for {says}" in diagnosis.fact("service")


@pytest.mark.skipif(shutil.which("mariadbd") is None, reason="no mariadbd is installed")
def test_a_real_mariadb(cloud: LocalCloud, tmp_path: pathlib.Path) -> None:
    with behind(*mariadb_words(tmp_path), directory=tmp_path) as target:
        diagnosis = ask(cloud.url, cloud.key, target, service="mysql")
    assert diagnosis.outcome() == (None, 0)
    assert re.match(r"MariaDB \d+\.\d+", diagnosis.fact("service"))
