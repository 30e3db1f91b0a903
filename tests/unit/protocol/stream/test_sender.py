"""The sending half of a stream (docs/protocol.md section 4)."""

from __future__ import annotations

import sys

import pytest

from emissary_lib.protocol.constants import INITIAL_WINDOW
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.stream.sender import Segment, StreamSender

CAPACITY = 200_000


def sender(*, window: int = 1 << 20, start: int = 0) -> StreamSender:
    made = StreamSender(CAPACITY, start=start)
    made.receive_window(start, window)
    return made


def drain(made: StreamSender, limit: int = 100, now: float = 0.0) -> list[Segment]:
    found = []
    while (segment := made.next_segment(limit, now)) is not None:
        found.append(segment)
    return found


def shape(segments: list[Segment]) -> list[tuple[int, int, bool]]:
    return [(segment.offset, len(segment.data), segment.fin) for segment in segments]


def test_a_fresh_sender_has_nothing_to_do() -> None:
    made = StreamSender(CAPACITY)
    assert (made.room, made.buffered, made.credit, made.next_offset) == (CAPACITY, 0, INITIAL_WINDOW, 0)
    assert (made.outstanding, made.waiting, made.complete, made.eof, made.fin_sent) == (False,) * 5
    assert made.in_flight_since is None
    assert drain(made) == []


def test_bytes_are_cut_to_frames_and_the_rest_is_a_small_one() -> None:
    made = sender()
    assert made.write(b"a" * 100 + b"b" * 100 + b"c" * 10) == 210
    segments = drain(made)
    assert [(one.offset, bytes(one.data[:1]), one.small) for one in segments] == [
        (0, b"a", False),
        (100, b"b", False),
        (200, b"c", True),
    ]
    assert (made.unsent, made.buffered, made.next_offset, made.in_flight) == (0, 210, 210, 3)


def test_one_frame_joins_many_writes() -> None:
    made = sender()
    for byte in b"hello":
        made.write(bytes([byte]))
    (segment,) = drain(made)
    assert segment.data == b"hello"


def test_writing_takes_what_fits_and_no_more() -> None:
    made = sender()
    assert made.write(bytes(CAPACITY - 1)) == CAPACITY - 1
    assert made.write(b"xy") == 1
    assert (made.write(b"z"), made.write(b""), made.room) == (0, 0, 0)
    drain(made, limit=94_476)
    assert made.room == 0
    made.receive_ack(94_476, [], 0.0)
    assert made.room == 94_476


def test_a_long_write_comes_out_whole() -> None:
    made = sender()
    content = bytes(index % 251 for index in range(CAPACITY))
    made.write(content)
    assert b"".join(segment.data for segment in drain(made, limit=777)) == content


def test_single_bytes_do_not_cost_an_object_each() -> None:
    made = StreamSender(CAPACITY)
    for _ in range(30_000):
        made.write(b"xy")
    assert sum(sys.getsizeof(piece) for piece in made._unsent) < 70_000


def test_writing_after_the_end_is_a_bug_of_this_side() -> None:
    made = sender()
    made.write_eof()
    assert made.room == 0
    with pytest.raises(LocalProtocolError, match="write after the end of the stream"):
        made.write(b"x")


def test_the_fin_rides_on_the_last_bytes() -> None:
    made = sender()
    made.write(bytes(150))
    made.write_eof()
    made.write_eof()
    assert shape(drain(made)) == [(0, 100, False), (100, 50, True)]
    assert (made.next_offset, made.fin_sent, made.complete) == (151, True, False)
    made.receive_ack(150, [], 0.0)
    assert (made.complete, made.outstanding) == (False, True)
    made.receive_ack(151, [], 0.0)
    assert (made.complete, made.outstanding, made.in_flight) == (True, False, 0)


def test_a_late_fin_is_a_frame_of_its_own() -> None:
    made = sender(window=0)
    made.write(b"x")
    drain(made)
    made.write_eof()
    assert made.waiting
    assert shape(drain(made)) == [(1, 0, True)]


def test_a_fin_does_not_wait_for_credit_but_for_the_bytes_before_it() -> None:
    made = StreamSender(CAPACITY)
    made.write(bytes(INITIAL_WINDOW + 10))
    made.write_eof()
    assert shape(drain(made, limit=INITIAL_WINDOW)) == [(0, INITIAL_WINDOW, False)]
    made.receive_ack(INITIAL_WINDOW, [], 0.0)
    assert drain(made) == []
    made.receive_window(INITIAL_WINDOW, 10)
    assert shape(drain(made)) == [(INITIAL_WINDOW, 10, True)]


