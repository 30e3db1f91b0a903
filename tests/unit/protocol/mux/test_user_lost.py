"""A user whose connection broke: what it wrote goes out ahead of the cut, and the end is told once.

Each test once as either side.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux.events import CutOff, Left, Readable
from emissary_lib.protocol.mux.limits import MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from tests.helpers.mux_pair import (
    ALERT,
    DATA,
    END_STREAM,
    GOAWAY,
    NOW,
    RST_STREAM,
    TARGET,
    MuxPair,
    drain_events,
    frame,
    position,
)

Way = Callable[[MuxPair], tuple[Multiplexer, Multiplexer]]

#: Two connections with 1,000 bytes each for certain, and 1,000 that one may have more.
SMALL = MuxLimits(connections=2, window=1_000, most_window=2_000, receive_memory=4_000, send_buffer=5_000)


@pytest.fixture
def pair() -> MuxPair:
    return MuxPair(SMALL, SMALL)


@pytest.fixture(params=["dialer to relay", "relay to dialer"])
def way(request: pytest.FixtureRequest) -> Way:
    """Gives sender and receiver; the sender's user is lost."""
    if request.param == "dialer to relay":
        return lambda pair: (pair.dialer, pair.relay)
    return lambda pair: (pair.relay, pair.dialer)


def cut(stream: int, written: int, taken: int, *, reset: bool = True) -> bytes:
    """What cuts a connection off for MESSAGE_REFUSED."""
    told = position(stream, written, taken, Code.MESSAGE_REFUSED)
    return told + (frame(RST_STREAM, 0, stream, (2).to_bytes(4, "big")) if reset else b"")


def lose(side: Multiplexer, stream: int, unread: int = 0) -> None:
    side.user_lost(stream, Code.MESSAGE_REFUSED, NOW, unread=unread)


def left(stream: int, lost: int = 0) -> Left:
    """What is told of the end, where it was made here."""
    return Left(stream, Code.MESSAGE_REFUSED, lost)


def test_what_waits_goes_out_ahead_of_the_cut(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, bytes(5_000))
    lose(sender, stream)
    sender.user_lost(stream, Code.TARGET_RESET, NOW + 1)  # it was lost before
    assert (sender.connections, sender.idle, sender.next_timeout()) == (1, False, NOW + 5)
    assert (sender.written(stream), sender.unsent(stream), sender.lost(stream)) == (5_000, 5_000, 5_000)
    assert drain_events(sender) == []  # not before it is over
    read = b""
    while not any(isinstance(event, CutOff) for event in drain_events(receiver)):
        read += pair.take(receiver, stream)
        pair.pass_on()
    assert read + pair.take(receiver, stream) == bytes(5_000)
    assert (sender.connections, sender.idle, sender.next_timeout()) == (0, True, None)
    assert (receiver.idle, drain_events(sender)) == (True, [left(stream)])


@pytest.mark.parametrize("size", [0, 5])
def test_the_cut_is_directly_behind_the_last_byte(size: int, pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, bytes(size))
    sender.send_eof(stream)  # the end gives way
    lose(sender, stream, unread=7)
    data = frame(DATA, 0, stream, bytes(size)) if size else b""
    assert sender.data_to_send(1 << 20) == data + cut(stream, size + 7, 0)
    assert (sender.idle, drain_events(sender)) == (True, [left(stream)])


def test_an_end_that_went_out_stays(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, b"bytes")
    sender.send_eof(stream)
    assert sender.data_to_send(100) == frame(DATA, END_STREAM, stream, b"bytes")
    lose(sender, stream)
    assert sender.data_to_send(100) == cut(stream, 5, 0)
    assert drain_events(sender) == [left(stream)]


