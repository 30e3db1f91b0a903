"""One time budget carried through several steps."""

from __future__ import annotations

import threading

from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from tests.helpers.clock import Clock
from tests.helpers.patience import HANG, wait_until


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


def test_a_nearer_deadline_is_on_the_same_clock_and_never_later() -> None:
    clock = Clock()
    deadline = Deadline(2.0, lambda: clock.now)
    near, far, endless = deadline.within(1.0), deadline.within(3.0), Deadline(None, lambda: clock.now)
    clock.advance(1.0)
    assert (near.passed(), far.passed(), far.remaining()) == (True, False, 1.0)
    assert endless.within(3.0).remaining() == 3.0


def test_a_negative_timeout_has_passed_already() -> None:
    deadline = Deadline(-1.0, lambda: 5.0)
    assert deadline.passed()
    assert deadline.remaining() == 0.0


def test_waiting_ends_when_the_event_is_set_or_the_time_is_up() -> None:
    event = threading.Event()
    Deadline(0.01).wait(event)
    assert not event.is_set()
    event.set()
    Deadline(None).wait(event)


def test_an_abort_wakes_whoever_waits_and_the_time_is_up_for_good() -> None:
    deadline = AbortableDeadline(None)
    waiting = threading.Thread(target=deadline.wait, args=(threading.Event(),))
    waiting.start()
    wait_until(lambda: deadline._awaited, "the thread waits")
    deadline.abort()
    waiting.join(HANG)
    assert not waiting.is_alive()
    assert (deadline.passed(), deadline.remaining()) == (True, 0.0)
    deadline.wait(threading.Event())  # at once


def test_an_abort_never_moves_a_deadline_back() -> None:
    clock = Clock(100.0)
    deadline = AbortableDeadline(1.0, lambda: clock.now)
    clock.advance(5.0)
    deadline.abort()
    clock.now = 103.0
    assert deadline.passed()


def test_whoever_waits_for_a_socket_until_an_abort_has_to_look_often() -> None:
    deadline = AbortableDeadline(None)
    looks = [deadline.cap(None), deadline.cap(100.0)]
    assert all(look is not None and 0 < look < 1 for look in looks)
    assert deadline.cap(0.01) == 0.01
    deadline.abort()
    assert deadline.cap(None) == 0.0


def test_behind_an_abort_there_is_time_for_a_farewell_but_not_behind_the_end() -> None:
    clock = Clock(100.0)
    deadline = AbortableDeadline(1.0, lambda: clock.now)
    assert deadline.within(5.0).remaining() == 1.0
    deadline.abort()
    assert deadline.within(5.0).remaining() == 5.0
    late = AbortableDeadline(0.0, lambda: clock.now)
    assert late.within(5.0).remaining() == 0.0