def test_the_edge_never_moves_back() -> None:
    made = StreamSender(CAPACITY)
    assert not made.receive_window(0, 10)
    assert made.credit == INITIAL_WINDOW
    assert made.receive_window(0, INITIAL_WINDOW + 1)
    assert not made.receive_window(5, 0)
    assert made.credit == INITIAL_WINDOW + 1


def test_two_small_frames_fly_and_the_third_waits_for_either() -> None:
    made = sender()
    for _ in range(2):
        made.write(b"x")
        assert len(drain(made)) == 1
    made.write(b"y")
    assert drain(made) == []
    made.write(bytes(99))
    assert shape(drain(made)) == [(2, 100, False)]  # a full one goes
    made.write(b"z")
    made.receive_ack(0, [(1, 2)], 0.0)
    assert shape(drain(made)) == [(102, 1, False)]


def test_a_sliver_of_credit_is_used_only_when_nothing_flies() -> None:
    made = StreamSender(CAPACITY)
    made.write(bytes(INITIAL_WINDOW + 100))
    drain(made, limit=INITIAL_WINDOW)
    made.receive_window(0, INITIAL_WINDOW + 10)
    assert drain(made) == []
    made.receive_ack(INITIAL_WINDOW, [], 0.0)
    assert shape(drain(made)) == [(INITIAL_WINDOW, 10, False)]


def test_sacked_frames_leave_flight_but_stay_until_the_gap_closes() -> None:
    made = sender()
    made.write(bytes(400))
    drain(made)
    acked = made.receive_ack(0, [(100, 200), (300, 400)], 1.0)
    assert (len(acked.segments), made.in_flight, made.buffered) == (2, 2, 400)
    again = made.receive_ack(0, [(100, 200), (300, 400)], 1.0)
    assert (len(again.segments), made.in_flight) == (0, 2)
    acked = made.receive_ack(200, [(300, 400)], 1.0)
    assert (len(acked.segments), made.in_flight, made.buffered) == (1, 1, 200)
    made.receive_ack(400, [], 1.0)
    assert (made.in_flight, made.buffered, made.outstanding) == (0, 0, False)


def kept(made: StreamSender) -> int:
    """Objects held for what was sent and not acknowledged: each acknowledgement looks at all of them."""
    return len(made._segments) + len(made._sacked)


def test_frames_above_a_gap_that_is_never_filled_are_kept_as_one_span() -> None:
    """A peer that SACKs all but the first byte cost their memory, and a pass over them with each ACK."""
    made = sender()
    made.write(b"x")
    drain(made)
    most = 0
    for offset in range(1, 5_000):
        made.write(b"x")
        assert shape(drain(made)) == [(offset, 1, False)]
        assert len(made.receive_ack(0, [(1, offset + 1)], 1.0).segments) == 1
        most = max(most, kept(made))
    assert most == 2
    assert (made.buffered, made.in_flight, made.in_flight_since) == (5_000, 1, 0.0)
    assert len(made.receive_ack(5_000, [], 2.0).segments) == 1
    assert (made.buffered, made.outstanding, kept(made)) == (0, False, 0)


def test_spans_above_gaps_are_as_many_as_the_gaps_whatever_their_order() -> None:
    made = sender()
    made.write(bytes(1_000))
    drain(made)
    for start in (700, 200, 400, 900, 600, 100):
        assert len(made.receive_ack(0, [(start, start + 100)], 1.0).segments) == 1
    assert (kept(made), made.in_flight, made.buffered) == (4 + 4, 4, 1_000)
    assert len(made.receive_ack(0, [(100, 900)], 1.0).segments) == 3
    assert (kept(made), made.buffered) == (1 + 1, 1_000)
    assert len(made.receive_ack(1_000, [], 1.0).segments) == 1
    assert (kept(made), made.buffered, made.outstanding) == (0, 0, False)


def test_a_stream_whose_frames_are_all_sacked_is_not_complete_before_they_are_acknowledged() -> None:
    made = sender()
    made.write(bytes(100))
    made.write_eof()
    drain(made)
    assert len(made.receive_ack(0, [(0, 101)], 1.0).segments) == 1
    assert (made.complete, made.outstanding, made.waiting, made.in_flight_since) == (False, True, False, None)
    made.receive_ack(101, [], 1.0)
    assert (made.complete, made.outstanding, made.buffered) == (True, False, 0)


