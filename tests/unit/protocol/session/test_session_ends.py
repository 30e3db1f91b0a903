"""How a session ends: clean, cut off, told, or given up on (docs/protocol.md sections 4.7 and 6)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished, LinkDead
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import Disconnected, End, Reset
from tests.helpers.closing_frames import ended_frame, fin_frame, reset_frame, words
from tests.helpers.pair import (
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


def test_end_counts_the_messages_each_way() -> None:
    pair = SessionPair()
    pair.client.send_data(b"ping")
    pair.settle()
    pair.client.abort(Code.DIALER_RESET, "", pair.clock.now)
    sent, received = pair.client.counters.messages_sent, pair.client.counters.messages_received
    (end,) = [frame for frame in frames(pair.client, pair.clock.now) if frame.type is FrameType.END]
    told = End.decode(end.payload)
    assert (told.messages_sent, told.messages_received) == (sent, received)
    assert min(sent, received) > 0


@BOTH
def test_each_side_tells_how_much_was_sent_and_received_the_fin_included(role: Role) -> None:
    pair = SessionPair()
    one, peer = pair.of(role), pair.peer(role)
    before = one.sent
    one.send_data(b"last words")
    one.send_eof()
    assert one.sent == before
    pair.settle()
    assert one.sent == peer.received == before + len(b"last words") + 1


@BOTH
def test_half_close_ends_one_direction_only(role: Role) -> None:
    pair = SessionPair()
    one, peer = pair.of(role), pair.peer(role)
    one.send_data(b"last words")
    one.send_eof()
    one.send_eof()
    assert (one.send_ended, one.send_room) == (True, 0)
    pair.settle()
    ended_before = peer.receive_ended
    assert read_all(peer, pair.clock.now) == b"last words"
    assert (ended_before, peer.receive_ended) == (False, True)
    peer.send_data(b"answer")
    pair.settle()
    assert read_all(one, pair.clock.now) == b"answer"
    assert (one.state, peer.state) == (State.OPEN, State.OPEN)


@BOTH
def test_when_both_streams_are_complete_the_bridge_is_told_every_second(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abc")
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, b"defg", ack=4), NOW)
    assert session.state is State.ENDING
    end = (FrameType.END, End(Code.OK, 4, 5).encode())
    (message,) = session.messages_to_send(NOW)
    assert message.to_bridge
    assert session.next_timeout() == NOW + 1
    for second in (1, 2, 3, 4):
        session.handle_timeout(NOW + second)
        assert words(session, NOW + second) == [end]
    assert events(session) == []
    session.handle_timeout(NOW + 5)
    assert events(session) == [Finished(Code.OK)]
    assert (words(session, NOW + 5), session.next_timeout()) == ([], None)
    assert read_all(session, NOW + 5) == b"defg"


@BOTH
def test_a_websocket_lost_while_ending_well_is_not_replaced(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, ack=1), NOW)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    assert events(session) == [Finished(Code.OK)]
    assert session.link_deadline is None


def reset_after(pair: SessionPair, *, unread: int = 0) -> bool:
    """The target resets its connection; whether the dialer takes the session for whole."""
    now = pair.clock.now
    pair.relay.abort(Code.TARGET_RESET, "reset", now, unread=unread)
    (reset,) = [frame for frame in frames(pair.relay, now) if frame.type is FrameType.RESET]
    give(pair.client, reset, now)
    (aborted,) = [event for event in events(pair.client) if isinstance(event, Aborted)]
    return aborted.whole


def test_a_reset_tells_whether_anything_is_missing() -> None:
    def pair(*, ended: bool = True, taken: bool = True, sent: bool = True) -> SessionPair:
        made = SessionPair()
        made.client.send_data(b"opening")
        made.settle()
        read_all(made.relay, made.clock.now)
        made.client.send_data(b"question")
        made.relay.send_data(b"answer")
        if ended:
            made.client.send_eof()
        made.settle()
        events(made.client)
        if taken:
            read_all(made.relay, made.clock.now)
        if not sent:
            made.relay.send_data(b"more")
        return made

    whole = pair()
    assert reset_after(whole)
    assert whole.client.undelivered == 0
    assert not reset_after(pair(ended=False))
    untaken = pair(taken=False)
    assert not reset_after(untaken)
    assert untaken.client.undelivered == len(b"question")  # though the relay had acknowledged it
    assert not reset_after(pair(sent=False))
    assert not reset_after(pair(), unread=1)


def test_a_reset_that_overtook_our_fin_is_whole_if_all_bytes_were_taken() -> None:
    """Symptom: psql over TLS alarmed where the server was gone before the relay heard that psql had ended."""
    pair = SessionPair()
    pair.client.send_data(b"opening")
    pair.settle()
    events(pair.client)
    assert read_all(pair.relay, pair.clock.now) == b"opening"
    pair.client.send_eof()
    assert reset_after(pair)
    assert pair.client.undelivered == 0


def overtaken_by_ended(pair: SessionPair, *, unread: int = 0) -> Frame:
    """The target resets its connection, and the bridge's word of it is the first; gives the relay's RESET."""
    now = pair.clock.now
    pair.relay.abort(Code.TARGET_RESET, "reset", now, unread=unread)
    told = frames(pair.relay, now)
    (end,) = [End.decode(frame.payload) for frame in told if frame.type is FrameType.END]
    give(pair.client, ended_frame(Code.TARGET_RESET, end.received, end.sent, "reset"), now)
    (reset,) = [frame for frame in told if frame.type is FrameType.RESET]
    return reset


def over(pair: SessionPair) -> SessionPair:
    """The program has ended its stream, and each has what the other wrote."""
    pair.client.send_data(b"question")
    pair.client.send_eof()
    pair.relay.send_data(b"answer")
    pair.settle()
    read_all(pair.relay, pair.clock.now)
    events(pair.client)
    return pair


@pytest.mark.parametrize(("unread", "whole"), [(0, True), (1, False)])
def test_a_reset_that_was_overtaken_by_the_bridges_word_still_tells_whether_anything_is_missing(
    unread: int, whole: bool
) -> None:
    """Symptom: psql over TLS that ended well raised an alarm when ENDED was faster than RESET."""
    pair = over(SessionPair())
    reset = overtaken_by_ended(pair, unread=unread)
    assert events(pair.client) == []
    give(pair.client, reset, pair.clock.now)
    assert events(pair.client) == [Aborted(Code.TARGET_RESET, "reset", whole), Finished(Code.TARGET_RESET)]
    assert pair.client.undelivered == 0
    give(pair.client, reset, pair.clock.now)
    assert events(pair.client) == []


def test_a_reset_that_never_comes_is_an_error_after_a_second() -> None:
    pair = over(SessionPair())
    overtaken_by_ended(pair)
    due = pair.clock.now + 1
    assert pair.client.next_timeout() == due
    pair.client.handle_timeout(due)
    assert [kind for kind, _payload in words(pair.client, due)] == [FrameType.END]
    assert events(pair.client) == []
    give(pair.client, ended_frame(Code.TARGET_RESET), due)
    assert events(pair.client) == [Aborted(Code.TARGET_RESET, "reset"), Finished(Code.TARGET_RESET)]


def test_a_reset_that_never_comes_is_an_error_though_the_bridge_is_silent_too() -> None:
    pair = over(SessionPair())
    overtaken_by_ended(pair)
    pair.client.link_lost(Code.DIALER_GONE, "closed with 1006", pair.clock.now)
    pair.client.handle_timeout(pair.clock.now + 5)
    assert events(pair.client) == [Aborted(Code.TARGET_RESET, "reset"), Finished(Code.TARGET_RESET)]


def test_a_program_that_is_at_work_hears_of_a_reset_by_the_bridges_word_at_once() -> None:
    pair = SessionPair()
    pair.client.send_data(b"question")
    pair.settle()
    events(pair.client)
    overtaken_by_ended(pair)
    assert events(pair.client) == [Aborted(Code.TARGET_RESET, "reset"), Finished(Code.TARGET_RESET)]


def test_the_end_of_a_stream_is_acknowledged_when_its_user_has_all() -> None:
    pair = SessionPair(relay_streams=StreamConfig(holds_end=True))
    before = pair.client.progress
    pair.client.send_data(b"question")
    pair.client.send_eof()
    pair.settle()
    assert (pair.client.undelivered, pair.client.end_acked, pair.relay.end_waits) == (0, False, True)
    assert pair.client.acked == pair.client.written == pair.relay.received == len(b"question")
    assert pair.client.progress > before
    before = pair.client.progress
    assert read_all(pair.relay, pair.clock.now) == b"question"
    pair.clock.advance(0.5)
    pair.settle()
    assert pair.client.progress > before  # the target has taken something
    assert (pair.client.end_acked, pair.relay.end_waits) == (False, True)
    pair.relay.release_end(pair.clock.now)
    pair.settle()
    assert (pair.client.end_acked, pair.relay.end_waits) == (True, False)


def test_a_session_does_not_end_well_before_the_target_has_all() -> None:
    pair = SessionPair(relay_streams=StreamConfig(holds_end=True))
    pair.client.send_data(b"question")
    pair.client.send_eof()
    pair.relay.send_eof()
    pair.settle()
    read_all(pair.relay, pair.clock.now)
    pair.settle()
    assert (pair.client.state, pair.relay.state) == (State.OPEN, State.OPEN)
    pair.relay.release_end(pair.clock.now)
    assert pair.relay.state is State.ENDING
    assert words(pair.relay, pair.clock.now) == [(FrameType.END, End(Code.OK, 1, 9).encode())]
    assert not pair.client.end_acked
    give(pair.client, ended_frame(Code.OK, 9, 1), pair.clock.now)
    assert pair.client.end_acked, "by the bridge's word, for there is no other"


def test_a_reset_that_does_not_tell_is_never_whole() -> None:
    pair = SessionPair()
    pair.client.send_data(b"question")
    pair.client.send_eof()
    pair.settle()
    events(pair.client)
    give(pair.client, reset_frame(Code.TARGET_RESET, ""), pair.clock.now)
    assert [event.whole for event in events(pair.client) if isinstance(event, Aborted)] == [False]


@BOTH
def test_an_abort_tells_bridge_and_peer_until_the_bridge_confirms(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abc")
    frames(session, NOW)
    session.send_data(bytes(1 << 20))
    give(session, Frame(FrameType.DATA, payload=b"xy"), NOW)
    session.abort(Code.TARGET_RESET, "Connection reset by peer", NOW)
    assert events(session) == [Aborted(Code.TARGET_RESET, "Connection reset by peer")]
    assert (session.buffered, session.send_data(b"x"), session.send_room) == ((0, 0), 0, 0)
    sent = [(m.to_bridge, m.data) for m in session.messages_to_send(NOW)]
    assert [to_bridge for to_bridge, _text in sent] == [True, False]
    session.handle_timeout(NOW + 1)
    end, told = words(session, NOW + 1)
    assert end == (FrameType.END, End(Code.TARGET_RESET, 3, 2).encode())
    assert told == (FrameType.RESET, Reset(Code.TARGET_RESET, "Connection reset by peer").encode())
    give(session, ended_frame(Code.TARGET_RESET), NOW + 1.1)
    assert events(session) == [Finished(Code.TARGET_RESET)]


@BOTH
def test_a_second_abort_changes_nothing(role: Role) -> None:
    session = session_of(role, NOW)
    session.abort(Code.TARGET_RESET, "first", NOW)
    session.abort(Code.DIALER_RESET, "second", NOW)
    session.send_eof()
    give(session, reset_frame(Code.KILLED), NOW)
    assert events(session) == [Aborted(Code.TARGET_RESET, "first")]


@BOTH
def test_a_reader_in_the_middle_of_a_write_survives_an_abort(role: Role) -> None:
    """Symptom: consume raised in the thread that had just written to its socket what peek had shown."""
    session = session_of(role, NOW)
    give(session, Frame(FrameType.DATA, payload=b"abc"), NOW)
    shown = session.peek()
    session.abort(Code.RELAY_DEADLINE, "over", NOW)
    session.consume(len(shown), NOW)


@BOTH
def test_a_reset_ends_both_directions_and_leaves_what_arrived(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abc")
    frames(session, NOW)
    give(session, Frame(FrameType.DATA, payload=b"before"), NOW)
    give(session, Frame(FrameType.RESET, 0, 1, 0, 0, 0, Reset(Code.TARGET_RESET, "gone").encode()), NOW)
    assert events(session) == [Aborted(Code.TARGET_RESET, "gone")]
    assert read_all(session, NOW) == b"before"
    # The peer tells the bridge itself; ours follows only if it does not answer.
    assert words(session, NOW) == []
    session.handle_timeout(NOW + 1)
    assert words(session, NOW + 1) == [(FrameType.END, End(Code.TARGET_RESET, 3, 6).encode())]


@BOTH
def test_a_reset_is_never_a_clean_end(role: Role) -> None:
    """Symptom: RESET with code 0 made Finished(OK) of a stream with bytes missing."""
    session = session_of(role, NOW)
    give(session, reset_frame(Code.OK), NOW)
    session.handle_timeout(NOW + 5)
    assert events(session) == [
        Aborted(Code.PROTOCOL_ERROR, MEANINGS[Code.PROTOCOL_ERROR]),
        Finished(Code.PROTOCOL_ERROR),
    ]


@BOTH
def test_the_peers_lost_websocket_cuts_off_and_leaves_what_arrived(role: Role) -> None:
    """Symptom: rows that had arrived were thrown away when the relay's WebSocket closed behind them."""
    session = session_of(role, NOW)
    give(session, Frame(FrameType.DATA, payload=b"rows"), NOW)
    give(session, Frame(FrameType.DISCONNECTED, payload=Disconnected(role.wire, 1).encode()), NOW)
    assert session.alive
    give(session, Frame(FrameType.DISCONNECTED, payload=Disconnected(role.other.wire, 1).encode()), NOW)
    assert (events(session), session.alive) == ([], True)  # it may come back
    assert session.next_timeout() == NOW + 60
    session.handle_timeout(NOW + 60)
    code = Code.RELAY_GONE if role is Role.DIALER else Code.DIALER_GONE
    assert events(session) == [Aborted(code, MEANINGS[code])]
    assert [kind for kind, _payload in words(session, NOW + 60)] == [FrameType.END]  # and no RESET to nobody
    assert read_all(session, NOW + 60) == b"rows"
    session.peer_unknown(NOW + 60)
    assert events(session) == []


