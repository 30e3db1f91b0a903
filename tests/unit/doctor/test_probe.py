"""A session walked step by step, against a bridge that runs the real core."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.doctor.probe import SessionProbe
from emissary_lib.exceptions import (
    ClosedError,
    GatewayRefusedError,
    LinkClosedError,
    NameNotFoundError,
    ServerProofError,
    TargetNotAllowedError,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import End
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.patience import HANG


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour(script=echo)


@pytest.fixture
def bridge(behaviour: Behaviour) -> Iterator[Bridge]:
    with Bridge(behaviour) as running:
        yield running


@pytest.fixture
def probe(bridge: Bridge) -> Iterator[SessionProbe]:
    walked = SessionProbe(Endpoint(bridge.url), KEY, time.monotonic)
    yield walked
    walked.close()


def dialled(probe: SessionProbe) -> SessionProbe:
    probe.connect_once(HANG)
    probe.prove(HANG)
    probe.dial(Target.parse(TARGET), HANG)
    return probe


def sent(bridge: Bridge, kind: FrameType) -> list[bytes]:
    return [frame.payload for frame in map(decode, bridge.messages) if frame.type is kind]


def test_the_server_proves_itself_before_a_target_is_named(bridge: Bridge, probe: SessionProbe) -> None:
    probe.connect_once(HANG)
    banner = probe.prove(HANG)
    assert (banner.server_software, banner.protocol_version) == ("emissary-lambda", 2)
    assert sent(bridge, FrameType.OPENING) == [b"\x05\x01\x02"]
    assert not probe.relay_spoke


def test_the_same_session_goes_on_to_the_target(bridge: Bridge, probe: SessionProbe) -> None:
    dialled(probe)
    assert probe.relay_spoke
    assert bridge.relay().target == Target.parse(TARGET)
    assert len(bridge.server.requests) == 1


def test_a_dial_at_once_is_one_message_as_every_dial_s(
    bridge: Bridge, behaviour: Behaviour, probe: SessionProbe
) -> None:
    behaviour.upgrade_statuses = (429, 502)  # which a dial does not mind
    probe.connect_with_retry(HANG)
    probe.dial(Target.parse(TARGET), HANG)
    assert probe.relay_spoke
    (opening,) = sent(bridge, FrameType.OPENING)
    assert opening.startswith(b"\x05\x01\x02")
    assert b"db.internal" in opening


def test_bytes_go_there_and_come_back_in_pieces(probe: SessionProbe) -> None:
    dialled(probe)
    assert probe.request(b"hello", lambda data, ended: data if len(data) == 5 else None, HANG) == b"hello"


def test_the_end_of_the_target_s_stream_is_told(
    bridge: Bridge, behaviour: Behaviour, probe: SessionProbe
) -> None:
    behaviour.script = lambda relay: None
    dialled(probe)
    bridge.relay().write(b"bye")
    bridge.relay().write_eof()
    assert probe.request(b"", lambda data, ended: data if ended else None, HANG) == b"bye"


def test_a_target_that_says_nothing_runs_into_the_timeout(behaviour: Behaviour, probe: SessionProbe) -> None:
    behaviour.script = lambda relay: None
    dialled(probe)
    with pytest.raises(TimeoutError):
        probe.request(b"", lambda data, ended: None, 0.05)


def test_the_relay_answers_pings(bridge: Bridge, probe: SessionProbe) -> None:
    dialled(probe)
    probe.ping(HANG)
    probe.ping(HANG)
    assert len(sent(bridge, FrameType.PING)) == 2


def test_a_target_that_holds_its_side_open_ends_in_a_report_to_the_bridge(
    bridge: Bridge, behaviour: Behaviour, probe: SessionProbe
) -> None:
    behaviour.script = lambda relay: None
    dialled(probe).close()
    assert [End.decode(payload).code for payload in sent(bridge, FrameType.END)] == [Code.DIALER_RESET]


def test_a_target_that_ends_its_side_too_ends_clean(bridge: Bridge, probe: SessionProbe) -> None:
    dialled(probe).close()
    assert {End.decode(payload).code for payload in sent(bridge, FrameType.END)} == {Code.OK}
    assert bridge.relay().aborted is None


def test_closing_is_harmless_at_every_step(bridge: Bridge) -> None:
    probe = SessionProbe(Endpoint(bridge.url), KEY, time.monotonic)
    probe.close()
    probe.connect_once(HANG)
    probe.close()
    probe.close()
    with pytest.raises(ClosedError):
        probe.prove(HANG)


def test_a_refusal_is_raised_as_the_gateway_said_it(behaviour: Behaviour, probe: SessionProbe) -> None:
    behaviour.upgrade_statuses = (429,)
    with pytest.raises(GatewayRefusedError) as caught:
        probe.connect_once(HANG)
    assert caught.value.http_status == 429


def test_a_false_proof_is_found_out_before_anything_else_is_sent(
    bridge: Bridge, behaviour: Behaviour, probe: SessionProbe
) -> None:
    behaviour.false_proof = True
    probe.connect_once(HANG)
    with pytest.raises(ServerProofError):
        probe.prove(HANG)
    assert sent(bridge, FrameType.OPENING) == [b"\x05\x01\x02"]


def test_a_bridge_that_says_nothing_runs_into_the_timeout(behaviour: Behaviour, probe: SessionProbe) -> None:
    behaviour.silent = True
    probe.connect_once(HANG)
    with pytest.raises(TimeoutError):
        probe.prove(0.05)


def test_errors_of_the_gateway_are_counted(behaviour: Behaviour, probe: SessionProbe) -> None:
    behaviour.stumbles = [b'{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}']
    assert probe.gateway_errors == 0
    probe.connect_once(HANG)
    with pytest.raises(LinkClosedError):
        probe.prove(HANG)
    assert probe.gateway_errors == 1


def test_a_hang_up_is_a_closed_link(behaviour: Behaviour, probe: SessionProbe) -> None:
    behaviour.stumbles = [None]
    probe.connect_once(HANG)
    with pytest.raises(LinkClosedError):
        probe.prove(HANG)


def test_a_target_that_is_not_allowed_is_refused_by_the_bridge_alone(probe: SessionProbe) -> None:
    probe.connect_once(HANG)
    probe.prove(HANG)
    with pytest.raises(TargetNotAllowedError, match=r"other\.internal"):
        probe.dial(Target("other.internal", 5432), HANG)
    assert not probe.relay_spoke


def test_a_relay_that_does_not_find_the_target_has_spoken(behaviour: Behaviour, probe: SessionProbe) -> None:
    behaviour.dial_code = Code.NAME_NOT_FOUND
    probe.connect_once(HANG)
    probe.prove(HANG)
    with pytest.raises(NameNotFoundError):
        probe.dial(Target.parse(TARGET), HANG)
    assert probe.relay_spoke
