"""One side of a tunnel: what it sends for what happens (docs/protocol.md sections 2 to 4).

Symmetric rules are tested as client and as relay; how sessions end is in test_session_ends.py.
"""

from __future__ import annotations

import base64
import struct

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import DEFAULT_CAPACITY, INITIAL_WINDOW, MAX_PAYLOAD
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import GoingAway, RelayOpened
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode
from emissary_lib.protocol.wire.payloads import GoAway, Opened
from tests.helpers.pair import (
    LIFE,
    PARAMETERS,
    SessionPair,
    client_session,
    events,
    frames,
    give,
    read_all,
    relay_session,
    session_of,
)

NOW = 1000.0
BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])


def data(offset: int, payload: bytes, *, flags: int = 0, ack: int = 0, generation: int = 2) -> Frame:
    return Frame(FrameType.DATA, flags, generation, 0, offset, ack, payload)


def types(session: Session, now: float = NOW) -> list[FrameType]:
    return [FrameType(frame.type) for frame in frames(session, now)]


def test_the_dialers_first_message_is_this_text() -> None:
    session = client_session(NOW)
    session.send_data(b"\x05\x01\x02")
    (message,) = session.messages_to_send(NOW)
    header = bytes.fromhex("48 00 0001 00200000 0000000000000000 0000000000000000")
    assert message.data == base64.b64encode(header + b"\x05\x01\x02")
    assert message.to_bridge


def test_the_relays_first_message_is_this_text() -> None:
    session = relay_session(NOW)
    session.send_data(b"banner")
    (message,) = session.messages_to_send(NOW + 1.5)
    header = bytes.fromhex("58 00 0002 00200000 0000000000000000 0000000000000000")
    parameters = struct.pack(">HHII", 42, 0, 898_500, 30_000) + bytes(range(32))
    assert message.data == base64.b64encode(header + parameters + b"banner")
    assert not message.to_bridge


def test_the_byte_at_offset_0_travels_as_opened_until_it_is_acknowledged() -> None:
    session = relay_session(NOW)
    session.send_data(bytes(100))
    assert types(session) == [FrameType.OPENED]
    session.send_data(bytes(100))
    assert types(session) == [FrameType.DATA]
    session.handle_timeout(NOW + 3)
    again, later = frames(session, NOW + 3)
    assert (again.type, again.offset, later.type, later.offset) == (FrameType.OPENED, 0, FrameType.DATA, 100)
    parameters, rest = Opened.decode(again.payload)
    assert (parameters.remaining, rest) == ((LIFE - 3) * 1000, bytes(100))


def test_the_largest_opened_fits_a_message() -> None:
    session = Session(
        Role.RELAY,
        SessionConfig(
            streams=StreamConfig(peer_window=DEFAULT_CAPACITY), opened=replace(PARAMETERS, capabilities=1)
        ),
        now=NOW,
    )
    session.send_data(bytes(MAX_PAYLOAD))
    texts = [message.data for message in session.messages_to_send(NOW)]
    assert len(texts[0]) == 126_000
    assert [len(decode(text).payload) for text in texts] == [MAX_PAYLOAD, 48]


def test_the_dialers_bytes_travel_as_opening_until_it_is_established() -> None:
    session = client_session(NOW)
    session.send_data(b"socks")
    assert [message.to_bridge for message in session.messages_to_send(NOW)] == [True]
    session.finish_opening()
    session.finish_opening()
    assert session.state is State.OPEN
    session.send_data(b"query")
    (message,) = session.messages_to_send(NOW)
    assert (decode(message.data).type, message.to_bridge) == (FrameType.DATA, False)
    session.handle_timeout(NOW + 3)
    assert types(session, NOW + 3) == [FrameType.DATA, FrameType.DATA]


@pytest.mark.parametrize("shown", [True, False])
def test_only_an_opening_that_was_shown_may_be_acknowledged_before_it_is_sent(shown: bool) -> None:
    session = client_session(NOW)
    session.send_data(b"socks")
    if shown:
        session.show()
    give(session, data(0, b"banner", ack=5, generation=1), NOW)
    assert session.alive == shown
    assert (session.acked, session.undelivered) == ((5, 0) if shown else (0, 5))


def test_a_relay_reads_opening_as_data() -> None:
    session = relay_session(NOW)
    give(session, Frame(FrameType.OPENING, payload=b"early"), NOW)
    assert read_all(session, NOW) == b"early"


def test_early_bytes_are_there_from_the_start_and_are_acknowledged() -> None:
    config = SessionConfig(streams=StreamConfig(receive_start=70), early=b"hello")
    session = Session(Role.RELAY, config, now=NOW)
    assert read_all(session, NOW) == b"hello"
    session.handle_timeout(NOW + 0.2)
    (ack,) = frames(session, NOW + 0.2)
    assert (ack.type, ack.ack, ack.window) == (FrameType.ACK, 75, DEFAULT_CAPACITY)


