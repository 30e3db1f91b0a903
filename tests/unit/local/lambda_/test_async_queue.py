"""Retries, back-off and age of asynchronous invocations."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from emissary_local.errors import UnknownFunctionError
from emissary_local.faults import FaultEngine, Faults
from emissary_local.lambda_.async_queue import AsyncQueue
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import FunctionSpec
from tests.helpers.virtual_time import run_ahead

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


def attempts(statuses: Sequence[InvocationStatus], *, retries: int, age: float, scale: float = 1.0) -> Runner:
    """Queue one event and let it run to its end."""
    runner = Runner(statuses)
    spec = FunctionSpec(
        "F", "f", "arn", "a.b", "python3.13", Path(), 3.0, 128, {}, retry_attempts=retries, event_age=age
    )

    async def body() -> None:
        queue = AsyncQueue({"F": spec}, runner, time_scale=scale)
        assert (await queue.enqueue("F", b"event")).status is InvocationStatus.QUEUED
        assert runner.times == [], "the caller does not wait for the function"
        await asyncio.gather(*queue._tasks)
        await queue.close()

    run_ahead(body())
    return runner


def pauses(runner: Runner) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(runner.times)]


def test_event_that_succeeds_runs_once() -> None:
    runner = attempts([OK], retries=2, age=21_600)
    assert runner.payloads == [b"event"]


@pytest.mark.parametrize("failure", [FAILED, TIMEOUT])
def test_failure_is_retried_after_one_and_two_minutes(failure: InvocationStatus) -> None:
    assert pauses(attempts([failure], retries=2, age=21_600)) == [60, 120]


def test_the_time_scale_shortens_pauses() -> None:
    assert pauses(attempts([FAILED], retries=2, age=21_600, scale=0.01)) == pytest.approx([0.6, 1.2])


def test_no_retry_is_made_when_the_template_says_none() -> None:
    assert len(attempts([FAILED], retries=0, age=21_600).times) == 1


def test_throttled_event_backs_off_from_one_second_until_it_runs() -> None:
    assert pauses(attempts([THROTTLED, THROTTLED, THROTTLED, OK], retries=0, age=60)) == [1, 2, 4]


def test_throttled_event_is_dropped_at_its_age() -> None:
    # Pauses of 1, 2 and 4 s fit into 10 s; the next, of 8 s, does not.
    assert pauses(attempts([THROTTLED], retries=2, age=10)) == [1, 2, 4]


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
        await queue.close()
        assert len(asyncio.all_tasks()) == 1

    run_ahead(body())


def test_a_duplicated_event_runs_twice_the_second_time_later() -> None:
    async def body() -> list[float]:
        runner = Runner([OK])
        faults = FaultEngine(Faults(seed=2, duplicate_invoke=1.0, duplicate_invoke_seconds=0.2))
        spec = FunctionSpec("F", "f", "arn", "a.b", "python3.13", Path(), 3.0, 128, {})
        queue = AsyncQueue({"F": spec}, runner, faults=faults)
        await queue.enqueue("F", b"{}")
        await asyncio.gather(*queue._tasks)
        await queue.close()
        assert faults.counts == {"duplicate_invoke": 1}
        return runner.times

    first, second = run_ahead(body())
    assert 0 < second - first <= 0.2
