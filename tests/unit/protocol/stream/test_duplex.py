"""Sender, receiver, timer, cap and pause working together (docs/protocol.md section 4)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.constants import DEFAULT_CAPACITY, INITIAL_WINDOW, MAX_PAYLOAD
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.stream.congestion import CongestionWindow, InFlightGate, OpenGate
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.stream.duplex import Duplex, Sending, StreamConfig

WIDE = 1 << 21


class CountingGate:
    """A shared budget of a few places."""

    def __init__(self, free: int) -> None:
        self.free = free

    def acquire(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    def release(self, count: int) -> None:
        self.free += count


def duplex(
    *, cap: tuple[int, int] = (4, 16), gate: InFlightGate | None = None, capacity: int = DEFAULT_CAPACITY
) -> Duplex:
    streams = StreamConfig(capacity=capacity, peer_window=WIDE)
    return Duplex(streams, CongestionWindow(*cap), gate or OpenGate(), Counters())


def send(made: Duplex, now: float, limit: int = MAX_PAYLOAD) -> list[Sending]:
    """What a driver sends: the bytes that may go, and the timer set."""
    sendings = made.sendings(limit, limit, now)
    made.run_timer(now)
    return sendings


def offsets(sendings: list[Sending]) -> list[int]:
    return [sending.offset for sending in sendings]


def test_a_capacity_below_the_first_window_is_refused() -> None:
    with pytest.raises(ValueError, match="a capacity of 65535 bytes is below 65536"):
        StreamConfig(capacity=INITIAL_WINDOW - 1)


def test_a_capacity_that_no_window_field_can_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="a capacity of 4294967296 bytes is over 4294967295"):
        StreamConfig(capacity=1 << 32)


def test_the_cap_holds_frames_back_and_the_last_one_asks_for_an_acknowledgement() -> None:
    made = duplex(cap=(3, 16))
    made.sender.write(bytes(10 * 100))
    first = send(made, 0.0, limit=100)
    assert [(one.offset, len(one.data), one.ack_now) for one in first] == [
        (0, 100, False),
        (100, 100, False),
        (200, 100, True),
    ]
    assert send(made, 0.0, limit=100) == []
    made.acknowledge(300, WIDE, [], 0.1)
    assert offsets(send(made, 0.1, limit=100)) == [300, 400, 500, 600, 700, 800]  # the cap doubled


def test_a_small_frame_goes_alone_without_asking_and_the_second_asks() -> None:
    made = duplex()
    sent = []
    for byte in (b"a", b"b", b"c", b"d"):
        made.sender.write(byte)
        sent += send(made, 0.0)
    assert sent == [Sending(0, b"a", False, False), Sending(1, b"b", False, True)]
    made.acknowledge(1, WIDE, [], 0.1)
    assert send(made, 0.1) == [Sending(2, b"cd", False, False)]  # one question at a time
    made.acknowledge(2, WIDE, [], 0.2)
    made.sender.write(b"e")
    assert send(made, 0.2) == [Sending(4, b"e", False, True)]


def test_a_frame_lost_under_a_steady_trickle_is_sent_again() -> None:
    """Symptom: SACKs of later bytes restarted the timer for ever, and the reader starved behind the gap."""
    made = duplex()
    made.sender.write(b"x")
    send(made, 0.0)
    for tick in range(1, 100):
        now = tick * 0.5
        timeout = made.next_timeout()
        assert timeout is not None
        if timeout <= now:
            made.handle_timeout(timeout)
            assert offsets(send(made, timeout)) == [0]
            assert timeout <= 3.0
            return
        made.sender.write(b"y")
        send(made, now)
        made.acknowledge(0, WIDE, [(1, tick + 1)], now + 0.01)
        made.run_timer(now + 0.01)
    pytest.fail("the frame was never sent again")


def test_a_timer_that_ran_for_waiting_data_does_not_call_a_young_frame_lost() -> None:
    """Symptom: what went out just before the timer of a shut window ran out was resent and halved the cap."""
    gate = CountingGate(0)
    made = duplex(gate=gate)
    made.sender.write(b"x")
    assert send(made, 0.0) == []
    assert made.next_timeout() == 3.0
    gate.release(1)
    assert offsets(send(made, 2.9)) == [0]
    made.handle_timeout(3.0)
    assert send(made, 3.0) == []
    assert made.next_timeout() == pytest.approx(5.9)
    made.handle_timeout(5.9)
    assert offsets(send(made, 5.9)) == [0]


def test_waiting_for_a_place_in_a_shared_budget_does_not_slow_the_timer() -> None:
    gate = CountingGate(0)
    made = duplex(gate=gate)
    made.sender.write(b"x")
    send(made, 0.0)
    for _ in range(5):
        at = made.next_timeout()
        assert at is not None
        made.handle_timeout(at)
        assert send(made, at) == []
        assert made.next_timeout() == at + 3.0


def test_places_in_a_shared_budget_come_back_with_acknowledgement_loss_and_end() -> None:
    gate = CountingGate(3)
    made = duplex(gate=gate)
    made.sender.write(bytes(500))
    assert len(send(made, 0.0, limit=100)) == 3
    made.acknowledge(100, WIDE, [], 0.1)
    assert gate.free == 1
    assert len(send(made, 0.1, limit=100)) == 1
    made.message_refused(0.2)
    assert gate.free == 1
    made.stop(drop_received=True)
    assert gate.free == 3


def test_a_place_that_could_not_be_used_is_given_back() -> None:
    gate = CountingGate(5)
    made = duplex(gate=gate)
    for _ in range(3):
        made.sender.write(b"x")
        send(made, 0.0)
    assert gate.free == 3


def test_a_shut_window_is_probed_ever_more_rarely_up_to_once_a_minute() -> None:
    made = duplex()
    made.sender.write(bytes(1000))
    send(made, 0.0)
    made.acknowledge(1000, 0, [], 0.0)
    shut = Duplex(StreamConfig(), CongestionWindow(4, 16), OpenGate(), Counters())
    shut.sender.write(bytes(INITIAL_WINDOW + 1))
    send(shut, 0.0)
    shut.acknowledge(INITIAL_WINDOW, 0, [], 0.0)
    waits, last = [], 0.0
    assert send(shut, 0.0) == []
    for _ in range(9):
        at = shut.next_timeout()
        assert at is not None
        shut.handle_timeout(at)
        assert send(shut, at) == [Sending(INITIAL_WINDOW, b"", False, True)]
        waits.append(at - last)
        last = at
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    # Symptom: the first frame through the opened window was watched with the probes' timer, a minute long.
    shut.acknowledge(INITIAL_WINDOW, 100, [], last + 1)
    assert send(shut, last + 1) == [Sending(INITIAL_WINDOW, b"\0", False, False)]
    assert shut.next_timeout() == last + 2


def test_nothing_is_sent_during_the_pause_after_a_gateway_error() -> None:
    made = duplex(cap=(8, 16))
    made.sender.write(bytes(300))
    assert offsets(send(made, 0.0, limit=100)) == [0, 100, 200]
    made.message_refused(0.5)
    assert send(made, 0.55, limit=100) == []
    assert made.next_timeout() == pytest.approx(0.6)
    assert offsets(send(made, 0.6, limit=100)) == [0]


def test_a_window_probe_waits_for_the_end_of_the_pause() -> None:
    made = Duplex(StreamConfig(), CongestionWindow(4, 16), OpenGate(), Counters())
    made.sender.write(bytes(INITIAL_WINDOW + 1))
    send(made, 0.0)
    made.acknowledge(INITIAL_WINDOW, 0, [], 0.0)
    send(made, 0.0)
    made.message_refused(0.95)
    made.handle_timeout(1.0)
    assert send(made, 1.0) == []
    assert offsets(send(made, 1.06)) == [INITIAL_WINDOW]


def test_an_error_halves_the_cap_once_for_each_pause() -> None:
    made = duplex(cap=(8, 16))
    made.sender.write(bytes(2000))
    assert len(send(made, 0.0, limit=100)) == 8
    for at in (0.5, 0.51, 0.59):
        made.message_refused(at)
    made.acknowledge(800, WIDE, [], 0.7)
    assert len(send(made, 0.7, limit=100)) == 5  # halved to 4, one more for a cap's worth


def test_at_the_timers_end_every_old_frame_is_lost_and_sacked_ones_are_not() -> None:
    made = duplex(cap=(8, 16))
    made.sender.write(bytes(400))
    send(made, 0.0, limit=100)
    made.acknowledge(0, WIDE, [(100, 200)], 0.1)
    made.run_timer(0.1)
    at = made.next_timeout()
    assert at == 1.0  # the least timer after the oldest frame, though something was just SACKed
    made.handle_timeout(at)
    assert offsets(send(made, at, limit=100)) == [0, 200, 300]


def test_an_acknowledgement_of_what_was_never_sent_is_an_error() -> None:
    made = duplex()
    made.sender.write(b"abc")
    send(made, 0.0)
    with pytest.raises(RemoteProtocolError, match="the peer acknowledged 4, only 3 was sent"):
        made.acknowledge(4, WIDE, [], 0.1)


def test_a_timer_runs_while_anything_is_outstanding_and_stops_after() -> None:
    made = duplex()
    assert made.next_timeout() is None
    made.sender.write(b"x")
    send(made, 0.0)
    assert made.next_timeout() == 3.0
    made.acknowledge(1, WIDE, [], 0.1)
    made.run_timer(0.1)
    assert made.next_timeout() is None


def test_an_acknowledgement_that_moves_on_starts_the_timer_afresh() -> None:
    made = duplex()
    made.sender.write(bytes(300))
    send(made, 0.0, limit=100)
    made.acknowledge(100, WIDE, [], 0.4)
    made.run_timer(0.4)
    assert made.next_timeout() == pytest.approx(0.4 + 1.2)  # SRTT 0.4, RTTVAR 0.2


def test_the_timers_end_halves_the_cap() -> None:
    made = duplex(cap=(4, 16))
    made.sender.write(bytes(1000))
    assert len(send(made, 0.0, limit=100)) == 4
    made.handle_timeout(3.0)
    assert offsets(send(made, 3.0, limit=100)) == [0, 100]
    made.handle_timeout(9.0)
    assert offsets(send(made, 9.0, limit=100)) == [0]


def test_an_end_is_acknowledged_once_it_is_released_and_progress_before_that_is_told() -> None:
    streams = StreamConfig(peer_window=WIDE, holds_end=True)
    made = Duplex(streams, CongestionWindow(4, 16), OpenGate(), Counters())
    made.release_end(0.0)  # too early: there is none yet
    made.receive(0, b"abcdef", fin=True, ack_now=False, now=1.0)
    assert made.ack_due(1.0)
    assert made.position(1.0, sacks=True)[0] == 6
    made.consume(3, 2.0)
    assert (made.ack_due(2.4), made.ack_due(2.5)) == (False, True)
    made.position(2.5, sacks=True)
    made.consume(3, 3.0)
    assert not made.complete
    made.release_end(3.1)
    assert made.ack_due(3.1)
    assert made.position(3.1, sacks=True)[0] == 7
    made.release_end(3.2)
    assert not made.ack_due(9.0)


def test_a_fin_that_is_not_acknowledged_gives_its_place_in_a_shared_budget_back() -> None:
    gate = CountingGate(2)
    made = duplex(gate=gate)
    made.sender.write(b"a" * 10)
    made.sender.write_eof()
    send(made, 0.0)
    assert gate.free == 1
    made.acknowledge(10, WIDE, [], 0.1)
    assert gate.free == 2
    assert send(made, 0.1) == []
    made.handle_timeout(made.next_timeout() or 0.0)
    assert offsets(send(made, 9.0)) == [10]
    assert gate.free == 1
    made.acknowledge(10, WIDE, [], 9.1)
    assert gate.free == 2