def test_a_relay_that_holds_the_dialers_fin_ends_clean_when_the_dialer_leaves() -> None:
    session = session_of(Role.RELAY, NOW)
    session.send_data(b"answer")
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, b"query"), NOW)
    give(session, Frame(FrameType.ACK, ack=6), NOW)  # all but our FIN
    give(session, Frame(FrameType.DISCONNECTED, payload=Disconnected(1, 1).encode()), NOW)
    assert words(session, NOW) == [(FrameType.END, End(Code.OK, 7, 6).encode())]
    give(session, ended_frame(Code.OK, 6, 7), NOW)
    assert events(session) == [Finished(Code.OK)]


def test_a_relay_whose_bytes_are_not_acknowledged_waits_for_the_dialer() -> None:
    session = session_of(Role.RELAY, NOW)
    session.send_data(b"answer")
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, b"query", ack=5), NOW)
    give(session, Frame(FrameType.DISCONNECTED, payload=Disconnected(1, 1).encode()), NOW)
    assert (session.state, words(session, NOW)) == (State.OPEN, [])


@BOTH
def test_our_own_lost_websocket_ends_when_the_grace_is_over(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, Frame(FrameType.DATA, payload=b"rows"), NOW)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    assert (events(session), session.alive) == ([], True)
    assert (session.messages_to_send(NOW), session.next_timeout()) == ([], NOW + 60)
    deadline = session.link_deadline
    session.handle_timeout(NOW + 60)
    code = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
    assert events(session) == [Aborted(code, MEANINGS[code]), Finished(code)]
    assert (session.messages_to_send(NOW + 60), session.next_timeout()) == ([], None)
    assert (deadline, session.link_deadline) == (NOW + 60, None)
    assert read_all(session, NOW + 60) == b"rows"


