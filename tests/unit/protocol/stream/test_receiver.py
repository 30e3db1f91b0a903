"""The receiving half of a stream (docs/protocol.md sections 4.1 and 4.2)."""

from __future__ import annotations

import sys

import pytest

from emissary_lib.protocol.constants import INITIAL_WINDOW, MAX_SACK_RANGES
from emissary_lib.protocol.errors import FlowControlError, LocalProtocolError
from emissary_lib.protocol.stream.receiver import MAX_PIECES, StreamReceiver


def receiver(start: int = 0) -> StreamReceiver:
    return StreamReceiver(INITIAL_WINDOW, start=start)


def take(stream: StreamReceiver) -> bytes:
    parts = []
    while view := stream.peek():
        parts.append(bytes(view))
        stream.consume(len(view))
    return b"".join(parts)


def test_a_fresh_stream_has_everything_ahead() -> None:
    stream = receiver()
    assert (stream.ack, stream.window, stream.edge, stream.buffered) == (0, 65_536, 65_536, 0)
    assert (stream.gap, stream.complete, stream.drained, stream.final_size) == (False, False, False, None)
    assert bytes(stream.peek()) == b""


def test_bytes_in_order_are_ready_at_once() -> None:
    stream = receiver()
    assert stream.receive(0, b"abc", False)
    assert (stream.ack, stream.window, stream.buffered) == (3, 65_533, 3)
    assert take(stream) == b"abc"
    assert (stream.ack, stream.window, stream.edge, stream.buffered) == (3, 65_536, 65_539, 0)


def test_a_stream_may_begin_anywhere() -> None:
    stream = receiver(start=100)
    assert stream.edge == 65_636
    assert not stream.receive(0, bytes(100), False)
    assert stream.receive(90, bytes(10) + b"new", False)
    assert take(stream) == b"new"
    assert stream.ack == 103


def test_bytes_above_a_gap_are_kept_and_told() -> None:
    stream = receiver()
    assert stream.receive(5, b"fgh", False)
    assert stream.receive(10, b"klm", False)
    assert (stream.ack, stream.gap, stream.buffered) == (0, True, 6)
    assert stream.sack_ranges() == [(5, 8), (10, 13)]
    assert bytes(stream.peek()) == b""
    assert stream.receive(0, b"abcde", False)
    assert stream.sack_ranges() == [(10, 13)]
    assert stream.receive(8, b"ij", False)
    assert (stream.ack, stream.gap, stream.sack_ranges()) == (13, False, [])
    assert take(stream) == b"abcdefghijklm"


def test_neighbouring_pieces_are_one_range() -> None:
    stream = receiver()
    stream.receive(5, b"fg", False)
    stream.receive(9, b"jk", False)
    stream.receive(7, b"hi", False)
    assert stream.sack_ranges() == [(5, 11)]


@pytest.mark.parametrize(
    ("offset", "data"),
    [(5, b"fgh"), (5, b"f"), (6, b"gh"), (7, b"h"), (0, b"ab"), (1, b"b"), (2, b"")],
)
def test_a_repetition_brings_nothing_new(offset: int, data: bytes) -> None:
    stream = receiver()
    stream.receive(0, b"ab", False)
    stream.receive(5, b"fgh", False)
    assert not stream.receive(offset, data, False)
    assert (stream.ack, stream.buffered, stream.sack_ranges()) == (2, 5, [(5, 8)])


@pytest.mark.parametrize(
    ("offset", "data", "ranges"),
    [
        (4, b"efghij", [(4, 10)]),  # over the whole of it
        (3, b"def", [(3, 8)]),  # over its start
        (7, b"hij", [(5, 10)]),  # over its end
        (4, b"efghijklmno", [(4, 15)]),  # over two
    ],
)
def test_an_overlap_is_trimmed(offset: int, data: bytes, ranges: list[tuple[int, int]]) -> None:
    stream = receiver()
    stream.receive(5, b"fgh", False)
    if len(data) > 6:
        stream.receive(10, b"kl", False)
    assert stream.receive(offset, data, False)
    assert stream.sack_ranges() == ranges
    assert stream.buffered == ranges[0][1] - ranges[0][0]
    stream.receive(0, b"abcde", False)
    assert take(stream) == b"abcdefghijklmno"[: ranges[0][1]]


def test_what_arrived_first_stays() -> None:
    stream = receiver()
    stream.receive(2, b"cd", False)
    stream.receive(0, b"abXYef", False)
    assert take(stream) == b"abXYef"  # bytes in order are taken whole; pieces they cover are dropped
    assert (stream.ack, stream.buffered) == (6, 0)


def test_the_fin_takes_one_offset() -> None:
    stream = receiver()
    assert stream.receive(0, b"abc", True)
    assert (stream.ack, stream.final_size, stream.complete, stream.drained) == (4, 3, True, False)
    assert take(stream) == b"abc"
    assert stream.drained
    assert not stream.receive(0, b"abc", True)


def test_an_empty_stream_ends_with_a_bare_fin() -> None:
    stream = receiver()
    assert stream.receive(0, b"", True)
    assert (stream.ack, stream.complete, stream.drained) == (1, True, True)


def test_a_fin_above_a_gap_completes_nothing_but_is_in_the_range() -> None:
    stream = receiver()
    assert stream.receive(3, b"def", True)
    assert (stream.ack, stream.complete, stream.final_size) == (0, False, 6)
    assert stream.sack_ranges() == [(3, 7)]
    stream.receive(0, b"abc", False)
    assert (stream.ack, stream.complete) == (7, True)


