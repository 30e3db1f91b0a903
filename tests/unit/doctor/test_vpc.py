"""The rungs behind the bridge, each way to hold and to break."""

from __future__ import annotations

import pytest

from emissary_lib.doctor.report import Finding, Result, Status
from emissary_lib.doctor.service_probes import POSTGRES, Greeting
from emissary_lib.doctor.vpc import SAMPLES, Vpc
from emissary_lib.exceptions import AuthenticationError, LinkClosedError, TunnelResetError, dial_error
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.doctor import TARGET, FakeClock, FakeWay, settings


def vpc(
    way: FakeWay,
    second: FakeWay | None = None,
    target: Target = TARGET,
    greeting: Greeting | None = POSTGRES,
) -> Vpc:
    left = [way, second or FakeWay(way.clock)]
    return Vpc(settings(), target, greeting, lambda: left.pop(0), way.clock)


def reached(way: FakeWay, target: Target = TARGET, greeting: Greeting | None = POSTGRES) -> Vpc:
    """Behind the rung of the target."""
    ladder = vpc(way, target=target, greeting=greeting)
    assert ladder.tcp().status is Status.OK
    way.steps.clear()
    return ladder


def climb(ladder: Vpc) -> list[Result]:
    """The first four rungs, up to the one that breaks."""
    results = []
    for name in ("allowed", "relay", "name", "tcp"):
        found: Finding = getattr(ladder, name)()
        results.append(Result(name, found))
        if found.status is Status.FAILED:
            break
    return results


def broken(error: Exception, *, spoke: bool, **way: object) -> Result:
    made = FakeWay(FakeClock(), raises={"dial": error}, relay_spoke=spoke)
    for name, value in way.items():
        setattr(made, name, value)
    return climb(vpc(made))[-1]


def test_a_target_that_is_reached_holds_on_every_rung_and_is_dialled_once() -> None:
    way = FakeWay(FakeClock(), takes={"dial": 0.2})
    results = climb(vpc(way))
    assert [each.finding.status for each in results] == [Status.OK] * 4
    assert way.steps == ["enter", "dial"]
    assert results[1].finding.seconds == pytest.approx(0.2)
    assert "warm" in results[1].finding.fact
    assert results[3].finding.fact == "the relay is connected to db.internal:5432"


def test_a_slow_start_is_left_to_the_second_one_to_judge() -> None:
    results = climb(vpc(FakeWay(FakeClock(), takes={"dial": 1.4})))
    assert "see the rung warm" in results[1].finding.fact


@pytest.mark.parametrize("host", ["10.0.0.9", "2001:db8::9"])
def test_an_address_needs_no_name(host: str) -> None:
    found = vpc(FakeWay(FakeClock()), target=Target(host, 5432)).name()
    assert found.status is Status.SKIPPED


@pytest.mark.parametrize(
    ("code", "rung", "exit", "remedy"),
    [
        (Code.NAME_NOT_FOUND, "name", Exit.NAME_NOT_FOUND, "private hosted zone"),
        (Code.TARGET_REFUSED, "tcp", Exit.REFUSED, "the service runs"),
        (Code.TARGET_UNREACHABLE, "tcp", Exit.UNREACHABLE, "route tables"),
        (Code.TARGET_TIMED_OUT, "tcp", Exit.TIMED_OUT, "RelaySecurityGroupId"),
        (Code.TARGET_FAILED, "tcp", Exit.NOT_REACHED, "RelayFunction"),
    ],
)
def test_what_the_relay_reports_of_the_target_breaks_the_right_rung(
    code: Code, rung: str, exit: Exit, remedy: str
) -> None:
    result = broken(dial_error(TARGET, code), spoke=True)
    assert (result.rung, result.finding.exit) == (rung, exit)
    assert remedy in result.finding.remedy


def test_a_target_that_the_bridge_refuses_is_not_on_the_list() -> None:
    result = broken(dial_error(TARGET, Code.TARGET_NOT_ALLOWED), spoke=False)
    assert (result.rung, result.finding.exit) == ("allowed", Exit.NOT_ALLOWED)
    assert "AllowedTargets" in result.finding.remedy


def test_a_target_that_the_relay_refuses_has_a_forbidden_address() -> None:
    result = broken(dial_error(TARGET, Code.TARGET_NOT_ALLOWED), spoke=True)
    assert (result.rung, result.finding.exit) == ("allowed", Exit.NOT_ALLOWED)
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
def test_a_relay_that_does_not_come_breaks_its_own_rung(error: Exception) -> None:
    result = broken(error, spoke=False)
    assert (result.rung, result.finding.exit) == ("relay", Exit.RELAY)
    assert "RelayFunction" in result.finding.remedy


def test_a_relay_that_does_not_come_blames_the_way_out_of_the_vpc() -> None:
    result = broken(TimeoutError(), spoke=False, gateway_errors=4)
    assert "no relay reported within 20 s; the gateway reported 4 errors" in result.finding.fact
    for cause in ("concurrency", "inactive", "NAT", "443", "execute-api"):
        assert cause in result.finding.remedy


def test_a_limit_of_sessions_has_its_own_status() -> None:
    result = broken(dial_error(TARGET, Code.SESSION_LIMIT, "limit of 5 sessions for key 7"), spoke=False)
    assert (result.rung, result.finding.exit) == ("relay", Exit.LIMIT)
    assert "limit of 5 sessions for key 7" in result.finding.fact


