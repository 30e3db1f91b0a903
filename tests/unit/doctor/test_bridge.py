"""The checks at the bridge, each way to pass and to fail."""

from __future__ import annotations

import pytest

from emissary_lib.client.health import Health
from emissary_lib.doctor.bridge import ATTEMPTS, Bridge, health
from emissary_lib.doctor.checks import Finding, Status
from emissary_lib.doctor.configuration import Settings
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
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.wire.health import Usage
from tests.helpers.doctor import HEALTH, FakeClock, FakeProbe, settings


class Bench:
    """A bridge that is checked with sessions of the test's making."""

    def __init__(self, *probes: FakeProbe, given: Settings | None = None) -> None:
        self.clock = FakeClock()
        self.probes = list(probes) or [FakeProbe(self.clock)]
        self.sleeps: list[float] = []
        left = list(self.probes)
        self.bridge = Bridge(
            given or settings(), lambda: left.pop(0), self.clock, self.sleeps.append, lambda: 0.25
        )


def refused(status: int, date: str | None = None) -> GatewayRefusedError:
    message = f"the gateway at wss://host refused the connection with HTTP status {status}"
    return GatewayRefusedError(message, http_status=status, date=date)


def connected(*errors: Exception | None, given: Settings | None = None) -> tuple[Finding, Bench]:
    raises = [{} if error is None else {"connect_once": error} for error in errors]
    probes = [FakeProbe(FakeClock(), raises=each) for each in raises]
    bench = Bench(*probes, given=given)
    return bench.bridge.connect(), bench


# -- $connect -----------------------------------------------------------------------------------


def test_an_accepted_upgrade_tells_the_key_and_the_time() -> None:
    bench = Bench()
    bench.probes = [FakeProbe(bench.clock, takes={"connect_once": 0.25})]
    bench.bridge.make_probe = lambda: bench.probes[0]
    found = bench.bridge.connect()
    assert found.status is Status.OK
    assert found.seconds == pytest.approx(0.25)
    assert "key id 7" in found.fact
    assert bench.bridge.open_probe is bench.probes[0]


@pytest.mark.parametrize(
    ("status", "exit", "fact", "hint"),
    [
        (400, Exit.CONNECT, "does not understand", "same release"),
        (401, Exit.KEY, "no usable signature arrived", "proxy on the way drops the X-Emissary-* headers"),
        (421, Exit.KEY, "the key is right, but the URL's host", "a reverse proxy on the way rewrites Host"),
        (403, Exit.KEY, "the key or the URL is", "key id 7 is unknown there or its secret is another"),
        (404, Exit.CONNECT, "nothing at this path", "stage"),
        (409, Exit.CONNECT, "saw this session before", "proxy"),
        (410, Exit.CONNECT, "the API is gone", "WebSocketUrl"),
        (429, Exit.CONNECT, "throttled", "the stage's throttle for $connect"),
        (418, Exit.CONNECT, "not an answer of the bridge", "check the URL"),
        (500, Exit.CONNECT, "$connect fails", "ConnectFunction"),
        (502, Exit.CONNECT, "$connect fails", "ConnectFunction"),
        (504, Exit.CONNECT, "29 s", "ConnectFunction"),
    ],
)
def test_each_refusal_is_explained(status: int, exit: Exit, fact: str, hint: str) -> None:
    found, _bench = connected(*[refused(status)] * ATTEMPTS)
    assert (found.status, found.exit) == (Status.FAILED, exit)
    assert f"HTTP status {status}" in found.fact
    assert fact in found.fact
    assert hint in found.hint


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_upgrade_that_fails_at_first_is_a_warning(status: int) -> None:
    found, bench = connected(refused(status), AnswerLostError("cut"), None)
    assert found.status is Status.WARNING
    assert f"HTTP status {status} and a lost answer" in found.fact
    assert bench.sleeps == pytest.approx([0.075, 0.15])
    assert bench.bridge.open_probe is bench.probes[2]


def test_a_refusal_that_stays_is_not_asked_for_again() -> None:
    found, bench = connected(refused(403), None)
    assert found.exit is Exit.KEY
    assert bench.sleeps == []
    assert bench.probes[1].steps == []


def test_a_403_with_another_time_is_the_clock_s_fault() -> None:
    long_ago = http_date(1_000_000_000)  # far from any clock of ours
    found, _bench = connected(refused(403, long_ago))
    assert found.exit is Exit.CLOCK
    assert "NTP" in found.hint


def test_a_403_from_a_private_address_is_the_private_dns_trap_s() -> None:
    found, _bench = connected(refused(403), given=settings(private=True))
    assert found.exit is Exit.GATEWAY
    assert "execute-api VPC endpoint" in found.fact


def test_answers_that_are_lost_each_time_blame_the_way() -> None:
    found, bench = connected(*[AnswerLostError("cut")] * ATTEMPTS)
    assert found.exit is Exit.CONNECT
    assert "does not" not in found.fact
    assert "WebSockets" in found.hint
    assert len(bench.sleeps) == ATTEMPTS - 1


def test_a_server_that_does_not_speak_the_protocol_is_something_else() -> None:
    found, _ = connected(GatewayUnreachableError("the server at wss://host does not speak emissary.v2"))
    assert found.exit is Exit.CONNECT
    assert "something else answers" in found.hint


def test_a_gateway_that_went_away_is_told_as_it_is() -> None:
    found, _ = connected(GatewayUnreachableError("cannot reach the gateway: refused"))
    assert (found.exit, found.fact) == (Exit.CONNECT, "cannot reach the gateway: refused")


