"""The checks behind the bridge, each way to pass and to fail."""

from __future__ import annotations

import pytest

from emissary_lib.doctor.checks import Finding, Result, Status
from emissary_lib.doctor.service_probes import POSTGRES, ServiceProbe
from emissary_lib.doctor.vpc import SAMPLES, Vpc
from emissary_lib.exceptions import AuthenticationError, LinkClosedError, TunnelResetError, dial_error
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.doctor import TARGET, FakeClock, FakeProbe, settings


def vpc(
    probe: FakeProbe,
    second: FakeProbe | None = None,
    target: Target = TARGET,
    service_probe: ServiceProbe | None = POSTGRES,
) -> Vpc:
    left = [probe, second or FakeProbe(probe.clock)]
    return Vpc(settings(), target, service_probe, lambda: left.pop(0), probe.clock)


def reached(probe: FakeProbe, target: Target = TARGET, service_probe: ServiceProbe | None = POSTGRES) -> Vpc:
    """Behind the check of the target."""
    checks = vpc(probe, target=target, service_probe=service_probe)
    assert checks.tcp().status is Status.OK
    probe.steps.clear()
    return checks


def run_checks(checks: Vpc) -> list[Result]:
    """The first four checks, up to the one that breaks."""
    results = []
    for name in ("allowed", "relay", "name", "tcp"):
        found: Finding = getattr(checks, name)()
        results.append(Result(name, found))
        if found.status is Status.FAILED:
            break
    return results


def broken(error: Exception, *, spoke: bool, **probe: object) -> Result:
    made = FakeProbe(FakeClock(), raises={"dial": error}, relay_spoke=spoke)
    for name, value in probe.items():
        setattr(made, name, value)
    return run_checks(vpc(made))[-1]


def test_a_target_that_is_reached_passes_every_check_and_is_dialled_once() -> None:
    probe = FakeProbe(FakeClock(), takes={"dial": 0.2})
    results = run_checks(vpc(probe))
    assert [each.finding.status for each in results] == [Status.OK] * 4
    assert probe.steps == ["connect_with_retry", "dial"]
    assert results[1].finding.seconds == pytest.approx(0.2)
    assert "warm" in results[1].finding.fact
    assert results[3].finding.fact == "the relay is connected to db.internal:5432"


def test_a_slow_start_is_left_to_the_second_one_to_judge() -> None:
    results = run_checks(vpc(FakeProbe(FakeClock(), takes={"dial": 1.4})))
    assert "see the check warm" in results[1].finding.fact


@pytest.mark.parametrize("host", ["10.0.0.9", "2001:db8::9"])
def test_an_address_needs_no_name(host: str) -> None:
    found = vpc(FakeProbe(FakeClock()), target=Target(host, 5432)).name()
    assert found.status is Status.SKIPPED


@pytest.mark.parametrize(
    ("code", "check", "exit", "hint"),
    [
        (Code.NAME_NOT_FOUND, "name", Exit.NAME_NOT_FOUND, "private hosted zone"),
        (Code.TARGET_REFUSED, "tcp", Exit.REFUSED, "the service runs"),
        (Code.TARGET_UNREACHABLE, "tcp", Exit.UNREACHABLE, "route tables"),
        (Code.TARGET_TIMED_OUT, "tcp", Exit.TIMED_OUT, "RelaySecurityGroupId"),
        (Code.TARGET_FAILED, "tcp", Exit.NOT_REACHED, "RelayFunction"),
    ],
)
def test_what_the_relay_reports_of_the_target_breaks_the_right_check(
    code: Code, check: str, exit: Exit, hint: str
) -> None:
    result = broken(dial_error(TARGET, code), spoke=True)
    assert (result.name, result.finding.exit) == (check, exit)
    assert hint in result.finding.hint


def test_a_target_that_the_bridge_refuses_is_not_on_the_list() -> None:
    result = broken(dial_error(TARGET, Code.TARGET_NOT_ALLOWED), spoke=False)
    assert (result.name, result.finding.exit) == ("allowed", Exit.NOT_ALLOWED)
    assert "AllowedTargets" in result.finding.hint


