"""One time budget carried through several steps."""

from __future__ import annotations

from emissary_lib.deadline import Deadline
from tests.helpers.clock import Clock


def test_what_remains_shrinks_to_zero_and_no_further() -> None:
    clock = Clock(100.0)
    deadline = Deadline(2.0, lambda: clock.now)
    assert (deadline.timeout, deadline.remaining(), deadline.passed()) == (2.0, 2.0, False)
    clock.advance(1.5)
    assert (deadline.remaining(), deadline.passed()) == (0.5, False)
    clock.advance(0.5)
    assert (deadline.remaining(), deadline.passed()) == (0.0, True)
    clock.advance(9)
    assert deadline.remaining() == 0.0


def test_without_a_timeout_it_never_passes() -> None:
    clock = Clock()
    deadline = Deadline(None, lambda: clock.now)
    clock.advance(1e9)
    assert (deadline.remaining(), deadline.passed(), deadline.cap(None)) == (None, False, None)
    assert deadline.cap(3.0) == 3.0


def test_cap_is_the_shorter_of_both() -> None:
    clock = Clock()
    deadline = Deadline(2.0, lambda: clock.now)
    assert [deadline.cap(seconds) for seconds in (None, 1.0, 3.0, 0.0)] == [2.0, 1.0, 2.0, 0.0]


def test_a_negative_timeout_has_passed_already() -> None:
    deadline = Deadline(-1.0, lambda: 5.0)
    assert deadline.passed() and deadline.remaining() == 0.0