def test_an_upgrade_that_is_never_answered_points_at_its_function() -> None:
    found, _ = connected(TimeoutError())
    assert found.exit is Exit.CONNECT
    assert "within 20 s" in found.fact
    assert "ConnectFunction" in found.hint


# -- $default, version, proof -------------------------------------------------------------------


def opened(**probe: object) -> Bridge:
    bench = Bench()
    for name, value in probe.items():
        setattr(bench.probes[0], name, value)
    bench.probes[0].clock = bench.clock
    assert bench.bridge.connect().status is Status.OK
    return bench.bridge


def test_an_answer_tells_time_version_and_proof() -> None:
    bridge = opened(takes={"prove": 0.06})
    answer = bridge.answer()
    assert answer.status is Status.OK
    assert answer.seconds == pytest.approx(0.06)
    assert bridge.version().fact == "protocol 2, emissary-lambda 1.2.3"
    assert bridge.proof().status is Status.OK
    assert isinstance(bridge.probe, FakeProbe)
    assert bridge.probe.steps[-1] == "close"  # nobody needs it any more


def test_an_answer_after_errors_of_the_gateway_is_a_warning() -> None:
    found = opened(gateway_errors=2).answer()
    assert found.status is Status.WARNING
    assert "2 errors" in found.fact


@pytest.mark.parametrize(
    ("error", "exit", "fact", "hint"),
    [
        (TimeoutError(), Exit.BRIDGE, "did not answer within 20 s", "@connections"),
        (LinkClosedError("closed: 1001"), Exit.BRIDGE, "was cut: closed: 1001", "try again"),
        (RemoteProtocolError("no banner"), Exit.BRIDGE, "no banner", "something else than Emissary"),
        (AuthenticationError("did not accept the key"), Exit.KEY, "did not accept", "retired"),
    ],
)
def test_each_way_not_to_answer_is_explained(error: Exception, exit: Exit, fact: str, hint: str) -> None:
    found = opened(raises={"prove": error}).answer()
    assert (found.status, found.exit) == (Status.FAILED, exit)
    assert fact in found.fact
    assert hint in found.hint


def test_silence_with_errors_of_the_gateway_names_them() -> None:
    found = opened(raises={"prove": TimeoutError()}, gateway_errors=3).answer()
    assert "the gateway reported 3 errors" in found.fact


def test_another_version_breaks_at_the_version_though_the_bridge_answers() -> None:
    bridge = opened(raises={"prove": UnsupportedVersionError("the server speaks version 3")})
    assert bridge.answer().status is Status.OK
    found = bridge.version()
    assert (found.exit, found.fact) == (Exit.VERSION, "the server speaks version 3")
    assert "upgrade" in found.hint


def test_a_false_proof_breaks_at_the_proof_though_the_version_fits() -> None:
    bridge = opened(raises={"prove": ServerProofError("the MAC is wrong")})
    assert bridge.answer().status is Status.OK
    assert bridge.version().status is Status.OK
    found = bridge.proof()
    assert (found.exit, found.fact) == (Exit.PROOF, "the MAC is wrong")
    assert "send it nothing" in found.hint


def test_the_session_is_closed_if_there_is_one() -> None:
    bench = Bench()
    bench.bridge.close()
    assert bench.probes[0].steps == []
    bench.bridge.connect()
    bench.bridge.close()
    assert bench.probes[0].steps == ["connect_once", "close"]


# -- health -----------------------------------------------------------------------------------------


def asked(answer: Health | Exception, key_ids: tuple[int, ...] = (7,)) -> Finding:
    clock = FakeClock()

    def ask(given: Settings) -> Health:
        clock.pass_(0.05)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return health(settings(key_ids=key_ids), ask, clock)


def test_keys_and_sessions_are_told() -> None:
    found = asked(HEALTH)
    assert found.status is Status.OK
    assert found.fact == "valid key ids: 7, 8; sessions in all: 3 of 50, of this key: not limited"
    assert found.seconds == pytest.approx(0.05)


def test_settings_of_the_bridge_that_let_no_target_be_reached_are_a_failure() -> None:
    reason = "EMISSARY_ALLOWED_PROXY_TARGETS (template parameter AllowedTargets): it is no list"
    found = asked(replace(HEALTH, fault=reason))
    assert (found.status, found.exit) == (Status.FAILED, Exit.NOT_REACHED)
    assert reason in found.fact
    assert "deploys again" in found.hint


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"usage": Usage(50, 50)}, "MaxSessions or RelayConcurrency"),
        ({"key_usage": Usage(5, 5)}, "MaxSessionsPerKey"),
    ],
)
def test_a_limit_that_is_reached_is_a_warning(change: dict[str, Usage], parameter: str) -> None:
    found = asked(replace(HEALTH, **change))
    assert found.status is Status.WARNING
    assert found.hint.endswith(f"raise {parameter}")
    assert "let more connections share a relay (EMISSARY_CONNECTIONS_PER_RELAY)" in found.hint


def test_a_key_that_is_given_here_and_not_valid_there_is_a_warning() -> None:
    found = asked(HEALTH, key_ids=(7, 9))
    assert found.status is Status.WARNING
    assert found.hint.endswith("of id 9")


@pytest.mark.parametrize(
    ("error", "says"), [(TimeoutError(), "no answer in time"), (LinkClosedError("closed: 1001"), "1001")]
)
def test_a_bridge_that_does_not_tell_is_a_warning(error: Exception, says: str) -> None:
    found = asked(error)
    assert found.status is Status.WARNING
    assert says in found.fact


def test_a_bridge_of_an_older_release_is_let_be() -> None:
    assert asked(RemoteProtocolError("knows no such question")).status is Status.SKIPPED