def test_a_websocket_lost_while_opening_ends_at_once() -> None:
    session = client_session(NOW)
    session.send_data(b"socks")
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    assert events(session) == [Aborted(Code.DIALER_GONE, "closed with 1006"), Finished(Code.DIALER_GONE)]
    assert (session.messages_to_send(NOW), session.next_timeout(), session.link_deadline) == ([], None, None)


@BOTH
def test_a_websocket_lost_while_ending_leaves_the_code_as_it_was(role: Role) -> None:
    session = session_of(role, NOW)
    session.abort(Code.TARGET_RESET, "first", NOW)
    session.link_lost(Code.DIALER_GONE, "later", NOW)
    assert session.messages_to_send(NOW) == []
    # It reconnects to tell the bridge, for as long as it would have for the session.
    assert (session.link_deadline, session.next_timeout()) == (NOW + 60, NOW + 60)
    session.begin_attempt()
    session.link_restored(NOW + 20)
    assert [kind for kind, _payload in words(session, NOW + 20)] == [FrameType.END, FrameType.RESET]
    assert session.next_timeout() == NOW + 21
    session.link_lost(Code.DIALER_GONE, "again", NOW + 21)
    assert session.link_deadline == NOW + 60
    session.handle_timeout(NOW + 60)
    assert events(session) == [Aborted(Code.TARGET_RESET, "first"), Finished(Code.TARGET_RESET)]