def test_a_range_covers_whole_frames_only() -> None:
    made = sender()
    made.write(bytes(300))
    drain(made)
    assert len(made.receive_ack(0, [(101, 300)], 1.0).segments) == 1
    assert len(made.receive_ack(0, [(50, 90), (100, 199)], 1.0).segments) == 0


def test_an_acknowledgement_within_a_frame_keeps_the_frame() -> None:
    made = sender()
    made.write(bytes(100))
    drain(made)
    assert len(made.receive_ack(50, [], 1.0).segments) == 0
    assert (made.acked, made.buffered, made.in_flight) == (50, 100, 1)


def test_an_older_acknowledgement_is_old_news() -> None:
    made = sender()
    made.write(bytes(200))
    drain(made)
    made.receive_ack(200, [], 1.0)
    assert len(made.receive_ack(100, [(150, 200)], 2.0).segments) == 0
    assert made.acked == 200


@pytest.mark.parametrize(("ack", "ranges"), [(101, []), (0, [(50, 101)])])
def test_acknowledging_what_was_never_sent_is_an_error(ack: int, ranges: list[tuple[int, int]]) -> None:
    made = sender()
    made.write(bytes(150))
    made.next_segment(100, 0.0)
    with pytest.raises(RemoteProtocolError, match="the peer acknowledged 101, only 100 was sent"):
        made.receive_ack(ack, ranges, 1.0)


@pytest.mark.parametrize("size", [40, 5000])
def test_what_was_shown_may_be_acknowledged_before_it_is_sent_and_then_is_not(size: int) -> None:
    """Symptom: a relay launched at the door was quicker than a dialer that had to wait before it sent."""
    made = sender()
    made.write(b"s" * size)
    made.show()
    made.write(b"u" * 5000)
    with pytest.raises(RemoteProtocolError, match=f"acknowledged {size + 1}, only 0 was sent"):
        made.receive_ack(size + 1, [], 1.0)
    with pytest.raises(RemoteProtocolError, match=f"acknowledged {size}, only 0 was sent"):
        made.receive_ack(0, [(1, size)], 1.0)
    acked = made.receive_ack(size - 10, [], 1.0)
    assert (acked.segments, acked.rtt) == ([], None)
    assert (made.acked, made.next_offset) == (size - 10, size - 10)
    assert (made.unsent, made.buffered, made.undelivered) == (5010, 5010, 5010)
    sent = drain(made, 10_000)
    assert (sent[0].offset, b"".join(each.data for each in sent)) == (size - 10, b"s" * 10 + b"u" * 5000)
    made.receive_ack(size + 5000, [], 2.0)
    assert (made.buffered, made.outstanding) == (0, False)


def test_whole_pieces_that_were_shown_are_passed_over() -> None:
    made = sender()
    made.write(b"s" * 5000)
    made.show()
    made.write(b"u" * 5000)
    made.receive_ack(5000, [], 1.0)
    assert b"".join(each.data for each in drain(made, 10_000)) == b"u" * 5000


def test_what_was_shown_and_sent_is_acknowledged_like_anything_else() -> None:
    made = sender()
    made.write(bytes(100))
    made.show()
    drain(made, 60)
    assert len(made.receive_ack(60, [], 1.0).segments) == 1
    assert (made.buffered, made.undelivered) == (40, 40)


def test_a_sample_comes_from_the_newest_frame_that_was_sent_once() -> None:
    made = sender()
    made.write(bytes(300))
    for now in (0.0, 1.0, 2.0):
        made.next_segment(100, now)
    assert made.receive_ack(200, [], 5.0).rtt == 4.0
    made.mark_lost(9.0, 1.0)
    made.next_segment(100, 9.0)
    assert made.receive_ack(300, [], 9.5).rtt is None


def test_only_what_has_flown_long_enough_is_lost() -> None:
    made = sender()
    made.write(bytes(300))
    for now in (0.0, 1.0, 2.0):
        made.next_segment(100, now)
    made.receive_ack(0, [(100, 200)], 2.0)
    assert made.in_flight_since == 0.0
    assert len(made.mark_lost(2.9, 1.0)) == 1
    assert (made.in_flight, made.waiting, made.in_flight_since) == (1, True, 2.0)
    assert len(made.mark_lost(3.0, 1.0)) == 1
    assert len(made.mark_lost(99.0, 1.0)) == 0
    assert shape(drain(made, now=4.0)) == [(0, 100, False), (200, 100, False)]
    assert (made.in_flight, made.waiting) == (2, False)