def test_a_key_that_only_default_refuses_is_a_matter_of_keys() -> None:
    result = broken(AuthenticationError("did not accept the key"), spoke=False)
    assert (result.rung, result.finding.exit) == ("relay", Exit.KEY)


def test_the_round_trip_is_a_median() -> None:
    way = FakeWay(FakeClock(), takes={"ping": 0.04})
    found = reached(way).round_trip()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.04)
    assert way.steps == ["ping"] * SAMPLES


def test_a_round_trip_with_errors_of_the_gateway_is_a_warning() -> None:
    found = reached(FakeWay(FakeClock(), gateway_errors=1)).round_trip()
    assert found.status is Status.WARNING


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TimeoutError(), "no answer in time"),
        (TunnelResetError("cut off by an operator", code=Code.KILLED), "cut off by an operator"),
    ],
)
def test_a_tunnel_that_breaks_is_told_as_such(error: Exception, says: str) -> None:
    found = reached(FakeWay(FakeClock(), raises={"ping": error})).round_trip()
    assert (found.status, found.exit) == (Status.FAILED, Exit.CUT_OFF)
    assert says in found.fact


def test_a_greeting_is_asked_for_and_timed() -> None:
    way = FakeWay(FakeClock(), takes={"converse": 0.07}, target_says=(b"S",))
    found = reached(way).greet()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.07)
    assert way.heard == bytes.fromhex("0000000804d2162f")


def test_a_port_that_tells_no_protocol_is_not_spoken_to() -> None:
    way = FakeWay(FakeClock())
    found = reached(way, target=Target("db.internal", 1433), greeting=None).greet()
    assert found.status is Status.SKIPPED
    assert way.steps == []


def test_a_target_that_does_not_speak_breaks_the_greeting() -> None:
    found = reached(FakeWay(FakeClock())).greet()
    assert (found.status, found.exit) == (Status.FAILED, Exit.GREETING)
    assert "silent for 10 s" in found.fact


def test_a_target_that_does_not_speak_is_told_from_a_tunnel_that_died() -> None:
    way = FakeWay(FakeClock(), raises={"ping": TimeoutError()})
    found = reached(way).greet()
    assert (found.exit, found.fact) == (Exit.CUT_OFF, "the tunnel broke: no answer in time")
    assert way.steps == ["converse", "ping"]


def test_a_websocket_that_closes_while_the_target_is_asked_is_a_broken_tunnel() -> None:
    found = reached(FakeWay(FakeClock(), raises={"converse": LinkClosedError("1001")})).greet()
    assert (found.exit, found.fact) == (Exit.CUT_OFF, "the tunnel broke: 1001")


def test_a_target_that_hangs_up_breaks_the_greeting() -> None:
    found = reached(FakeWay(FakeClock(), target_ends=True)).greet()
    assert found.exit is Exit.GREETING
    assert "hung up without a word" in found.fact


def test_a_target_that_resets_breaks_the_greeting() -> None:
    error = dial_error(TARGET, Code.TARGET_RESET)
    found = reached(FakeWay(FakeClock(), raises={"converse": error})).greet()
    assert found.exit is Exit.GREETING
    assert "broke before PostgreSQL greeted" in found.fact


def test_a_second_start_tells_that_the_first_was_cold() -> None:
    clock = FakeClock()
    first = FakeWay(clock, takes={"dial": 1.2})
    second = FakeWay(clock, takes={"enter": 0.5, "dial": 0.2})
    ladder = vpc(first, second)
    climb(ladder)
    found = ladder.warm()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.2)
    assert "was cold; a warm one saves 1000 ms" in found.fact
    assert first.steps[-1] == "close"  # before the second: its environment has to be free
    assert second.steps == ["enter", "dial", "close"]


def test_a_second_start_that_takes_as_long_tells_that_it_is_the_way() -> None:
    clock = FakeClock()
    ladder = vpc(FakeWay(clock, takes={"dial": 1.2}), FakeWay(clock, takes={"dial": 1.1}))
    climb(ladder)
    assert "takes as long" in ladder.warm().fact


def test_no_second_start_is_made_after_a_warm_one() -> None:
    clock = FakeClock()
    second = FakeWay(clock)
    ladder = vpc(FakeWay(clock, takes={"dial": 0.2}), second)
    climb(ladder)
    assert ladder.warm().status is Status.SKIPPED
    assert second.steps == []


@pytest.mark.parametrize("step", ["enter", "dial"])
def test_a_second_start_that_fails_is_a_warning_and_leaves_nothing_open(step: str) -> None:
    clock = FakeClock()
    second = FakeWay(clock, raises={step: LinkClosedError("cut")})
    ladder = vpc(FakeWay(clock, takes={"dial": 1.2}), second)
    climb(ladder)
    found = ladder.warm()
    assert (found.status, found.fact) == (Status.WARNING, "a second dial failed: cut")
    assert second.steps[-1] == "close"


def test_a_greeting_that_refuses_keeps_its_exit_status() -> None:
    error = b"E\x00\x00\x00\x16SFATAL\x00Mtoo many\x00\x00"
    way = FakeWay(FakeClock(), target_says=(error[:3], error[3:]))
    found = reached(way).greet()
    assert (found.exit, found.fact) == (Exit.GREETING, "PostgreSQL refuses: too many")


def test_the_session_is_closed_if_there_is_one() -> None:
    way = FakeWay(FakeClock())
    vpc(way).close()
    assert way.steps == []
    reached(way).close()
    assert way.steps == ["close"]