def test_an_allow_list_that_the_bridge_cannot_read_is_named() -> None:
    reason = (
        "EMISSARY_ALLOWED_PROXY_TARGETS (template parameter AllowedTargets): the allow-list is not a list"
    )
    result = broken(dial_error(TARGET, Code.CONFIGURATION_ERROR, reason), spoke=False)
    assert (result.name, result.finding.exit) == ("allowed", Exit.NOT_REACHED)
    assert reason in result.finding.fact
    assert "deploys again" in result.finding.hint


def test_a_target_that_the_relay_refuses_has_a_forbidden_address() -> None:
    result = broken(dial_error(TARGET, Code.TARGET_NOT_ALLOWED), spoke=True)
    assert (result.name, result.finding.exit) == ("allowed", Exit.NOT_ALLOWED)
    assert "not the address it has in the VPC" in result.finding.fact


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        LinkClosedError("the gateway closed the WebSocket: 1001"),
        dial_error(TARGET, Code.OPENING_EXPIRED),
        dial_error(TARGET, Code.RELAY_GONE),
        dial_error(TARGET, Code.BRIDGE_ERROR),
    ],
)
def test_a_relay_that_does_not_come_breaks_its_own_check(error: Exception) -> None:
    result = broken(error, spoke=False)
    assert (result.name, result.finding.exit) == ("relay", Exit.RELAY)
    assert "RelayFunction" in result.finding.hint


def test_a_relay_that_does_not_come_blames_the_way_out_of_the_vpc() -> None:
    result = broken(TimeoutError(), spoke=False, gateway_errors=4)
    assert "no relay reported within 20 s; the gateway reported 4 errors" in result.finding.fact
    for cause in ("concurrency", "inactive", "NAT", "443", "execute-api"):
        assert cause in result.finding.hint


def test_a_limit_of_sessions_has_its_own_status() -> None:
    result = broken(dial_error(TARGET, Code.SESSION_LIMIT, "limit of 5 sessions for key 7"), spoke=False)
    assert (result.name, result.finding.exit) == ("relay", Exit.LIMIT)
    assert "limit of 5 sessions for key 7" in result.finding.fact
    assert "let more connections share a relay (EMISSARY_CONNECTIONS_PER_RELAY)" in result.finding.hint


def test_a_key_that_only_default_refuses_is_a_matter_of_keys() -> None:
    result = broken(AuthenticationError("did not accept the key"), spoke=False)
    assert (result.name, result.finding.exit) == ("relay", Exit.KEY)


def test_the_round_trip_is_a_median() -> None:
    probe = FakeProbe(FakeClock(), takes={"ping": 0.04})
    found = reached(probe).round_trip()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.04)
    assert probe.steps == ["ping"] * SAMPLES


def test_a_round_trip_with_errors_of_the_gateway_is_a_warning() -> None:
    found = reached(FakeProbe(FakeClock(), gateway_errors=1)).round_trip()
    assert found.status is Status.WARNING


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "no answer in time"),
        (TunnelResetError("cut off by an operator", code=Code.KILLED), "cut off by an operator"),
    ],
)
def test_a_tunnel_that_breaks_is_told_as_such(error: Exception, says: str) -> None:
    found = reached(FakeProbe(FakeClock(), raises={"ping": error})).round_trip()
    assert (found.status, found.exit) == (Status.FAILED, Exit.CUT_OFF)
    assert says in found.fact


def test_a_service_is_asked_and_timed() -> None:
    probe = FakeProbe(FakeClock(), takes={"request": 0.07}, target_says=(b"S",))
    found = reached(probe).service()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.07)
    assert probe.heard == bytes.fromhex("0000000804d2162f")


def test_a_port_that_tells_no_protocol_is_not_spoken_to() -> None:
    probe = FakeProbe(FakeClock())
    found = reached(probe, target=Target("db.internal", 1433), service_probe=None).service()
    assert found.status is Status.SKIPPED
    assert probe.steps == []