@BOTH
def test_last_words_are_given_up_five_seconds_after_the_websocket_is_back(role: Role) -> None:
    session = session_of(role, NOW)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    session.abort(Code.TARGET_RESET, "reset", NOW + 1)
    session.begin_attempt()
    session.link_restored(NOW + 30)
    for second in range(30, 35):
        session.handle_timeout(NOW + second)
        assert [kind for kind, _payload in words(session, NOW + second)] == [FrameType.END, FrameType.RESET]
    session.handle_timeout(NOW + 35)
    assert events(session) == [Aborted(Code.TARGET_RESET, "reset"), Finished(Code.TARGET_RESET)]


@BOTH
def test_what_the_peer_said_is_repeated_to_the_bridge_for_five_seconds_whatever_the_websocket_does(
    role: Role,
) -> None:
    session = session_of(role, NOW)
    give(session, reset_frame(Code.TARGET_RESET), NOW)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    assert (session.link_deadline, session.next_timeout()) == (NOW + 5, NOW + 5)


def test_a_relay_with_a_reason_to_tell_does_not_reconnect_beyond_its_end() -> None:
    session = relay_session(NOW, life=20.0)
    session.link_lost(Code.RELAY_GONE, "closed", NOW)
    session.abort(Code.TARGET_RESET, "reset", NOW + 1)
    assert (session.link_deadline, session.next_timeout()) == (NOW + 20, NOW + 20)
    session.handle_timeout(NOW + 20)
    assert events(session) == [Aborted(Code.TARGET_RESET, "reset"), Finished(Code.TARGET_RESET)]


