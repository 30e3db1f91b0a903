"""The waits between attempts (docs/protocol.md section 5.2)."""

from __future__ import annotations

import itertools
import random

import pytest

from emissary_lib.transport.backoff import back_off, may_pass, wait
from emissary_lib.transport.deadline import AbortableDeadline


@pytest.mark.parametrize(("drawn", "factor"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)])
def test_a_wait_doubles_up_to_the_longest_and_is_drawn_around_that(drawn: float, factor: float) -> None:
    waits = list(itertools.islice(back_off(lambda: drawn), 7))
    assert waits == pytest.approx([factor * wait for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)])


def test_the_first_wait_may_be_as_long_as_any() -> None:
    waits = itertools.islice(back_off(lambda: 0.5, at_longest=True), 3)
    assert list(waits) == pytest.approx([2.0, 2.0, 2.0])


def test_two_that_were_cut_off_together_do_not_come_back_together() -> None:
    assert len({next(back_off()) for _ in range(10)}) == 10


def test_a_draw_leaves_the_programs_own_random_numbers_alone() -> None:
    """Symptom: hypothesis complained of a tunnel that came back while a strategy was drawing."""
    before = random.getstate()
    next(back_off())
    assert random.getstate() == before


def test_only_what_is_throttled_or_broken_may_pass() -> None:
    statuses = (400, 401, 403, 404, 409, 410, 429, 500, 502, 503, 504)
    assert [status for status in statuses if may_pass(status)] == [429, 500, 502, 503, 504]


def test_a_pause_ends_soon_once_the_deadline_is_brought_forward() -> None:
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            deadline.abort()

    slept: list[float] = []
    deadline = AbortableDeadline(None)
    wait(100.0, deadline, ValueError(), sleep=sleep)
    assert len(slept) == 3
    assert max(slept) < 1