def test_a_fin_is_not_subject_to_flow_control() -> None:
    stream = receiver()
    stream.receive(0, bytes(65_536), False)
    assert stream.window == 0
    assert stream.receive(65_536, b"", True)
    assert (stream.ack, stream.window) == (65_537, 0)


def test_a_byte_past_the_window_is_an_error() -> None:
    stream = receiver()
    assert stream.receive(0, bytes(65_536), False)
    with pytest.raises(FlowControlError, match="the peer sent up to 65537, past the window's edge 65536"):
        stream.receive(65_536, b"x", False)


def test_the_edge_follows_what_the_user_took() -> None:
    stream = receiver()
    stream.receive(0, bytes(65_536), False)
    stream.consume(10)
    assert (stream.edge, stream.window) == (65_546, 10)
    assert stream.receive(65_536, bytes(10), False)


@pytest.mark.parametrize(
    ("offset", "data", "fin", "text"),
    [
        (3, b"d", False, "past the final size 3"),
        (0, b"abcd", True, "two final sizes, 3 and 4"),
        (0, b"ab", True, "two final sizes, 3 and 2"),
    ],
)
def test_a_final_size_is_final(offset: int, data: bytes, fin: bool, text: str) -> None:
    stream = receiver()
    stream.receive(0, b"abc", True)
    with pytest.raises(FlowControlError, match=text):
        stream.receive(offset, data, fin)


@pytest.mark.parametrize("offset", [0, 6])
def test_a_final_size_below_what_was_sent_is_an_error(offset: int) -> None:
    stream = receiver()
    stream.receive(offset, b"abc", False)
    with pytest.raises(FlowControlError, match="below what it has sent"):
        stream.receive(0, b"a", True)


def test_at_most_thirty_two_ranges_are_told_lowest_first() -> None:
    stream = receiver()
    for index in range(40):
        stream.receive(1 + 2 * index, b"x", False)
    ranges = stream.sack_ranges()
    assert len(ranges) == MAX_SACK_RANGES == 32
    assert ranges == [(1 + 2 * index, 2 + 2 * index) for index in range(32)]


def test_pieces_above_a_gap_are_bounded_and_the_rest_is_asked_for_again() -> None:
    stream = receiver()
    for index in range(MAX_PIECES):
        assert stream.receive(1 + 2 * index, b"x", False)
    assert not stream.receive(1 + 2 * MAX_PIECES, b"x", False)
    assert stream.buffered == MAX_PIECES
    stream.receive(0, bytes(65_536), False)
    assert stream.ack == 65_536


def test_single_bytes_do_not_cost_an_object_each() -> None:
    """Symptom: a window full of tiny messages took twenty times its size."""
    stream = receiver()
    for offset in range(0, 60_000, 2):
        stream.receive(offset, b"%02d" % (offset % 100), False)
    assert len(stream.peek()) > 4000
    assert sum(sys.getsizeof(piece) for piece in stream._ready) < 70_000
    assert take(stream) == b"".join(b"%02d" % (offset % 100) for offset in range(0, 60_000, 2))


def test_bytes_joined_behind_a_peek_do_not_change_what_it_showed() -> None:
    stream = receiver()
    stream.receive(0, b"abc", False)
    stream.consume(1)
    shown = stream.peek()
    stream.receive(3, b"def", False)
    assert bytes(shown) == b"bc"
    stream.consume(len(shown))
    assert take(stream) == b"def"


@pytest.mark.parametrize("count", [4, -1])
def test_only_what_was_shown_can_be_consumed(count: int) -> None:
    stream = receiver()
    stream.receive(0, b"abc", False)
    with pytest.raises(LocalProtocolError, match=f"{count} bytes consumed, 3 were ready"):
        stream.consume(count)
    assert (stream.edge, take(stream)) == (65_536, b"abc")


def test_consuming_nothing_changes_nothing() -> None:
    stream = receiver()
    stream.consume(0)
    assert stream.edge == 65_536


def test_a_dropped_stream_holds_nothing_and_forgives_a_late_reader() -> None:
    """Symptom: a reader that was writing to its socket while the session was aborted got an error for it."""
    stream = receiver()
    stream.receive(0, b"abc", False)
    stream.receive(9, b"xyz", False)
    stream.drop()
    assert (stream.buffered, stream.ack, stream.gap, bytes(stream.peek())) == (0, 3, False, b"")
    stream.consume(3)
    assert stream.edge == 3 + 65_536


def test_bytes_that_bridge_pieces_side_by_side_are_stored_once() -> None:
    stream = receiver()
    assert stream.receive(5, b"fg", False)
    assert stream.receive(7, b"hi", False)
    assert stream.receive(6, b"ghijkl", False)
    assert stream.buffered == 7
    assert stream.receive(0, b"abcde", False)
    assert take(stream) == b"abcdefghijkl"


def test_an_end_that_is_held_back_is_acknowledged_once_it_is_released() -> None:
    stream = StreamReceiver(INITIAL_WINDOW, holds_end=True)
    stream.receive(3, b"def", True)
    assert stream.sack_ranges() == [(3, 6)]
    stream.receive(0, b"abc", False)
    assert (stream.ack, stream.complete, stream.ended) == (6, True, False)
    assert take(stream) == b"abcdef"
    assert (stream.drained, stream.ack, stream.handed_over) == (True, 6, 7)
    stream.release_end()
    assert (stream.ack, stream.ended) == (7, True)