def test_a_relay_with_a_reason_to_tell_does_not_outlive_its_dialer_by_more_than_an_orphan() -> None:
    session = relay_session(NOW, probing=ProbeTimes())
    orphaned = NOW + ProbeTimes().orphan
    session.link_lost(Code.RELAY_GONE, "closed", orphaned - 10)
    session.abort(Code.TARGET_RESET, "reset", orphaned - 9)
    assert (session.link_deadline, session.next_timeout()) == (orphaned, orphaned)
    session.begin_attempt()
    session.link_restored(orphaned - 1)
    assert session.next_timeout() == orphaned - 1
    session.link_lost(Code.RELAY_GONE, "closed", orphaned)
    session.handle_timeout(orphaned + 4)
    assert events(session)[-1] == Finished(Code.TARGET_RESET)


@BOTH
def test_a_refusal_while_ending_confirms_the_end(role: Role) -> None:
    session = session_of(role, NOW)
    session.abort(Code.TARGET_RESET, "first", NOW)
    session.link_lost(Code.DIALER_GONE, "later", NOW)
    session.link_refused(Code.UNKNOWN_SESSION, "HTTP status 409")
    assert events(session) == [Aborted(Code.TARGET_RESET, "first"), Finished(Code.TARGET_RESET)]


def test_a_dead_link_is_dropped_after_twenty_seconds_of_questions_and_the_session_lives() -> None:
    session = client_session(NOW, keepalive=KeepaliveTimes())
    session.finish_opening()
    give(session, Frame(FrameType.DATA, payload=b"rows"), NOW)
    frames(session, NOW + 0.2)
    at, pings = NOW, []
    while session.link_deadline is None:
        timeout = session.next_timeout()
        assert timeout is not None
        at = max(at, timeout)
        session.handle_timeout(at)
        pings += [at - NOW for kind, _payload in words(session, at) if kind == FrameType.PING]
    assert (pings, at) == ([240, 245, 250, 255], NOW + 260)
    assert (events(session), session.alive, session.link_deadline) == ([LinkDead()], True, at + 60)
    assert read_all(session, at) == b"rows"