def test_a_stream_that_both_have_ended_is_cut_off_by_a_position(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    receiver.send_data(stream, b"not read")
    for side in (receiver, sender):
        side.send_eof(stream)
    pair.pass_on()
    drain_events(sender)
    lose(sender, stream)
    assert sender.data_to_send(100) == cut(stream, 0, 0, reset=False)
    assert (sender.idle, drain_events(sender)) == (True, [left(stream)])


def test_nothing_more_is_taken_from_the_user_or_told_or_held_for_it(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    receiver.send_data(stream, bytes(300))
    pair.pass_on()
    sender.consume(stream, 100)
    assert sender.send_data(stream, bytes(6_000)) == 5_000  # and it waits for room
    drain_events(sender)
    lose(sender, stream)
    assert (sender.send_room(stream), sender.send_data(stream, b"x")) == (0, 0)
    sender.send_eof(stream)
    receiver.send_data(stream, b"dropped")
    receiver.send_eof(stream)
    pair.pass_on()
    assert (sender.peek(stream, 100), sender.receive_ended(stream)) == (b"", False)
    assert sender.buffered == (4_000, 0)
    sender.consume(stream, 99)
    if sender is pair.relay:
        assert not pair.relay.end_waits(stream)
        pair.relay.release_end(stream)
    pair.take(receiver, stream)
    sender.report(stream)
    assert sender.data_to_send(1 << 20) == position(stream, 5_000, 100)
    for _ in range(9):
        pair.pass_on()
        pair.take(receiver, stream)
    assert sender.idle
    assert drain_events(sender) == [left(stream)]
    events = drain_events(receiver)
    assert events[-1] == CutOff(stream, Code.MESSAGE_REFUSED, whole=False, lost=207)


def test_a_peer_that_has_written_more_than_a_window_is_not_held_up(pair: MuxPair, way: Way) -> None:
    """Both users have gone: neither side may wait for the other's window."""
    stream = pair.connect()
    for side in (pair.dialer, pair.relay):
        side.send_data(stream, bytes(5_000))
        lose(side, stream)
    first, second = way(pair)
    while data := first.data_to_send(1 << 20):
        second.receive(data, NOW)
        first.receive(second.data_to_send(1 << 20), NOW)
    assert (pair.dialer.idle, pair.relay.idle) == (True, True)
    assert drain_events(first) == [left(stream)]
    assert drain_events(second) == [left(stream, lost=5_000)]  # nobody has taken any of it


def test_a_window_that_had_grown_is_the_others_again(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    free = sender._pool._free
    for _ in range(4):
        receiver.send_data(stream, bytes(2_000))
        pair.pass_on()
        pair.take(sender, stream)
    pair.pass_on()
    assert sender._pool._free < free
    sender.send_data(stream, bytes(5_000))
    pair.pass_on()
    lose(sender, stream)
    receiver.send_data(stream, bytes(1_500))
    pair.pass_on()
    assert (sender.connections, sender._pool._free) == (1, free)


def test_bytes_and_end_in_one_piece_for_a_user_that_is_gone(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, bytes(5_000))
    sender.data_to_send(1 << 20)
    lose(sender, stream)
    sender.receive(frame(DATA, 0, stream, bytes(900)) + frame(DATA, END_STREAM, stream), NOW)
    assert (drain_events(sender), sender.data_to_send(1 << 20)) == ([], b"")
    assert sender.arrived(stream) == 900
    sender.receive(frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")), NOW)
    assert sender.idle
    assert drain_events(sender) == [Left(stream, Code.DIALER_RESET, lost=5_000)]


def test_a_peer_that_cuts_off_meanwhile_ends_it(pair: MuxPair, way: Way) -> None:
    """What is lost goes by what the peer's user has taken then, and the code is the peer's."""
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, bytes(5_000))
    pair.pass_on()
    lose(sender, stream)
    receiver.consume(stream, 400)
    receiver.reset(stream, Code.TARGET_RESET)
    pair.pass_on()
    assert (sender.idle, sender.next_timeout()) == (True, None)
    assert drain_events(sender) == [Left(stream, Code.TARGET_RESET, lost=4_600)]
    assert sender._pool._free == 2_000


@pytest.mark.parametrize(("last", "lost"), [(ALERT, 0), (b"x" + ALERT, 25)], ids=["an alert", "more"])
def test_of_a_peer_that_lacks_alerts_alone_nothing_is_lost(
    last: bytes, lost: int, pair: MuxPair, way: Way
) -> None:
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, bytes(1_000))
    pair.pass_on()
    sender.send_data(stream, last)  # for which there is no window
    lose(sender, stream)
    pair.pass_on()
    sender.receive(position(stream, 0, 1_000, Code.TARGET_RESET), NOW)
    sender.receive(frame(RST_STREAM, 0, stream, (10).to_bytes(4, "big")), NOW)
    assert drain_events(sender) == [Left(stream, Code.TARGET_RESET, lost)]


def test_the_reason_that_a_peer_has_told_comes_first(pair: MuxPair, way: Way) -> None:
    """Its RST_STREAM is on the way when the session is cut off."""
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, bytes(2_000))
    pair.pass_on()
    lose(sender, stream)
    sender.receive(position(stream, 0, 1_000, Code.TARGET_RESET), NOW)
    assert drain_events(sender) == []
    sender.cut_off_all(Code.RELAY_GONE)
    assert drain_events(sender) == [Left(stream, Code.TARGET_RESET, lost=1_000)]


def test_a_peer_that_breaks_the_protocol_ends_it(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, b"bytes")
    lose(sender, stream)
    with pytest.raises(RemoteProtocolError):
        sender.receive(frame(GOAWAY, 0, 0, bytes(8)), NOW)
    sender.cut_off_all(Code.RELAY_GONE)
    assert drain_events(sender) == [Left(stream, Code.PROTOCOL_ERROR, lost=5)]


def test_a_connection_that_was_cut_off_before_is_forgotten_with_what_was_not_read(
    pair: MuxPair, way: Way
) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    receiver.send_data(stream, b"bytes")
    pair.pass_on()
    receiver.reset(stream, Code.TARGET_RESET)
    pair.pass_on()
    assert (sender.connections, sender.arrived(stream)) == (1, 0)
    assert drain_events(sender)[-1] == CutOff(stream, Code.TARGET_RESET, whole=False, lost=0)
    lose(sender, stream)
    assert (sender.idle, sender.data_to_send(100)) == (True, b"")
    assert drain_events(sender) == []  # its end was told


def test_a_request_whose_user_is_lost_is_given_up(pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.dialer.user_lost(stream, Code.DIALER_RESET, NOW)
    assert drain_events(pair.dialer) == [Left(stream, Code.DIALER_RESET, lost=0)]
    pair.pass_on()
    assert drain_events(pair.dialer) == []
    assert drain_events(pair.relay)[-1] == CutOff(stream, Code.DIALER_RESET, whole=False, lost=0)


def stuck(pair: MuxPair, way: Way) -> tuple[Multiplexer, Multiplexer, int]:
    """A user is lost whose last 4,000 bytes the peer has no window for."""
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, bytes(5_000))
    lose(sender, stream, unread=3)
    sender.handle_timeout(NOW)
    pair.pass_on()
    sender.handle_timeout(NOW + 1)  # bytes have moved
    assert (sender.unsent(stream), sender.next_timeout()) == (4_000, NOW + 6)
    return sender, receiver, stream


def test_a_reader_that_has_stopped_is_waited_for_so_long(pair: MuxPair, way: Way) -> None:
    sender, receiver, stream = stuck(pair, way)
    sender.handle_timeout(NOW + 5.9)
    assert (sender.data_to_send(100), drain_events(sender)) == (b"", [])
    sender.handle_timeout(NOW + 6)
    assert (drain_events(sender), sender.next_timeout()) == ([left(stream, lost=4_000)], None)
    sent = sender.data_to_send(100)
    assert sent == cut(stream, 5_003, 0)
    receiver.send_eof(stream)
    receiver.receive(sent, NOW)
    assert drain_events(receiver) == [
        Readable(stream), CutOff(stream, Code.MESSAGE_REFUSED, whole=False, lost=0)
    ]  # fmt: skip
    assert pair.take(receiver, stream) == bytes(1_000)
    assert (sender.idle, receiver.idle) == (True, True)


def test_a_reader_that_goes_on_is_waited_for_anew(pair: MuxPair, way: Way) -> None:
    sender, receiver, stream = stuck(pair, way)
    for second in range(5, 20, 5):
        sender.handle_timeout(NOW + second)
        receiver.consume(stream, 500)
        pair.pass_on()
    assert sender.unsent(stream) == 2_500
    sender.handle_timeout(NOW + 20)
    assert (drain_events(sender), sender.next_timeout()) == ([], NOW + 25)
    sender.handle_timeout(NOW + 25)
    assert drain_events(sender) == [left(stream, lost=2_500)]


def test_the_time_without_a_websocket_does_not_count(pair: MuxPair, way: Way) -> None:
    sender, _, stream = stuck(pair, way)
    sender.handle_timeout(NOW + 4, away=True)
    sender.handle_timeout(NOW + 100, away=True)
    sender.handle_timeout(NOW + 200)
    assert (sender.unsent(stream), sender.next_timeout()) == (4_000, NOW + 205)
    assert drain_events(sender) == []
    sender.handle_timeout(NOW + 205)
    assert (sender.connections, drain_events(sender)) == (0, [left(stream, lost=4_000)])


def test_nor_does_the_time_until_its_turn_comes(pair: MuxPair, way: Way) -> None:
    """Its window is open: the session is slow, or others are many."""
    stream = pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, bytes(1_000))
    lose(sender, stream)
    for second in (5, 10, 15):
        sender.handle_timeout(NOW + second)
    assert sender.unsent(stream) == 1_000
    assert drain_events(sender) == []
    assert sender.data_to_send(1 << 20) == frame(DATA, 0, stream, bytes(1_000)) + cut(stream, 1_000, 0)
    assert drain_events(sender) == [left(stream)]


def test_whoever_must_let_go_at_once_does(pair: MuxPair, way: Way) -> None:
    sender, _, stream = stuck(pair, way)
    sender.reset(stream, Code.MESSAGE_REFUSED)
    assert sender.data_to_send(100) == cut(stream, 5_003, 0)
    assert (sender.idle, drain_events(sender)) == (True, [])  # whoever resets it need not be told


def test_others_go_on_beside_one_that_waits(pair: MuxPair, way: Way) -> None:
    sender, receiver, stream = stuck(pair, way)
    other = pair.connect()
    for _ in range(5):
        sender.send_data(other, bytes(1_000))
        pair.pass_on()
        assert len(pair.take(receiver, other)) == 1_000
    assert sender.unsent(stream) == 4_000
