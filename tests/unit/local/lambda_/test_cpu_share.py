"""How much of a processor an environment gets: what it has earned, and one period's share at once."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_local.lambda_.cpu_share import LOOK_EVERY, PERIOD, CpuBudget, CpuThrottle, cpu_seconds
from tests.helpers.virtual_time import run_ahead


def test_a_process_within_its_share_never_stands_still() -> None:
    budget = CpuBudget(0.25, used=3.0, now=100.0)
    assert budget.pause(3.0 + 0.25 * PERIOD, 100.0) == 0.0
    assert [budget.pause(3.005 + 0.01 * n, 100.0 + 0.04 * n) for n in range(1, 9)] == pytest.approx([0.0] * 8)


def test_what_was_used_too_early_is_paid_for_in_time() -> None:
    budget = CpuBudget(0.25, used=0.0, now=0.0)
    assert budget.pause(0.105, 0.1) == pytest.approx(0.3)
    assert budget.pause(0.105, 0.3) == pytest.approx(0.1)
    assert budget.pause(0.105, 0.4) == pytest.approx(0.0)


def test_what_was_not_used_is_not_saved_up() -> None:
    budget = CpuBudget(0.5, used=0.0, now=0.0)
    assert budget.pause(0.0, 3600.0) == 0.0
    assert budget.pause(0.5 * PERIOD, 3600.0) == 0.0
    assert budget.pause(0.5 * PERIOD + 0.01, 3600.0) == pytest.approx(0.02)


def test_more_than_one_processor_is_a_share_like_any_other() -> None:
    budget = CpuBudget(2.0, used=0.0, now=0.0)
    assert budget.pause(2.0 * PERIOD + 0.3, 0.1) == pytest.approx(0.05)  # 0.1 s have earned 0.2


@given(
    share=st.floats(0.05, 4.0),
    steps=st.lists(st.tuples(st.floats(0.0, 0.1), st.floats(0.0, 0.1)), min_size=1, max_size=40),
)
def test_whoever_stands_still_as_long_as_told_uses_no_more_than_the_share(
    share: float, steps: list[tuple[float, float]]
) -> None:
    """But for one period's quota at once, and for what was used between the last two looks."""
    budget, used, now, last = CpuBudget(share, used=0.0, now=0.0), 0.0, 0.0, 0.0
    for work, wait in steps:
        now += max(work, wait)
        last = work
        used += work
        now += budget.pause(used, now)
    assert used <= share * (now + PERIOD) + last + 1e-9
    assert budget.pause(used, now) == pytest.approx(0.0, abs=1e-9)


class Process:
    """A process that uses a whole processor while it runs, on the clock of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._used = 0.0
        self._since: float | None = self._loop.time()

    def used(self) -> float:
        return self._used + (0.0 if self._since is None else self._loop.time() - self._since)

    def stop(self) -> None:
        self._used, self._since = self.used(), None

    def go(self) -> None:
        assert self._since is None, "it runs already"
        self._since = self._loop.time()


def test_a_process_that_is_always_busy_runs_for_its_share_of_the_time() -> None:
    async def scenario() -> float:
        process = Process()
        throttle = CpuThrottle(0.25, process.used, process.stop, process.go)
        throttle.begin()
        await asyncio.sleep(10.0)
        throttle.end()
        return process.used()

    assert run_ahead(scenario()) == pytest.approx(2.5, abs=0.25 * PERIOD + LOOK_EVERY)


def test_a_process_that_is_frozen_is_left_alone_and_owes_what_it_owed() -> None:
    async def scenario() -> list[float]:
        process = Process()
        throttle = CpuThrottle(0.1, process.used, process.stop, process.go)
        throttle.begin()
        await asyncio.sleep(LOOK_EVERY / 2)
        await asyncio.sleep(LOOK_EVERY / 2 + 0.099)  # it was late, and is seen at the second look
        found = [process.used()]
        throttle.end()
        throttle.end()
        process.stop()
        await asyncio.sleep(0.001)
        process.go()
        throttle.begin()  # the next invocation
        await asyncio.sleep(0.0)
        found.append(process.used())
        await asyncio.sleep(10.0)
        throttle.end()
        found.append(process.used())
        return found

    first, second, last = run_ahead(scenario())
    assert second == first, "it may not run before it has paid"
    assert last == pytest.approx(1.0, abs=0.02)


def test_the_time_of_a_process_is_that_of_all_its_threads() -> None:
    before = cpu_seconds(os.getpid())
    while time.process_time() < before + 0.001:
        pass
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.5)
    assert cpu_seconds(os.getpid()) > before
    assert cpu_seconds(2**22) == 0.0