@BOTH
@pytest.mark.parametrize(
    ("frame", "code", "text"),
    [
        (
            Frame(FrameType.DATA, offset=1 << 40, payload=b"x"),
            Code.FLOW_CONTROL_ERROR,
            "past the window's edge",
        ),
        (Frame(FrameType.ACK, ack=1), Code.PROTOCOL_ERROR, "the peer acknowledged 1, only 0 was sent"),
        (Frame(FrameType.ACK, payload=b"x"), Code.PROTOCOL_ERROR, "no list of at most 32 ranges"),
        (Frame(FrameType.RESET, payload=b"x"), Code.PROTOCOL_ERROR, "RESET: 1 bytes of payload, 2 needed"),
        (Frame(FrameType.RESUMED), Code.PROTOCOL_ERROR, "RESUMED: 0 bytes of payload, 8 needed"),
        (Frame(FrameType.HEALTHY), Code.PROTOCOL_ERROR, "frame type 19 is not for the"),
        (Frame(FrameType.RESUME), Code.PROTOCOL_ERROR, "frame type 9 is not for the"),
        (Frame(FrameType.END), Code.PROTOCOL_ERROR, "frame type 11 is not for the"),
    ],
)
def test_a_broken_rule_ends_the_session_and_names_it(role: Role, frame: Frame, code: Code, text: str) -> None:
    session = session_of(role, NOW)
    give(session, frame, NOW)
    (event,) = events(session)
    assert isinstance(event, Aborted)
    assert event.code is code
    assert text in event.reason
    assert [kind for kind, _payload in words(session, NOW)] == [FrameType.END, FrameType.RESET]


@BOTH
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", Code.PROTOCOL_ERROR),
        ("no base64!", Code.PROTOCOL_ERROR),
        ("QQ==", Code.PROTOCOL_ERROR),
        ("ä" * 32, Code.PROTOCOL_ERROR),
        ("A" * 126_004, Code.PROTOCOL_ERROR),
        ("IQ" + "A" * 30, Code.UNSUPPORTED_VERSION),
        ("IQAA", Code.UNSUPPORTED_VERSION),
    ],
)
def test_garbage_ends_the_session_and_raises_nothing(role: Role, text: str, code: Code) -> None:
    session = session_of(role, NOW)
    session.receive_message(text.encode(), NOW)
    (event,) = events(session)
    assert isinstance(event, Aborted)
    assert event.code is code


@BOTH
def test_a_session_that_ends_listens_for_its_end_only(role: Role) -> None:
    session = session_of(role, NOW)
    session.abort(Code.TARGET_RESET, "first", NOW)
    events(session)
    for frame in (
        fin_frame(0, b"late"),
        Frame(FrameType.ACK, ack=99),
        Frame(FrameType.PING, payload=bytes(8)),
    ):
        give(session, frame, NOW)
    session.receive_message(b"garbage", NOW)
    session.receive_message(b'{"message": "Internal server error"}', NOW)
    session.message_refused(NOW)
    assert events(session) == []
    assert [kind for kind, _payload in words(session, NOW)] == [FrameType.END, FrameType.RESET]