def test_the_relays_parameters_are_told_once() -> None:
    session = client_session(NOW)
    frame = Frame(FrameType.OPENED, 0, 2, 0, 0, 0, PARAMETERS.encode() + b"banner")
    give(session, frame, NOW)
    give(session, frame, NOW)
    assert events(session) == [RelayOpened(PARAMETERS)]
    assert read_all(session, NOW) == b"banner"


def test_goaway_is_told_in_milliseconds() -> None:
    session = session_of(Role.DIALER, NOW)
    payload = GoAway(Code.RELAY_DEADLINE, 60_000).encode()
    give(session, Frame(FrameType.GOAWAY, payload=payload), NOW)
    assert events(session) == [GoingAway(Code.RELAY_DEADLINE, 60_000)]
    assert session.alive


@BOTH
def test_a_query_and_its_answer_are_one_message_each_way(role: Role) -> None:
    pair = SessionPair()
    pair.relay.send_data(b"banner")
    pair.settle()
    read_all(pair.client, pair.clock.now)
    asker, answerer = pair.of(role), pair.peer(role)
    for round_ in range(5):
        asker.send_data(b"query %d" % round_)
        crossed = pair.exchange()
        answerer.send_data(read_all(answerer, pair.clock.now))
        crossed += pair.exchange()
        assert crossed == [(role, FrameType.DATA), (answerer.role, FrameType.DATA)]
        assert read_all(asker, pair.clock.now) == b"query %d" % round_
        pair.clock.advance(0.05)


@BOTH
def test_an_acknowledgement_waits_a_fifth_of_a_second_and_carries_position(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(0, b"abc"), NOW)
    assert frames(session, NOW) == []
    assert session.next_timeout() == NOW + 0.2
    session.handle_timeout(NOW + 0.2)
    (ack,) = frames(session, NOW + 0.2)
    assert ack == Frame(FrameType.ACK, 0, 2, DEFAULT_CAPACITY - 3, 0, 3, b"")
    assert frames(session, NOW + 1) == []
    goaway = NOW + LIFE - 30 if role is Role.RELAY else None
    assert session.next_timeout() == goaway


@BOTH
def test_a_data_frame_takes_the_acknowledgement_along(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(0, b"abc"), NOW)
    session.send_data(b"x")
    (frame,) = frames(session, NOW + 0.1)
    assert (frame.ack, frame.window) == (3, DEFAULT_CAPACITY - 3)
    session.handle_timeout(NOW + 0.2)
    assert frames(session, NOW + 0.2) == []


@BOTH
def test_over_a_gap_data_does_not_stand_for_the_acknowledgement(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(3, b"def"), NOW)
    session.send_data(b"x")
    assert types(session, NOW)[-1] in (FrameType.DATA, FrameType.OPENED)
    session.handle_timeout(NOW + 0.2)
    (ack,) = frames(session, NOW + 0.2)
    assert (ack.ack, ack.payload) == (0, struct.pack(">QQ", 3, 6))


@BOTH
def test_ack_now_is_answered_at_once_and_again_when_the_gap_is_filled(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(3, b"def", flags=Flag.ACK_NOW), NOW)
    (ack,) = frames(session, NOW)
    assert (ack.type, ack.ack) == (FrameType.ACK, 0)
    give(session, data(0, b"abc"), NOW)
    (ack,) = frames(session, NOW)
    assert (ack.type, ack.ack, ack.payload) == (FrameType.ACK, 6, b"")


@BOTH
def test_a_repeated_frame_is_acknowledged_again_at_once(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(0, b"abc", flags=Flag.ACK_NOW), NOW)
    assert types(session) == [FrameType.ACK]
    give(session, data(0, b"abc"), NOW + 0.05)
    assert [frame.type for frame in frames(session, NOW + 0.05)] == [FrameType.ACK]
    assert (session.counters.duplicates, session.counters.bare_acks) == (1, 2)


@BOTH
def test_a_volley_that_is_sent_again_draws_an_acknowledgement_for_each_50_ms(role: Role) -> None:
    """Symptom: 18 frames sent again after RESUMED drew 18 bare ACKs within 30 ms."""
    session = session_of(role, NOW)
    for offset in range(18):
        give(session, data(offset, b"x"), NOW)
    frames(session, NOW + 0.2)
    before = session.counters.bare_acks
    sent: list[tuple[float, int]] = []
    at = NOW + 1
    for offset in range(18):
        give(session, data(offset, b"x"), at)
        sent += [(at, frame.ack) for frame in frames(session, at)]
        at += 1 / 512
    due = session.next_timeout()
    assert due is not None
    session.handle_timeout(due)
    sent += [(due, frame.ack) for frame in frames(session, due)]
    assert sent == [(NOW + 1, 18), (NOW + 1.05, 18)]
    assert session.counters.bare_acks - before == 2


