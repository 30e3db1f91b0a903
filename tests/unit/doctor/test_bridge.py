"""The rungs at the bridge, each way to hold and to break."""

from __future__ import annotations

import pytest

from emissary_lib.doctor.bridge import PAUSES, Bridge
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.report import Finding, Status
from emissary_lib.exceptions import (
    AnswerLostError,
    AuthenticationError,
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkClosedError,
    RemoteProtocolError,
    ServerProofError,
    UnsupportedVersionError,
)
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.httpdate import http_date
from tests.helpers.doctor import FakeClock, FakeWay, settings


class Bench:
    """A bridge whose door is knocked at with sessions of the test's making."""

    def __init__(self, *ways: FakeWay, given: Settings | None = None) -> None:
        self.clock = FakeClock()
        self.ways = list(ways) or [FakeWay(self.clock)]
        self.pauses: list[float] = []
        left = list(self.ways)
        self.bridge = Bridge(
            given or settings(), lambda: left.pop(0), self.clock, self.pauses.append, lambda: 0.25
        )


def refused(status: int, date: str | None = None) -> GatewayRefusedError:
    message = f"the gateway at wss://host refused the connection with HTTP status {status}"
    return GatewayRefusedError(message, http_status=status, date=date)


def knocked(*errors: Exception | None, given: Settings | None = None) -> tuple[Finding, Bench]:
    ways = [FakeWay(FakeClock(), raises={} if error is None else {"connect_once": error}) for error in errors]
    bench = Bench(*ways, given=given)
    return bench.bridge.connect(), bench


# -- $connect -----------------------------------------------------------------------------------


def test_an_open_door_tells_the_key_and_the_time() -> None:
    bench = Bench()
    bench.ways = [FakeWay(bench.clock, takes={"connect_once": 0.25})]
    bench.bridge.make_way = lambda: bench.ways[0]
    found = bench.bridge.connect()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.25)
    assert "key id 7" in found.fact
    assert bench.bridge.open_way is bench.ways[0]


@pytest.mark.parametrize(
    ("status", "exit", "fact", "remedy"),
    [
        (400, Exit.DOOR, "does not understand", "same release"),
        (401, Exit.KEY, "no usable signature arrived", "proxy on the way drops the X-Emissary-* headers"),
        (403, Exit.KEY, "the key or the URL's stage", "key id 7 is unknown there or its secret is another"),
        (404, Exit.DOOR, "nothing at this path", "stage"),
        (409, Exit.DOOR, "saw this session before", "proxy"),
        (410, Exit.DOOR, "the API is gone", "WebSocketUrl"),
        (429, Exit.DOOR, "throttled", "the stage's throttle for $connect"),
        (418, Exit.DOOR, "not an answer of our bridge", "check the URL"),
        (500, Exit.DOOR, "$connect fails", "ConnectFunction"),
        (502, Exit.DOOR, "$connect fails", "ConnectFunction"),
        (504, Exit.DOOR, "29 s", "ConnectFunction"),
    ],
)
def test_each_refusal_is_explained(status: int, exit: Exit, fact: str, remedy: str) -> None:
    found, _bench = knocked(*[refused(status)] * 3)
    assert (found.status, found.exit) == (Status.FAILED, exit)
    assert f"HTTP status {status}" in found.fact
    assert fact in found.fact
    assert remedy in found.remedy


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_door_that_stumbles_and_opens_is_a_warning(status: int) -> None:
    found, bench = knocked(refused(status), AnswerLostError("cut"), None)
    assert found.status is Status.WARNING
    assert f"HTTP status {status} and a lost answer" in found.fact
    assert bench.pauses == [0.75 * each for each in PAUSES]
    assert bench.bridge.open_way is bench.ways[2]


def test_a_refusal_that_stays_is_not_asked_for_again() -> None:
    found, bench = knocked(refused(403), None)
    assert found.exit is Exit.KEY
    assert bench.pauses == []
    assert bench.ways[1].steps == []


def test_a_403_with_another_time_is_the_clock_s_fault() -> None:
    long_ago = http_date(1_000_000_000)  # far from any clock of ours
    found, _bench = knocked(refused(403, long_ago))
    assert found.exit is Exit.CLOCK
    assert "NTP" in found.remedy


