"""``$default`` beside copying: what breaks the protocol, PROBE, and END."""

from __future__ import annotations

import base64
import logging

import pytest

from emissary_lib.bridge.session import RecordState
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Reset
from functions.common.responses import MessageNotHandledError
from tests.helpers.events import DIALER, NOW, RELAY, load_event
from tests.unit.functions.bridge import Bridge

FORGED = sorted(t for t in FrameType if t >= 16)


@pytest.mark.parametrize("sender", [DIALER, RELAY])
@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("flags", [0, Flag.IGNORABLE])
def test_no_client_can_forge_the_bridges_voice(kind: FrameType, sender: str, flags: int) -> None:
    bridge = Bridge()
    bridge.open()
    assert bridge.send(sender, Frame(kind, flags, 2, payload=bytes(40))) == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type, frame.generation) == (sender, FrameType.RESET, 2)
    assert Reset.decode(frame.payload).code is Code.PROTOCOL_ERROR


def test_what_only_the_dialer_may_ask_is_refused_to_the_relay() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.send(RELAY, Frame(FrameType.HEALTH, generation=2, payload=bytes(8)))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (RELAY, FrameType.RESET)
    assert Reset.decode(frame.payload) == Reset(Code.PROTOCOL_ERROR, "HEALTH is not for the relay to send")


GARBAGE = [
    "",
    "hello",
    "AAAA",
    '{"action": "hello"}',
    "é" * 40,
    "\ud800" * 40,
    "=" * 40,
    encode(Frame(FrameType.END, payload=b"short")).decode(),
    encode(Frame(FrameType.END, payload=bytes(18))).decode()[:-4] + "....",
    base64.b64encode(bytes([2 << 5 | 7, 0, 0, 2]) + bytes(20)).decode(),
]


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_reset_and_copied_to_nobody(body: str) -> None:
    bridge = Bridge()
    bridge.open()
    event = load_event("default_garbage") | {"body": body}
    assert bridge.message(event) == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.RESET)
    assert Reset.decode(frame.payload).code is Code.PROTOCOL_ERROR


def test_the_garbage_event_is_reset() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.message(load_event("default_garbage"))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.RESET)


def test_garbage_of_an_unknown_connection_is_answered_unknown() -> None:
    bridge = Bridge()
    bridge.message(load_event("default_garbage"))
    ((_, frame),) = bridge.link.take()
    assert Ended.decode(frame.payload).code is Code.UNKNOWN_SESSION


def test_another_version_is_named() -> None:
    bridge = Bridge()
    bridge.open()
    body = base64.b64encode(bytes([3 << 5 | 1]) + bytes(23)).decode()
    bridge.message(load_event("default_data", body=body))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.RESET)
    assert Reset.decode(frame.payload).code is Code.UNSUPPORTED_VERSION


def test_an_unknown_type_marked_ignorable_is_skipped() -> None:
    bridge = Bridge()
    bridge.open()
    assert bridge.send(DIALER, Frame(7, Flag.IGNORABLE, 2)) == {"statusCode": 200}
    assert bridge.link.take() == []


def test_a_probe_is_answered_to_its_sender_with_its_own_bytes_though_the_table_is_down() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.store.down = True
    bridge.send(RELAY, Frame(FrameType.PROBE, generation=2, payload=b"12345678later"))
    assert bridge.link.take() == [(RELAY, Frame(FrameType.PROBED, generation=2, payload=b"12345678"))]


def test_a_probe_that_cannot_be_answered_fails_the_invocation() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.link.busy.add(RELAY)
    with pytest.raises(MessageNotHandledError, match="PeerBusyError"):
        bridge.send(RELAY, Frame(FrameType.PROBE, generation=2, payload=b"12345678"))