@BOTH
def test_a_ping_is_answered_with_its_own_bytes(role: Role) -> None:
    session = session_of(role, NOW)
    for index in range(6):
        give(session, Frame(FrameType.PING, payload=b"%08d and what a later version adds" % index), NOW)
    answers = frames(session, NOW)
    assert [answer.type for answer in answers] == [FrameType.PONG] * 4
    assert [answer.payload for answer in answers] == [b"%08d" % index for index in (2, 3, 4, 5)]


def test_only_an_open_session_with_a_watch_pings() -> None:
    session = client_session(NOW, keepalive=KeepaliveTimes())
    assert session.next_timeout() is None
    session.finish_opening()
    assert session.next_timeout() == NOW + 240
    session.handle_timeout(NOW + 240)
    (ping,) = frames(session, NOW + 240)
    assert (ping.type, len(ping.payload), ping.window) == (FrameType.PING, 8, DEFAULT_CAPACITY)
    give(session, Frame(FrameType.PONG, payload=ping.payload), NOW + 241)
    assert session.next_timeout() == NOW + 480


def test_a_query_after_a_long_rest_costs_no_ping() -> None:
    session = client_session(NOW, keepalive=KeepaliveTimes())
    session.finish_opening()
    session.send_data(b"query")
    assert types(session, NOW + 200) == [FrameType.DATA]
    session.handle_timeout(NOW + 200)
    assert types(session, NOW + 200) == []


@BOTH
def test_the_newest_generation_is_adopted_and_told(role: Role) -> None:
    session = session_of(role, NOW)
    for generation, adopted in ((7, 7), (5, 7), (40_000, 7), (32_000, 32_000), (60_000, 60_000), (3, 3)):
        give(session, Frame(FrameType.ACK, generation=generation), NOW)
        assert session.generation == adopted
    session.send_data(b"x")
    # A relay asks first where the dialer is: that one has a new connection.
    (frame, *_rest) = frames(session, NOW)
    assert (frame.type == FrameType.RESUME) is (role is Role.RELAY)
    assert frame.generation == 3


@BOTH
def test_unknown_types_are_skipped_if_they_say_so(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, Frame(30, Flag.IGNORABLE), NOW)
    give(session, Frame(FrameType.HEALTHY, Flag.IGNORABLE), NOW)
    assert session.alive


@BOTH
def test_flags_of_a_later_version_are_ignored(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(0, b"x", flags=0xF8), NOW)
    assert read_all(session, NOW) == b"x"


@BOTH
def test_what_the_send_buffer_does_not_take_is_left_to_the_caller(role: Role) -> None:
    session = session_of(role, NOW, streams=StreamConfig(capacity=INITIAL_WINDOW))
    assert session.send_room == 65_536
    assert session.send_data(bytes(65_000)) == 65_000
    assert session.send_data(bytes(1_000)) == 536
    assert (session.send_room, session.send_data(b"x"), session.buffered) == (0, 0, (65_536, 0))
    assert session.waits_to_send


@BOTH
def test_the_window_is_told_again_when_a_quarter_was_read(role: Role) -> None:
    session = session_of(role, NOW, streams=StreamConfig(capacity=INITIAL_WINDOW))
    give(session, data(0, bytes(65_536), flags=Flag.ACK_NOW), NOW)
    (ack,) = frames(session, NOW)
    assert (ack.ack, ack.window) == (65_536, 0)
    session.consume(16_383, NOW)
    assert frames(session, NOW) == []
    session.consume(1, NOW)
    (ack,) = frames(session, NOW)
    assert (ack.ack, ack.window) == (65_536, 16_384)


@BOTH
def test_a_gateway_error_resends_the_oldest_frame_after_a_pause(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"a")
    first = frames(session, NOW)
    session.send_data(b"b")
    frames(session, NOW)
    session.receive_message(b'{"message": "Internal server error", "connectionId":"x"}', NOW + 0.5)
    assert frames(session, NOW + 0.5) == []
    assert session.next_timeout() == NOW + 0.6
    session.handle_timeout(NOW + 0.6)
    (again,) = frames(session, NOW + 0.6)
    assert (again.type, again.offset) == (first[0].type, 0)
    counters = session.counters
    assert (counters.gateway_errors, counters.losses, counters.retransmits) == (1, 1, 1)


