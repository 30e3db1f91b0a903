"""Retries, back-off and age of asynchronous invocations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from emissary_local.errors import UnknownFunctionError
from emissary_local.faults import FaultEngine, Faults
from emissary_local.lambda_.async_queue import AsyncQueue
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.template import FunctionSpec

OK, FAILED = InvocationStatus.OK, InvocationStatus.FUNCTION_ERROR
TIMEOUT, THROTTLED = InvocationStatus.TIMEOUT, InvocationStatus.THROTTLED


class Runner:
    """Answers with the given statuses in turn, the last one for ever; notes when it was asked."""

    def __init__(self, statuses: Sequence[InvocationStatus]) -> None:
        self.statuses = list(statuses)
        self.times: list[float] = []
        self.payloads: list[bytes] = []

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        self.times.append(asyncio.get_running_loop().time())
        self.payloads.append(payload)
        return InvocationResult(self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])


def attempts(statuses: Sequence[InvocationStatus], *, retries: int, age: float, scale: float) -> Runner:
    """Queue one event and let it run to its end."""
    runner = Runner(statuses)
    spec = FunctionSpec(
        "F", "f", "arn", "a.b", "python3.13", Path(), 3.0, 128, {}, retry_attempts=retries, event_age=age
    )

    async def body() -> None:
        queue = AsyncQueue({"F": spec}, runner, time_scale=scale)
        assert (await queue.enqueue("F", b"event")).status is InvocationStatus.QUEUED
        assert runner.times == [], "the caller does not wait for the function"
        async with asyncio.timeout(10):
            await asyncio.gather(*queue._tasks)
        await queue.close()

    asyncio.run(body())
    return runner


def test_event_that_succeeds_runs_once() -> None:
    runner = attempts([OK], retries=2, age=21_600, scale=1.0)
    assert runner.payloads == [b"event"]


@pytest.mark.parametrize("failure", [FAILED, TIMEOUT])
def test_failure_is_retried_after_one_and_two_minutes(failure: InvocationStatus) -> None:
    scale = 0.0005  # a minute is 30 ms
    times = attempts([failure], retries=2, age=21_600, scale=scale).times
    assert len(times) == 3
    assert times[1] - times[0] >= 60 * scale
    assert times[2] - times[1] >= 120 * scale


def test_no_retry_is_made_when_the_template_says_none() -> None:
    assert len(attempts([FAILED], retries=0, age=21_600, scale=0.0001).times) == 1


def test_throttled_event_backs_off_from_one_second_until_it_runs() -> None:
    scale = 0.01
    times = attempts([THROTTLED, THROTTLED, THROTTLED, OK], retries=0, age=60, scale=scale).times
    assert len(times) == 4
    for earlier, later, pause in zip(times, times[1:], (1, 2, 4), strict=False):
        assert later - earlier >= pause * scale


def test_throttled_event_is_dropped_at_its_age() -> None:
    # Pauses of 1, 2 and 4 s fit into 10 s; the next, of 8 s, does not.
    assert len(attempts([THROTTLED], retries=2, age=10, scale=0.005).times) == 4


def test_unknown_function_is_refused() -> None:
    async def body() -> None:
        await AsyncQueue({}, Runner([OK])).enqueue("F", b"")

    with pytest.raises(UnknownFunctionError, match="'F'"):
        asyncio.run(body())


def test_close_drops_waiting_events() -> None:
    runner = Runner([THROTTLED])
    spec = FunctionSpec("F", "f", "arn", "a.b", "python3.13", Path(), 3.0, 128, {})

    async def body() -> None:
        queue = AsyncQueue({"F": spec}, runner)
        await queue.enqueue("F", b"")
        while not runner.times:
            await asyncio.sleep(0)
        await asyncio.wait_for(queue.close(), 5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(body())


def test_a_duplicated_event_runs_twice_the_second_time_later() -> None:
    async def body() -> list[float]:
        runner = Runner([OK])
        faults = FaultEngine(Faults(seed=2, duplicate_invoke=1.0, duplicate_invoke_seconds=0.2))
        spec = FunctionSpec("F", "f", "arn", "a.b", "python3.13", Path(), 3.0, 128, {})
        queue = AsyncQueue({"F": spec}, runner, faults=faults)
        await queue.enqueue("F", b"{}")
        async with asyncio.timeout(5):
            while len(runner.times) < 2:
                await asyncio.sleep(0.002)
        await queue.close()
        assert faults.met == {"duplicate_invoke": 1}
        return runner.times

    first, second = asyncio.run(body())
    assert second - first > 0.01
