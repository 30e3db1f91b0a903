"""All checks over a network of the test's making."""

from __future__ import annotations

import pytest

from emissary_lib.client.settings import SettingsReader
from emissary_lib.doctor.checks import Result, Status, failure, ok
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.run import CHECKS, examine, latencies
from emissary_lib.doctor.service_probes import POSTGRES
from emissary_lib.exceptions import dial_error
from emissary_lib.exit_status import DOCTOR, Exit
from emissary_lib.protocol.codes import Code
from tests.helpers.doctor import (
    ENVIRON,
    TARGET,
    URL,
    FakeClock,
    FakeNetwork,
    FakeProbe,
    certificate_error,
    dependencies,
    no_proxy,
)


def fresh(environ: dict[str, str] | None = None) -> Settings:
    given = ENVIRON if environ is None else environ
    return Settings(SettingsReader(given, default_file=None), no_proxy, 20.0)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(FakeClock())


def test_all_checks_pass_and_every_hop_is_timed(network: FakeNetwork) -> None:
    bridge = FakeProbe(network.clock, {"connect_once": 0.2, "prove": 0.05})
    takes = {"connect_with_retry": 0.3, "dial": 0.9, "ping": 0.04, "request": 0.06}
    first = FakeProbe(network.clock, takes, target_says=(b"N",))
    second = FakeProbe(network.clock, {"dial": 0.2})
    report = examine(fresh(), TARGET, POSTGRES, dependencies=dependencies(network, bridge, first, second))
    assert [each.name for each in report.results] == list(CHECKS)
    assert {each.finding.status for each in report.results} == {Status.OK}
    assert (report.url, report.target, report.exit) == (URL, "db.internal:5432", Exit.OK)
    assert report.latency == pytest.approx(
        {
            "dns": 0.01,
            "tcp": 0.02,
            "tls": 0.03,
            "upgrade": 0.2 - 0.06,
            "opening": 0.05,
            "relay": 0.9,
            "relay_warm": 0.2,
            "round_trip": 0.04,
            "service": 0.06,
            "target": 0.02,
        }
    )
    for probe in (bridge, first, second):
        assert probe.steps[-1] == "close"
    assert network.closed == 1


def test_without_a_target_the_checks_end_at_the_bridge(network: FakeNetwork) -> None:
    probe = FakeProbe(network.clock)
    seen: list[Result] = []
    report = examine(fresh(), None, None, dependencies=dependencies(network, probe), on_result=seen.append)
    assert [each.name for each in report.results] == list(CHECKS)
    assert tuple(seen) == report.results
    behind = report.results[CHECKS.index("allowed") :]
    assert {each.finding.fact for each in behind} == {"no target was named"}
    assert (report.exit, report.target) == (Exit.OK, None)
    assert probe.steps == ["connect_once", "prove", "close", "close"]


def test_without_settings_nothing_is_asked(network: FakeNetwork) -> None:
    report = examine(fresh({}), TARGET, POSTGRES, dependencies=dependencies(network))
    assert report.exit is Exit.SETTINGS
    assert report.url is None
    assert network.asked == []


def test_a_failed_check_keeps_the_rest_from_being_tried(network: FakeNetwork) -> None:
    network.tls_error = certificate_error(20, "unable to get local issuer certificate")
    report = examine(fresh(), TARGET, POSTGRES, dependencies=dependencies(network))  # no session may begin
    assert report.failed_check is not None
    assert (report.failed_check.name, report.exit) == ("tls", Exit.GATEWAY_TLS)
    assert network.closed == 1


def test_a_target_that_refuses_breaks_at_the_target(network: FakeNetwork) -> None:
    error = dial_error(TARGET, Code.TARGET_REFUSED)
    probe = FakeProbe(network.clock, raises={"dial": error}, relay_spoke=True)
    report = examine(
        fresh(), TARGET, POSTGRES, dependencies=dependencies(network, FakeProbe(network.clock), probe)
    )
    assert report.failed_check is not None
    assert (report.failed_check.name, report.exit) == ("target", Exit.REFUSED)


def test_each_check_that_can_break_has_an_exit_status_of_its_own() -> None:
    own = sorted(DOCTOR)
    assert len(own) == len(set(own)) == 9


def test_a_hop_that_was_faster_the_second_time_is_not_negative() -> None:
    results = [Result("tcp", ok("x", 0.5)), Result("connect", ok("x", 0.1)), Result("tls", ok("x"))]
    assert latencies(results) == {"tcp": 0.5, "upgrade": 0.0}


def test_the_time_of_a_failure_counts_too() -> None:
    assert latencies([Result("relay", failure(Exit.RELAY, "x", "y", 20.0))]) == {"relay": 20.0}