@BOTH
def test_counters_count(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(bytes(10))
    frames(session, NOW)
    give(session, data(5, b"fgh", ack=10), NOW + 0.25)
    give(session, data(0, b"abcdef"), NOW + 0.25)
    counters = session.counters
    assert (counters.bytes_sent, counters.bytes_received) == (10, 8)
    assert (counters.messages_sent, counters.messages_received) == (1, 2)
    assert session.rtt == 0.25
    assert not session.receive_ended


@BOTH
def test_each_pong_is_counted_and_nothing_else_is(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, data(0, b"abc"), NOW)
    for kind in (FrameType.ACK, FrameType.PING, FrameType.PONG, FrameType.PONG):
        give(session, Frame(kind, payload=bytes(8)), NOW)
    assert session.counters.pongs == 2


def test_a_hundred_small_requests_cost_two_messages_each() -> None:
    pair = SessionPair()
    pair.relay.send_data(b"banner")
    pair.settle()
    read_all(pair.client, pair.clock.now)
    before = len(pair.sent)
    for _ in range(100):
        pair.client.send_data(b"SELECT 1")
        pair.exchange()
        pair.relay.send_data(read_all(pair.relay, pair.clock.now))
        pair.exchange()
        assert read_all(pair.client, pair.clock.now) == b"SELECT 1"
        pair.clock.advance(0.02)
    pair.settle()
    assert len(pair.sent) - before <= 202


@BOTH
def test_bulk_needs_few_bare_acknowledgements(role: Role) -> None:
    pair = SessionPair()
    sender, receiver = pair.of(role), pair.peer(role)
    total, sent, received = 10_000_000, 0, 0
    while received < total:
        sent += sender.send_data(bytes(min(64_000, total - sent)))
        if not sender.send_room or sent == total:
            pair.exchange()
            pair.clock.advance(0.01)
            received += len(read_all(receiver, pair.clock.now))
            if sent == total:
                pair.settle()
    messages = sender.counters.messages_sent
    assert messages <= total / MAX_PAYLOAD * 1.1 + 10
    assert receiver.counters.bare_acks <= messages / 3
    assert (sender.counters.retransmits, receiver.counters.duplicates) == (0, 0)


def test_the_dialer_waits_as_long_as_the_relay_says_it_does() -> None:
    session = client_session(NOW)
    parameters = replace(PARAMETERS, grace=5_000)
    give(session, Frame(FrameType.OPENED, payload=parameters.encode()), NOW)
    session.finish_opening()
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    assert session.link_deadline == NOW + 5


@BOTH
def test_a_sign_of_life_is_asked_for_once_and_counted(role: Role) -> None:
    session = session_of(role, NOW)
    session.ping()
    (ping,) = [frame for frame in frames(session, NOW) if frame.type == FrameType.PING]
    assert FrameType.PING not in types(session)
    give(session, Frame(FrameType.PONG, payload=ping.payload), NOW)
    assert session.counters.pongs == 1
    session.abort(Code.KILLED, "an operator", NOW)
    session.ping()
    assert FrameType.PING not in types(session)


@BOTH
def test_a_message_the_carrier_did_not_take_is_sent_again(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"rows")
    (first,) = frames(session, NOW)
    session.message_refused(NOW)
    due = session.next_timeout()
    assert due is not None
    session.handle_timeout(due)
    (again,) = frames(session, due)
    assert (first.payload[-4:], again.payload[-4:]) == (b"rows", b"rows")


@BOTH
def test_a_link_that_is_lost_already_cannot_be_lost_again(role: Role) -> None:
    session = session_of(role, NOW)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    deadline = session.link_deadline
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW + 5)
    assert (session.link_deadline, session.counters.link_losses) == (deadline, 1)


def test_a_dialer_that_slept_asks_at_once_and_one_without_keepalive_does_not() -> None:
    watching = client_session(NOW, keepalive=KeepaliveTimes())
    watching.finish_opening()
    watching.on_suspend()
    watching.handle_timeout(NOW)
    assert FrameType.PING in types(watching)
    plain = session_of(Role.DIALER, NOW)
    plain.on_suspend()
    assert (types(plain), plain.next_timeout()) == ([], None)


@BOTH
def test_an_answer_to_nobody_s_question_changes_nothing(role: Role) -> None:
    session = session_of(role, NOW)
    before = session.next_timeout()
    give(session, Frame(FrameType.PROBED, generation=session.generation), NOW)
    assert (events(session), types(session), session.next_timeout()) == ([], [], before)


def test_the_start_of_a_relay_is_no_round_trip() -> None:
    """Symptom: behind a dial of three seconds, the first message that was lost was sent again after seven."""
    session = client_session(NOW)
    session.send_data(b"socks")
    frames(session, NOW)
    give(session, data(0, b"reply", ack=5), NOW + 3)
    assert (session.rtt, session.loss_noticed_after) == (None, 3.0)
    session.finish_opening()
    session.send_data(b"query")
    frames(session, NOW + 3)
    give(session, data(5, b"answer", ack=10), NOW + 3.25)
    assert session.rtt == 0.25