def test_a_target_that_does_not_speak_fails_the_check() -> None:
    found = reached(FakeProbe(FakeClock())).service()
    assert (found.status, found.exit) == (Status.FAILED, Exit.SERVICE)
    assert "silent for 10 s" in found.fact


def test_a_target_that_does_not_speak_is_told_from_a_tunnel_that_died() -> None:
    probe = FakeProbe(FakeClock(), raises={"ping": TimeoutError()})
    found = reached(probe).service()
    assert (found.exit, found.fact) == (Exit.CUT_OFF, "the tunnel broke: no answer in time")
    assert probe.steps == ["request", "ping"]


def test_a_websocket_that_closes_while_the_target_is_asked_is_a_broken_tunnel() -> None:
    found = reached(FakeProbe(FakeClock(), raises={"request": LinkClosedError("1001")})).service()
    assert (found.exit, found.fact) == (Exit.CUT_OFF, "the tunnel broke: 1001")


def test_a_target_that_hangs_up_fails_the_check() -> None:
    found = reached(FakeProbe(FakeClock(), target_ends=True)).service()
    assert found.exit is Exit.SERVICE
    assert "closed the connection without an answer" in found.fact


def test_a_target_that_resets_fails_the_check() -> None:
    error = dial_error(TARGET, Code.TARGET_RESET)
    found = reached(FakeProbe(FakeClock(), raises={"request": error})).service()
    assert found.exit is Exit.SERVICE
    assert "broke before PostgreSQL answered" in found.fact


def test_a_second_start_tells_that_the_first_was_cold() -> None:
    clock = FakeClock()
    first = FakeProbe(clock, takes={"dial": 1.2})
    second = FakeProbe(clock, takes={"connect_with_retry": 0.5, "dial": 0.2})
    checks = vpc(first, second)
    run_checks(checks)
    found = checks.warm()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.2)
    assert "was cold; a warm one saves 1000 ms" in found.fact
    assert first.steps[-1] == "close"  # before the second: its environment has to be free
    assert second.steps == ["connect_with_retry", "dial", "close"]


def test_a_second_start_that_takes_as_long_tells_that_it_is_the_way() -> None:
    clock = FakeClock()
    checks = vpc(FakeProbe(clock, takes={"dial": 1.2}), FakeProbe(clock, takes={"dial": 1.1}))
    run_checks(checks)
    assert "takes as long" in checks.warm().fact


def test_no_second_start_is_made_after_a_warm_one() -> None:
    clock = FakeClock()
    second = FakeProbe(clock)
    checks = vpc(FakeProbe(clock, takes={"dial": 0.2}), second)
    run_checks(checks)
    assert checks.warm().status is Status.SKIPPED
    assert second.steps == []


@pytest.mark.parametrize("step", ["connect_with_retry", "dial"])
def test_a_second_start_that_fails_is_a_warning_and_leaves_nothing_open(step: str) -> None:
    clock = FakeClock()
    second = FakeProbe(clock, raises={step: LinkClosedError("cut")})
    checks = vpc(FakeProbe(clock, takes={"dial": 1.2}), second)
    run_checks(checks)
    found = checks.warm()
    assert (found.status, found.fact) == (Status.WARNING, "a second dial failed: cut")
    assert second.steps[-1] == "close"


def test_a_service_that_refuses_keeps_its_exit_status() -> None:
    error = b"E\x00\x00\x00\x16SFATAL\x00Mtoo many\x00\x00"
    probe = FakeProbe(FakeClock(), target_says=(error[:3], error[3:]))
    found = reached(probe).service()
    assert (found.exit, found.fact) == (Exit.SERVICE, "PostgreSQL refuses: too many")


def test_the_session_is_closed_if_there_is_one() -> None:
    probe = FakeProbe(FakeClock())
    vpc(probe).close()
    assert probe.steps == []
    reached(probe).close()
    assert probe.steps == ["close"]
