"""What both ends of a shared session do; each test once as either."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FlowControlError, FrameError, LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.events import Closed, CutOff, Readable, Writable
from emissary_lib.protocol.mux.limits import CONNECTION_WINDOW, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from tests.helpers.mux_pair import (
    ALERT,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NOW,
    PING,
    POSITION,
    RST_STREAM,
    SETTINGS,
    TARGET,
    WINDOW_UPDATE,
    MuxPair,
    answer,
    drain_events,
    frame,
    position,
    setting,
)  # fmt: skip

Ends = tuple[Multiplexer, Multiplexer]
SMALL = MuxLimits(connections=4, window=1_000, most_window=1_000, receive_memory=4_000, send_buffer=500)


@pytest.fixture
def pair() -> MuxPair:
    return MuxPair()


@pytest.fixture(params=["dialer to relay", "relay to dialer"])
def way(request: pytest.FixtureRequest) -> Callable[[MuxPair], Ends]:
    """Gives sender and receiver."""
    if request.param == "dialer to relay":
        return lambda pair: (pair.dialer, pair.relay)
    return lambda pair: (pair.relay, pair.dialer)


def refused(side: Multiplexer, data: bytes, kind: type[RemoteProtocolError], match: str = "") -> None:
    """``side`` ends with that error, again and again, and holds nothing any more."""
    with pytest.raises(kind, match=match) as caught:
        side.receive(data, NOW)
    with pytest.raises(kind) as repeated:
        side.receive(b"", NOW)
    with pytest.raises(kind) as at_the_end:
        side.receive_eof()
    assert caught.value is repeated.value is at_the_end.value
    assert (side.connections, side.buffered, side.data_to_send(1 << 20)) == (0, (0, 0), b"")
    assert "\n" not in str(caught.value)


def test_bytes_arrive_whole_and_in_order(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    content = bytes(range(256)) * 400
    assert sender.send_data(stream, content[:60_000]) == 60_000
    assert sender.send_data(stream, memoryview(content)[60_000:]) == 42_400
    pair.pass_on()
    assert drain_events(receiver) == [Readable(stream)]
    assert receiver.peek(stream, 5) == content[:5]
    first = pair.take(receiver, stream)
    assert len(first) == 65_535
    pair.pass_on()
    assert drain_events(receiver) == [Readable(stream)]
    assert first + pair.take(receiver, stream) == content
    assert not receiver.receive_ended(stream)


def test_each_direction_ends_on_its_own(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"last words")
    sender.send_eof(stream)
    sender.send_eof(stream)
    assert (sender.send_room(stream), sender.send_data(stream, b"more")) == (0, 0)
    pair.pass_on()
    assert drain_events(sender) == []  # nobody waits for room
    assert drain_events(receiver) == [Readable(stream), Readable(stream)]
    assert not receiver.receive_ended(stream)
    assert pair.take(receiver, stream) == b"last words"
    assert receiver.receive_ended(stream)
    sender.send_eof(stream)
    pair.relay.release_end(stream)
    receiver.send_data(stream, b"answer")
    pair.pass_on()
    assert pair.take(sender, stream) == b"answer"
    receiver.send_eof(stream)
    pair.pass_on()
    pair.relay.release_end(stream)
    pair.pass_on()
    assert drain_events(receiver) == [Closed(stream)]
    assert drain_events(sender)[-1] == Closed(stream)
    assert pair.dialer.idle
    assert pair.relay.idle


def test_an_end_alone_is_sent_as_such(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_eof(stream)
    assert sender.data_to_send(100) == frame(DATA, END_STREAM, stream)
    assert not receiver.receive_ended(stream)


def test_a_slow_reader_blocks_its_own_connection_alone(way: Callable[[MuxPair], Ends]) -> None:
    pair = MuxPair(SMALL, SMALL)
    sender, receiver = way(pair)
    slow, fast = pair.connect(), pair.connect()
    for _ in range(10):
        sender.send_data(slow, bytes(500))
        pair.pass_on()
    assert receiver.buffered[1] == 1_000
    assert sender.send_room(slow) == 0
    for _ in range(50):
        assert sender.send_data(fast, b"x" * 500) == 500
        pair.pass_on()
        assert pair.take(receiver, fast) == b"x" * 500
        pair.pass_on()
    assert len(pair.take(receiver, slow)) == 1_000
    pair.pass_on()
    assert receiver.buffered[1] == 500


def test_a_user_with_more_bytes_than_there_is_room_for_is_told_of_room(
    way: Callable[[MuxPair], Ends],
) -> None:
    pair = MuxPair(SMALL, SMALL)
    sender, receiver = way(pair)
    stream = pair.connect()
    assert sender.send_data(stream, bytes(600)) == 500
    assert sender.send_data(stream, bytes(1)) == 0
    sender.data_to_send(2_000)
    assert drain_events(sender) == [Writable(stream)]
    assert sender.send_room(stream) == 500
    sender.send_data(stream, bytes(500))
    sender.data_to_send(2_000)
    assert drain_events(sender) == []  # all of it was taken
    assert receiver.connections == 1


def test_streams_are_served_in_turn_by_one_frame_each(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    streams = [pair.connect() for _ in range(3)]
    sender, _ = way(pair)
    for stream in streams[:2]:
        sender.send_data(stream, bytes(40_000))
    sender.send_data(streams[2], b"query")
    data, order = sender.data_to_send(1 << 20), []
    while data:
        size = int.from_bytes(data[:3], "big")
        order.append((int.from_bytes(data[5:9], "big"), size))
        data = data[9 + size :]
    bulk, other, query = streams
    assert order == [
        (bulk, 16_384), (other, 16_384), (query, 5),
        (bulk, 16_384), (other, 16_384), (bulk, 7_232), (other, 7_232),
    ]  # fmt: skip


def test_no_more_is_sent_than_there_is_room_for(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, bytes(5_000))
    assert sender.data_to_send(1_032) == b""  # a frame is not cut to pieces of less than 1,024 bytes
    data = sender.data_to_send(1_033)
    assert len(data) == 1_033
    receiver.receive(data, NOW)
    data = sender.data_to_send(1 << 20)
    assert len(data) == 9 + 5_000 - 1_024
    receiver.receive(data, NOW)
    assert len(pair.take(receiver, stream)) == 5_000


def test_frames_that_carry_no_bytes_may_be_cut(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.reset(stream, Code.MESSAGE_REFUSED)
    while data := sender.data_to_send(5):
        assert len(data) <= 5
        receiver.receive(data, NOW)
    assert drain_events(receiver) == [CutOff(stream, Code.MESSAGE_REFUSED, whole=False, lost=0)]


def test_a_closed_connection_window_stops_all(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.receive(frame(WINDOW_UPDATE, 0, stream, (1 << 30).to_bytes(4, "big")), NOW)
    sent = 0
    while sender.send_data(stream, bytes(131_072)) and (data := sender.data_to_send(1 << 20)):
        sent += len(data) - 9 * -(-len(data) // 16_393)
    assert sent == CONNECTION_WINDOW
    sender.receive(frame(WINDOW_UPDATE, 0, 0, (1_000).to_bytes(4, "big")), NOW)
    assert len(sender.data_to_send(1 << 20)) == 1_009
    assert receiver.idle is False


def test_a_cut_tells_how_far_both_have_got(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"query")
    pair.pass_on()
    pair.take(receiver, stream)
    sender.send_data(stream, b"lost")
    receiver.send_data(stream, b"answer")
    pair.pass_on()
    drain_events(sender)
    receiver.send_data(stream, b"dropped")
    receiver.reset(stream, Code.TARGET_RESET)
    assert receiver.connections == 0
    pair.pass_on()
    assert drain_events(sender) == [CutOff(stream, Code.TARGET_RESET, whole=False, lost=4)]
    assert (sender.send_room(stream), sender.connections) == (0, 1)
    sender.report(stream)
    assert sender.data_to_send(100) == b""
    assert sender.peek(stream, 3) == b"ans"
    sender.consume(stream, 3)
    assert pair.take(sender, stream) == b"wer"
    assert sender.idle


def test_what_was_not_read_of_a_connection_that_was_cut_off_can_be_forgotten(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"bytes")
    pair.pass_on()
    sender.reset(stream, Code.DIALER_RESET)
    pair.pass_on()
    receiver.receive(position(stream, 0, 0), NOW)  # of one that is over
    receiver.reset(stream, Code.DIALER_RESET)
    receiver.reset(stream, Code.DIALER_RESET)
    assert receiver.idle
    assert receiver.data_to_send(100) == b""


def test_a_target_may_reset_its_connection_after_both_have_ended(pair: MuxPair) -> None:
    """RST_STREAM means nothing on a closed stream, and the target may not have all bytes."""
    stream = pair.connect()
    pair.dialer.send_data(stream, b"bytes")
    for side in (pair.dialer, pair.relay):
        side.send_eof(stream)
    pair.pass_on()
    drain_events(pair.dialer)
    assert pair.dialer.connections == 1
    pair.relay.consume(stream, 2)
    pair.relay.reset(stream, Code.TARGET_RESET)
    pair.pass_on()
    assert drain_events(pair.dialer) == [CutOff(stream, Code.TARGET_RESET, whole=False, lost=3)]
    assert pair.dialer.idle


def test_a_reset_of_a_target_that_had_everything_loses_nothing(pair: MuxPair) -> None:
    stream = pair.connect()
    pair.dialer.send_data(stream, b"bytes")
    pair.dialer.send_eof(stream)
    pair.relay.send_data(stream, b"answer")
    pair.pass_on()
    drain_events(pair.dialer)
    pair.take(pair.relay, stream)
    pair.relay.reset(stream, Code.TARGET_RESET)
    pair.pass_on()
    assert drain_events(pair.dialer) == [CutOff(stream, Code.TARGET_RESET, whole=True, lost=0)]


@pytest.mark.parametrize("gone", [True, False], ids=["met on the way", "before they went out"])
@pytest.mark.parametrize(
    ("last", "lost"),
    [(ALERT, 0), (b"more", 4), (b"x" + ALERT, 25), (ALERT + b"x", 25), (ALERT * 6, 144)],
    ids=["an alert", "data", "data and an alert", "an alert and data", "too many"],
)
def test_a_reset_of_a_target_that_lacks_tls_s_last_word_loses_nothing(
    last: bytes, lost: int, gone: bool, pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    """Symptom: JDBC writes two alerts, the server is gone at the first, and every fourth run alarmed."""
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"query")
    receiver.send_data(stream, b"answer")
    pair.pass_on()
    pair.take(receiver, stream)
    sender.send_data(stream, last)
    sender.send_eof(stream)
    drain_events(sender)
    receiver.reset(stream, Code.TARGET_RESET)
    if gone:
        sender.data_to_send(1 << 20)
    assert sender.lost(stream) == len(b"query" + last)  # as far as was told
    sender.receive(receiver.data_to_send(1 << 20), NOW)
    assert drain_events(sender) == [CutOff(stream, Code.TARGET_RESET, whole=not lost, lost=lost)]


def test_what_is_made_goes_out_next_and_what_waits_behind_it_is_not_made(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream, other = pair.connect(), pair.connect()
    sender, _ = way(pair)
    sender.send_data(other, b"bytes")
    assert (sender.framed, sender.buffered[0]) == (0, 5)
    sender.reset(stream, Code.MESSAGE_REFUSED)
    cut = position(stream, 0, 0, Code.MESSAGE_REFUSED) + frame(RST_STREAM, 0, stream, (2).to_bytes(4, "big"))
    assert (sender.framed, sender.buffered[0]) == (len(cut), len(cut) + 5)
    assert sender.data_to_send(10) == cut[:10]
    assert (sender.framed, sender.unsent(other)) == (len(cut) - 10, 5)
    assert sender.data_to_send(1 << 20) == cut[10:] + frame(DATA, 0, other, b"bytes")
    assert (sender.framed, sender.buffered[0]) == (0, 0)
    sender.reset(other, Code.MESSAGE_REFUSED)
    sender.cut_off_all(Code.RELAY_GONE)
    assert (sender.framed, sender.data_to_send(100)) == (0, b"")


def test_without_a_position_the_error_tells_why(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    codes = []
    for error in (0xA, 0x8, 0x5):
        stream = pair.connect()
        _, receiver = way(pair)
        receiver.receive(frame(RST_STREAM, 0, stream, error.to_bytes(4, "big")), NOW)
        (event,) = drain_events(receiver)
        assert isinstance(event, CutOff)
        codes.append(event.code)
    assert codes == [Code.TARGET_RESET, Code.DIALER_RESET, Code.PROTOCOL_ERROR]


def test_nobody_is_cut_off_for_nothing(pair: MuxPair) -> None:
    stream = pair.connect()
    with pytest.raises(LocalProtocolError, match="nothing is cut off for OK"):
        pair.dialer.reset(stream, Code.OK)
    with pytest.raises(LocalProtocolError, match="nothing is cut off for OK"):
        pair.dialer.user_lost(stream, Code.OK, NOW)
    with pytest.raises(LocalProtocolError, match="nothing is cut off for OK"):
        pair.dialer.cut_off_all(Code.OK)
    assert pair.dialer.connections == 1


def test_what_was_under_way_to_a_connection_that_was_cut_off_is_ignored(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream, other = pair.connect(), pair.connect()
    sender, receiver = way(pair)
    for _ in range(50):
        sender.send_data(stream, b"x")
        late = sender.data_to_send(100)
        receiver.reset(stream, Code.DIALER_RESET)
        receiver.data_to_send(100)
        receiver.receive(late, NOW)
        assert receiver.data_to_send(100) == b""  # nor is each answered
    receiver.receive(sender.data_to_send(100), NOW)
    sender.send_eof(stream)
    receiver.receive(sender.data_to_send(100), NOW)
    assert drain_events(receiver) == []
    sender.send_data(other, b"y")
    receiver.receive(sender.data_to_send(100), NOW)
    assert pair.take(receiver, other) == b"y"


def test_bytes_and_end_in_one_piece_with_a_cut_are_told_first(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream = pair.connect()
    _, receiver = way(pair)
    cut = frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
    receiver.receive(frame(DATA, 0, stream, b"ab") + frame(DATA, END_STREAM, stream) + cut, NOW)
    assert drain_events(receiver) == [
        Readable(stream), Readable(stream), CutOff(stream, Code.DIALER_RESET, whole=False, lost=0)
    ]  # fmt: skip
    assert pair.take(receiver, stream) == b"ab"


def test_a_connection_nobody_ever_heard_of_takes_and_has_nothing(pair: MuxPair) -> None:
    for side in (pair.dialer, pair.relay):
        assert (side.send_room(99), side.send_data(99, b"x"), side.peek(99, 1)) == (0, 0, b"")
        assert not side.receive_ended(99)
        side.send_eof(99)
        side.consume(99, 1)
        side.report(99)
        side.reset(99, Code.DIALER_RESET)
        side.user_lost(99, Code.DIALER_RESET, NOW)
        assert (side.written(99), side.unsent(99), side.lost(99), side.arrived(99)) == (0, 0, 0, 0)
        assert side.next_timeout() is None
        assert side.next_event() is None


def test_nobody_takes_more_than_waits(pair: MuxPair) -> None:
    with pytest.raises(LocalProtocolError, match="1 bytes taken, of 0 that waited"):
        pair.dialer.consume(pair.connect(), 1)


def test_a_position_is_told_with_the_next_bytes_once(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"bytes")
    pair.pass_on()
    receiver.consume(stream, 3)
    for _ in range(10):
        receiver.report(stream)
    receiver.send_data(stream, b"x")
    assert receiver.data_to_send(0) == receiver.data_to_send(-5) == b""
    assert receiver.data_to_send(27) == position(stream, 1, 3)
    assert receiver.data_to_send(100) == frame(DATA, 0, stream, b"x")
    assert receiver.data_to_send(100) == b""


def test_a_report_of_a_connection_that_is_over_is_none(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    receiver.report(stream)
    sender.reset(stream, Code.DIALER_RESET)
    receiver.receive(sender.data_to_send(100), NOW)
    assert receiver.data_to_send(100) == b""


def test_the_connections_window_is_given_back_whether_users_read_or_not(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    sender, receiver = way(pair)
    seen = 0
    streams = [pair.connect() for _ in range(40)]
    for stream in streams:
        sender.send_data(stream, bytes(65_535))
    while data := sender.data_to_send(1 << 20):
        receiver.receive(data, NOW)
        seen += receiver.data_to_send(1 << 20).count(frame(WINDOW_UPDATE, 0, 0, b"")[3:])
    assert receiver.buffered[1] == 40 * 65_535
    assert seen == 1


def test_a_bulk_readers_window_grows_up_to_twice_a_sessions_capacity(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    for _ in range(200):
        sender.send_data(stream, bytes(131_072))
        pair.pass_on()
        pair.take(receiver, stream)
        pair.pass_on()
    arrived = 0
    while sender.send_data(stream, bytes(131_072)):
        pair.pass_on()
        arrived = receiver.buffered[1]
    assert 2 << 20 < arrived <= 4 << 20


def test_the_stream_may_end_between_connections_only(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    _, receiver = way(pair)
    pair.pass_on()
    receiver.receive_eof()
    pair.connect()
    with pytest.raises(RemoteProtocolError, match="ends within a connection"):
        receiver.receive_eof()


def test_the_stream_may_end_before_all_is_read_of_a_connection_that_was_cut_off(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    """Symptom: a program reset its connection and was the last; a slow target lost what had come for it."""
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"last words")
    sender.user_lost(stream, Code.MESSAGE_REFUSED, NOW)
    pair.pass_on()
    assert sender.idle
    receiver.receive_eof()
    assert (receiver.peek(stream, 99), receiver.idle) == (b"last words", False)
    assert (pair.take(receiver, stream), receiver.idle) == (b"last words", True)


def test_the_stream_may_not_end_within_a_frame(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    _, receiver = way(pair)
    pair.pass_on()
    receiver.receive(b"\0", NOW)
    with pytest.raises(RemoteProtocolError, match="ends within"):
        receiver.receive_eof()


def test_a_ping_is_answered(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    _, receiver = way(pair)
    pair.pass_on()
    receiver.receive(frame(PING, 0, 0, b"12345678"), NOW)
    assert receiver.data_to_send(100) == frame(PING, 1, 0, b"12345678")
    receiver.receive(frame(PING, 1, 0, b"12345678"), NOW)


def test_frames_of_a_later_version_are_ignored(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    stream = pair.connect()
    _, receiver = way(pair)
    receiver.receive(frame(0xF1, 0xFF, stream, b"later"), NOW)
    receiver.receive(frame(SETTINGS, 0, 0, setting(0x99, 1)), NOW)
    assert drain_events(receiver) == []


def test_settings_can_shut_and_open_the_windows_of_all(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    first, second, third = (pair.connect() for _ in range(3))
    sender, receiver = way(pair)
    sender.send_data(first, bytes(65_535))
    pair.pass_on()
    sender.receive(frame(SETTINGS, 0, 0, setting(4, 0)), NOW)  # the first one's is -65,535 now
    sender.data_to_send(100)
    sender.send_eof(first)
    sender.send_data(second, b"x")
    assert sender.data_to_send(1 << 20) == frame(DATA, END_STREAM, first)
    sender.receive(frame(SETTINGS, 0, 0, setting(4, 10)), NOW)
    sent = sender.data_to_send(1 << 20)
    assert sent.endswith(frame(DATA, 0, second, b"x"))
    assert (receiver.connections, third) == (3, 5)


MALFORMED = {
    "a long frame": (frame(DATA, 0, 1, bytes(16_385)), FrameError, "at most 16384"),
    "a naked continuation": (frame(CONTINUATION, END_HEADERS, 1), FrameError, "CONTINUATION"),
    "a frame for no stream": (frame(DATA, 0, 0, b"x"), RemoteProtocolError, "HTTP/2 is broken"),
    "a settings frame cut short": (frame(SETTINGS, 0, 0, b"12345"), RemoteProtocolError, "HTTP/2 is broken"),
    "a setting that cannot be": (frame(SETTINGS, 0, 0, setting(4, 1 << 31)), FlowControlError, "broken"),
    "push": (frame(SETTINGS, 0, 0, setting(2, 1)), RemoteProtocolError, "broken|PUSH"),
    "a table that is too large": (frame(SETTINGS, 0, 0, setting(1, 4_097)), FrameError, "HEADER_TABLE_SIZE"),
    "data on a stream that never was": (frame(DATA, 0, 9, b"x"), RemoteProtocolError, "broken"),
    "a window that opens by nothing": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), RemoteProtocolError, "broken"),
    "a connection's window above the most": (
        frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FlowControlError, "broken"
    ),
    "a stream's window above the most": (
        frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), FlowControlError, "2,147,483,647"
    ),
    "bytes beyond the window": (frame(DATA, 0, 1, bytes(16_384)) * 4, FlowControlError, "broken"),
    "bytes behind the end": (
        frame(DATA, END_STREAM, 1, b"x") + frame(DATA, 0, 1, b"y"), FrameError, "a stream that has ended"
    ),
    "trailers": (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\0\1a\1b"), FrameError, "TrailersReceived"),
    "goaway": (frame(GOAWAY, 0, 0, bytes(8)), RemoteProtocolError, "the peer ends"),
    "headers that are no hpack": (frame(HEADERS, END_HEADERS, 1, b"\xff" * 9), RemoteProtocolError, "broken"),
    "a position cut short": (frame(POSITION, 0, 1, bytes(17)), FrameError, "POSITION: 17 bytes"),
    "a position of no stream": (position(0, 0, 0), FrameError, "never opened"),
    "a position of a stream of the relay's": (position(2, 0, 0), FrameError, "never opened"),
    "a position of a stream that never was": (position(3, 0, 0), FrameError, "never opened"),
    "a position beyond what was sent": (position(1, 0, 4), FrameError, "4 bytes taken, of 3 sent"),
    "a position that goes back": (position(1, 0, 2) + position(1, 0, 1), FrameError, "1 bytes taken"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_breaks_the_protocol_ends_the_session(
    name: str, pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream = pair.connect()
    _, receiver = way(pair)
    receiver.send_data(stream, b"sent")
    receiver.data_to_send(9 + 2)
    receiver.data_to_send(1 << 20)
    data, kind, match = MALFORMED[name]
    if name == "a position beyond what was sent":
        data, match = position(1, 0, 5), "5 bytes taken, of 4 sent"
    refused(receiver, data, kind, match)


def test_a_peer_that_takes_no_answers_ends_the_session(pair: MuxPair, way: Callable[[MuxPair], Ends]) -> None:
    _, receiver = way(pair)
    pair.pass_on()
    ping = frame(PING, 0, 0, bytes(8))
    for second in range(12):
        pair.now = NOW + second
        receiver.receive(ping * 445, pair.now)
        assert receiver.buffered[0] <= 98_304
    refused(receiver, ping * 460, RemoteProtocolError, "answer more than it takes")


def test_a_position_is_no_error_of_an_answer_that_is_late(pair: MuxPair) -> None:
    """A dial that was given up: its answer meets a stream that is closed."""
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.dialer.reset(stream, Code.DIALER_RESET)
    pair.dialer.receive(answer(stream, b"200"), NOW)
    assert drain_events(pair.dialer) == []
    pair.pass_on()
    assert pair.relay.idle


def test_what_an_end_needs_is_for_the_two_sides_to_say() -> None:
    side = Multiplexer(MuxLimits(), client=True, now=NOW)
    for hook in (side._release_at_end, side._waits_for_end):
        with pytest.raises(NotImplementedError):
            hook(Connection(1, TARGET))


def test_nothing_is_reported_of_a_connection_that_was_cut_off_meanwhile(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"bytes")
    pair.pass_on()
    receiver.report(stream)
    sender.reset(stream, Code.DIALER_RESET)
    receiver.receive(sender.data_to_send(100), NOW)
    assert receiver.data_to_send(100) == b""
    assert receiver.peek(stream, 9) == b"bytes"


def test_a_connection_that_is_cut_off_gives_its_window_back(
    pair: MuxPair, way: Callable[[MuxPair], Ends]
) -> None:
    """Thirteen windows of the largest size are all that the memory has: the others would stay small."""
    sender, receiver = way(pair)
    for _ in range(30):
        stream = pair.connect()
        largest = 0
        for _ in range(45):
            sender.send_data(stream, bytes(131_072))
            pair.pass_on()
            pair.take(receiver, stream)
            pair.pass_on()
        while sender.send_data(stream, bytes(131_072)):
            pair.pass_on()
            largest = receiver.buffered[1]
        assert largest > 1_000_000
        receiver.reset(stream, Code.TARGET_RESET)
        pair.pass_on()
        sender.reset(stream, Code.DIALER_RESET)


def test_what_comes_is_not_written_out_for_a_log_that_nobody_keeps(pair: MuxPair) -> None:
    """h2 does, whole and in hexadecimal; this fails with a release that has to be told otherwise."""
    stream, told = pair.connect(), list[str]()

    class Log:
        def trace(self, text: str, *of: object) -> None:
            told.append(text % of)

        def debug(self, text: str, *of: object) -> None:
            """What was decided: nothing that grows with what comes."""

    pair.dialer.send_data(stream, b"\xab" * 1_000)
    pair.relay._http2.config.logger = Log()  # type: ignore[assignment]
    pair.relay.receive(pair.dialer.data_to_send(1 << 20), NOW)
    (frame_told,) = [text for text in told if text.startswith("Received frame: DataFrame")]
    assert "abab" not in frame_told
    assert pair.take(pair.relay, stream) == b"\xab" * 1_000