@pytest.mark.parametrize(
    ("sender", "expected"),
    [(DIALER, Ended(Code.OK, 10, 20, "clean")), (RELAY, Ended(Code.OK, 20, 10, "clean"))],
)
def test_end_is_answered_to_both_with_each_streams_own_offset(sender: str, expected: Ended) -> None:
    bridge = Bridge()
    bridge.open()
    end = Frame(FrameType.END, generation=2, payload=End(Code.OK, sent=10, received=20).encode())
    assert bridge.send(sender, end) == {"statusCode": 200}
    posts = bridge.link.take()
    assert {to for to, _ in posts} == {DIALER, RELAY}
    for _, frame in posts:
        assert (frame.type, frame.generation) == (FrameType.ENDED, 2)
        assert Ended.decode(frame.payload) == expected
    assert bridge.session.state is RecordState.ENDED


@pytest.mark.parametrize(("sender", "counted"), [(DIALER, (3, 4)), (RELAY, (4, 3))])
def test_end_puts_the_messages_each_way_on_record(sender: str, counted: tuple[int, int]) -> None:
    bridge = Bridge()
    bridge.open()
    end = End(Code.OK, sent=10, received=20, messages_sent=3, messages_received=4)
    bridge.send(sender, Frame(FrameType.END, generation=2, payload=end.encode()))
    ending = bridge.session.ending
    assert ending is not None
    assert (ending.dialer_messages, ending.relay_messages) == counted


def test_the_first_end_counts_and_later_ones_are_answered_with_it() -> None:
    bridge = Bridge()
    bridge.open()
    for sender, code in ((DIALER, Code.DIALER_RESET), (RELAY, Code.TARGET_RESET), (RELAY, Code.OK)):
        payload = End(code, sent=1, received=2).encode()
        bridge.send(sender, Frame(FrameType.END, generation=2, payload=payload), request_id=code.name)
        posts = bridge.link.take()
        assert {to for to, _ in posts} == {DIALER, RELAY}
        assert {Ended.decode(frame.payload).code for _, frame in posts} == {Code.DIALER_RESET}


def test_an_end_reaches_the_one_side_though_the_other_is_gone_or_busy() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.link.gone.add(RELAY)
    assert bridge.message(load_event("default_end")) == {"statusCode": 200}
    assert [to for to, _ in bridge.link.take()] == [DIALER]
    bridge.link.gone.clear()
    bridge.link.busy.add(DIALER)
    assert bridge.message(load_event("default_end")) == {"statusCode": 200}
    assert [to for to, _ in bridge.link.take()] == [RELAY]


@pytest.mark.parametrize(
    ("role", "sender", "peer"), [(Role.DIALER, DIALER, RELAY), (Role.RELAY, RELAY, DIALER)]
)
def test_an_end_from_a_connection_that_was_forgotten_is_answered_to_it_as_well(
    role: Role, sender: str, peer: str
) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.store.clear(bridge.session.id, role, sender, 1, NOW)
    end = Frame(FrameType.END, generation=2, payload=End(Code.OK, sent=10, received=20).encode())
    bridge.send(sender, end)
    posts = bridge.link.take()
    assert [to for to, _ in posts] == [peer, sender]
    assert {frame.type for _, frame in posts} == {FrameType.ENDED}


def test_an_end_of_an_unknown_session_is_answered_unknown() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.store.sessions.clear()
    bridge.message(load_event("default_end"))
    ((to, frame),) = bridge.link.take()
    assert (to, Ended.decode(frame.payload).code) == (DIALER, Code.UNKNOWN_SESSION)


def audits(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == "session ended"]


def test_one_audit_record_is_written_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.clock.now = NOW + 90
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.message(load_event("default_end"))
        bridge.message(load_event("default_end", request_id="another="))
        bridge.message(load_event("default_end", connection_id=RELAY, request_id="third="))
    (record,) = audits(caplog)
    fields = vars(record)
    assert fields["session"] == bridge.session.id
    assert (fields["key_id"], fields["target"]) == (1, "db.internal:5432")
    assert (fields["started"], fields["ended"], fields["duration_s"]) == (NOW, NOW + 90, 90)
    assert (fields["dialer_bytes"], fields["relay_bytes"]) == (111, 400)
    assert (fields["code"], fields["reason"]) == ("OK", "clean")
    assert fields["estimated_cost_usd"] > 0
