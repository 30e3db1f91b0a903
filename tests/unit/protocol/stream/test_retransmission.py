"""The retransmission timer (RFC 6298 section 2; docs/protocol.md section 4.4)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.stream.retransmission import RetransmissionTimer


def expires(timer: RetransmissionTimer) -> float | None:
    return timer.expires_at


def test_it_begins_at_three_seconds() -> None:
    timer = RetransmissionTimer()
    assert (timer.timeout, timer.rtt, timer.expires_at) == (3.0, None, None)


def test_samples_are_smoothed_as_the_rfc_says() -> None:
    timer = RetransmissionTimer()
    timer.sample(2.0)  # SRTT = 2, RTTVAR = 1
    assert (timer.rtt, timer.timeout) == (2.0, 6.0)
    timer.sample(4.0)  # RTTVAR = 3/4 * 1 + 1/4 * 2 = 1.25, SRTT = 7/8 * 2 + 1/8 * 4 = 2.25
    assert (timer.rtt, timer.timeout) == (2.25, 7.25)


@pytest.mark.parametrize(("sample", "timeout"), [(0.0, 1.0), (0.01, 1.0), (0.4, 1.2), (100.0, 60.0)])
def test_it_stays_between_one_second_and_sixty(sample: float, timeout: float) -> None:
    timer = RetransmissionTimer()
    timer.sample(sample)
    assert timer.timeout == pytest.approx(timeout)


def test_it_doubles_at_each_end_up_to_sixty_seconds_and_is_restored() -> None:
    timer = RetransmissionTimer()
    waits = []
    for _ in range(7):
        timer.run(True, 100.0)
        assert timer.expires_at is not None
        waits.append(timer.expires_at - 100.0)
        timer.on_expiry()
        assert timer.expires_at is None
    assert waits == [3, 6, 12, 24, 48, 60, 60]
    for _ in range(2000):
        timer.on_expiry()  # never overflows
    timer.on_ack()
    assert (timer.timeout, timer.expires_at) == (3.0, None)


def test_it_runs_while_something_is_outstanding() -> None:
    timer = RetransmissionTimer()
    timer.run(False, 10.0)
    assert expires(timer) is None
    timer.run(True, 10.0)
    timer.run(True, 12.0)
    assert expires(timer) == 13.0
    timer.run(False, 12.5)
    assert expires(timer) is None


def test_it_may_count_from_the_past_but_ends_no_earlier_than_now() -> None:
    timer = RetransmissionTimer()
    timer.start(8.0, 10.0)
    assert expires(timer) == 11.0
    timer.start(2.0, 10.0)
    assert expires(timer) == 10.0