def test_lost_frames_go_before_new_ones() -> None:
    made = sender()
    made.write(bytes(100))
    drain(made)
    made.write(bytes(100))
    made.mark_lost(5.0, 1.0)
    assert shape(drain(made)) == [(0, 100, False), (100, 100, False)]


def test_a_lost_frame_that_arrived_after_all_is_not_resent() -> None:
    made = sender()
    made.write(bytes(200))
    drain(made)
    assert len(made.mark_lost(5.0, 1.0)) == 2
    assert len(made.receive_ack(0, [(100, 200)], 5.0).segments) == 1
    assert len(made.receive_ack(100, [], 5.0).segments) == 1
    assert (made.in_flight, made.waiting, drain(made)) == (0, False, [])


def test_only_the_oldest_frame_is_lost_to_an_error_that_names_none() -> None:
    made = sender()
    assert not made.mark_oldest_lost()
    made.write(bytes(300))
    drain(made)
    made.receive_ack(0, [(100, 200)], 0.0)
    assert made.mark_oldest_lost()
    assert not made.mark_oldest_lost()
    assert (made.in_flight, made.waiting) == (1, True)
    assert shape(drain(made)) == [(0, 100, False)]


def test_a_stream_may_start_anywhere() -> None:
    made = sender(start=1000)
    made.write(b"abc")
    assert shape(drain(made)) == [(1000, 3, False)]
    assert len(made.receive_ack(1003, [], 0.0).segments) == 1


def test_a_dropped_stream_holds_nothing_and_keeps_its_position() -> None:
    made = sender()
    made.write(bytes(250))
    made.next_segment(100, 0.0)
    made.mark_lost(9.0, 1.0)
    made.drop()
    assert (made.buffered, made.unsent, made.in_flight, made.small_in_flight, made.room) == (0, 0, 0, 0, 0)
    assert (made.waiting, made.outstanding, made.next_offset) == (False, False, 100)
    assert drain(made) == []


def test_an_error_that_names_no_frame_passes_over_what_is_sacked() -> None:
    made = sender()
    made.write(bytes(200))
    drain(made)
    made.receive_ack(0, [(0, 100)], 0.0)
    assert made.mark_oldest_lost()
    assert shape(drain(made)) == [(100, 100, False)]
    made.receive_ack(0, [(0, 200)], 0.0)
    assert not made.mark_oldest_lost()


def test_a_frame_that_was_lost_before_its_connection_is_sent_again_once() -> None:
    made = sender()
    made.write(bytes(200))
    drain(made)
    assert made.mark_oldest_lost()
    assert made.in_flight == 1
    made.mark_all_lost()
    assert (made.in_flight, made.waiting) == (0, True)
    assert shape(drain(made)) == [(0, 100, False), (100, 100, False)]
    assert (made.in_flight, made.waiting) == (2, False)


def test_a_fin_that_is_alone_unacknowledged_holds_up_nothing_and_is_sent_again() -> None:
    made = sender()
    made.write(b"a" * 10)
    drain(made)
    made.write_eof()
    (fin,) = drain(made)
    assert (made.in_flight, made.small_in_flight) == (2, 2)
    made.receive_ack(10, [], 1.0)
    assert (made.in_flight, made.small_in_flight, made.outstanding, made.complete) == (0, 0, True, False)
    made.receive_ack(10, [], 1.0)  # once more
    assert (made.in_flight, made.in_flight_since) == (0, fin.sent_at)
    assert len(made.mark_lost(5.0, 1.0)) == 1
    assert (made.in_flight, made.waiting) == (0, True)
    made.receive_ack(10, [], 5.0)
    assert shape(drain(made, now=6.0)) == [(10, 0, True)]
    assert made.in_flight == 1
    made.receive_ack(11, [], 7.0)
    assert (made.in_flight, made.small_in_flight, made.complete) == (0, 0, True)


@pytest.mark.parametrize("lost", [False, True])
def test_the_bytes_of_a_frame_whose_fin_is_not_acknowledged_are_not_sent_again(lost: bool) -> None:
    made = sender()
    made.write(b"a" * 10)
    made.write_eof()
    drain(made)
    if lost:
        made.mark_all_lost()
    assert len(made.receive_ack(10, [], 1.0).segments) == 1
    assert (made.buffered, made.in_flight, made.waiting, made.complete) == (0, 0, False, False)
    made.mark_lost(2.0, 1.0)
    assert shape(drain(made)) == [(10, 0, True)]
    made.receive_ack(11, [], 3.0)
    assert (made.in_flight, made.small_in_flight, made.complete) == (0, 0, True)