def test_a_403_from_a_private_address_is_the_private_dns_trap_s() -> None:
    found, _bench = knocked(refused(403), given=settings(private=True))
    assert found.exit is Exit.GATEWAY
    assert "execute-api VPC endpoint" in found.fact


def test_answers_that_are_lost_each_time_blame_the_way() -> None:
    found, bench = knocked(*[AnswerLostError("cut")] * 3)
    assert found.exit is Exit.DOOR
    assert "does not" not in found.fact
    assert "WebSockets" in found.remedy
    assert len(bench.pauses) == 2


def test_a_server_that_does_not_speak_the_protocol_is_something_else() -> None:
    found, _ = knocked(GatewayUnreachableError("the server at wss://host does not speak emissary.v2"))
    assert found.exit is Exit.DOOR
    assert "something else answers" in found.remedy


def test_a_gateway_that_went_away_is_told_as_it_is() -> None:
    found, _ = knocked(GatewayUnreachableError("cannot reach the gateway: refused"))
    assert (found.exit, found.fact) == (Exit.DOOR, "cannot reach the gateway: refused")


def test_a_door_that_never_answers_points_at_its_function() -> None:
    found, _ = knocked(TimeoutError())
    assert found.exit is Exit.DOOR
    assert "within 20 s" in found.fact
    assert "ConnectFunction" in found.remedy


# -- $default, version, proof -------------------------------------------------------------------


def opened(**way: object) -> Bridge:
    bench = Bench()
    for name, value in way.items():
        setattr(bench.ways[0], name, value)
    bench.ways[0].clock = bench.clock
    assert bench.bridge.connect().status is Status.OK
    return bench.bridge


def test_an_answer_tells_time_version_and_proof() -> None:
    bridge = opened(takes={"prove": 0.06})
    answer = bridge.answer()
    assert answer.status is Status.OK
    assert answer.seconds == pytest.approx(0.06)
    assert bridge.version().fact == "protocol 2, emissary-lambda 1.2.3"
    assert bridge.proof().status is Status.OK
    assert isinstance(bridge.way, FakeWay)
    assert bridge.way.steps[-1] == "close"  # nobody needs it any more


def test_an_answer_after_errors_of_the_gateway_is_a_warning() -> None:
    found = opened(gateway_errors=2).answer()
    assert found.status is Status.WARNING
    assert "2 errors" in found.fact


@pytest.mark.parametrize(
    ("error", "exit", "fact", "remedy"),
    [
        (TimeoutError(), Exit.BRIDGE, "did not answer within 20 s", "@connections"),
        (LinkClosedError("closed: 1001"), Exit.BRIDGE, "was cut: closed: 1001", "try again"),
        (RemoteProtocolError("no banner"), Exit.BRIDGE, "no banner", "something else than Emissary"),
        (AuthenticationError("did not accept the key"), Exit.KEY, "did not accept", "retired"),
    ],
)
def test_each_way_not_to_answer_is_explained(error: Exception, exit: Exit, fact: str, remedy: str) -> None:
    found = opened(raises={"prove": error}).answer()
    assert (found.status, found.exit) == (Status.FAILED, exit)
    assert fact in found.fact
    assert remedy in found.remedy


def test_silence_with_errors_of_the_gateway_names_them() -> None:
    found = opened(raises={"prove": TimeoutError()}, gateway_errors=3).answer()
    assert "the gateway reported 3 errors" in found.fact


def test_another_version_breaks_at_the_version_though_the_bridge_answers() -> None:
    bridge = opened(raises={"prove": UnsupportedVersionError("the server speaks version 3")})
    assert bridge.answer().status is Status.OK
    found = bridge.version()
    assert (found.exit, found.fact) == (Exit.VERSION, "the server speaks version 3")
    assert "upgrade" in found.remedy


def test_a_false_proof_breaks_at_the_proof_though_the_version_fits() -> None:
    bridge = opened(raises={"prove": ServerProofError("the MAC is wrong")})
    assert bridge.answer().status is Status.OK
    assert bridge.version().status is Status.OK
    found = bridge.proof()
    assert (found.exit, found.fact) == (Exit.PROOF, "the MAC is wrong")
    assert "send it nothing" in found.remedy


def test_the_session_is_closed_if_there_is_one() -> None:
    bench = Bench()
    bench.bridge.close()
    assert bench.ways[0].steps == []
    bench.bridge.connect()
    bench.bridge.close()
    assert bench.ways[0].steps == ["connect_once", "close"]
