"""Lambda's asynchronous invocations: accepted at once, run later, at least once.

Source: AWS Lambda Developer Guide, "How Lambda handles errors and retries with asynchronous invocation":
function errors and timeouts are retried after one minute, then after two; throttles are retried with a
back-off from one second to five minutes; an event too old is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Final, Protocol

from emissary_local.errors import UnknownFunctionError
from emissary_local.faults import FaultEngine, Site
from emissary_local.faults.latency import Latency, Leg
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import FunctionSpec

#: Pause before the first and the second retry after an error, in seconds.
RETRY_PAUSES: Final = (60.0, 120.0)

#: First and longest pause after a throttle, in seconds.
FIRST_BACK_OFF: Final = 1.0
LONGEST_BACK_OFF: Final = 300.0

_QUEUED: Final = InvocationResult(InvocationStatus.QUEUED)


class Runner(Protocol):
    """What the queue stands on: the Lambda service."""

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        """Run ``function`` once and wait for its answer."""


class AsyncQueue:
    """Adds asynchronous invocations to something that runs synchronous ones.

    Args:
        functions: By logical id; their retry settings.
        runner: Runs them.
        latency: Delay between acceptance and start.
        time_scale: Factor on all pauses and ages, so that tests meet them in milliseconds.
        faults: What to do wrong on purpose.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        runner: Runner,
        *,
        latency: Latency | None = None,
        time_scale: float = 1.0,
        faults: FaultEngine | None = None,
    ) -> None:
        self._functions = functions
        self._runner = runner
        self._latency = latency or Latency()
        self._scale = time_scale
        self._faults = faults or FaultEngine()
        self._rng = {name: self._faults.rng(Site.INVOKE, name) for name in functions}
        self._tasks: set[asyncio.Task[None]] = set()

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        """Run ``function`` once and wait; see :class:`~emissary_local.ports.FunctionInvoker`."""
        return await self._runner.invoke(function, payload)

    async def enqueue(self, function: str, payload: bytes) -> InvocationResult:
        """Accept one event; it is run soon, whatever the caller does next.

        Raises:
            UnknownFunctionError: If the template has no such function.
        """
        spec = self._functions.get(function)
        if spec is None:
            raise UnknownFunctionError(f"the template has no function {function!r}")
        self._begin(self._work(spec, payload))
        rng = self._rng[function]
        if self._faults.touches(function) and rng.triggers("duplicate_invoke"):
            pause = rng.up_to("duplicate_invoke", self._faults.faults.duplicate_invoke_seconds)
            self._begin(self._work(spec, payload, pause))
        return _QUEUED

    async def close(self) -> None:
        """Drop every event that has not ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, spec: FunctionSpec, payload: bytes, pause: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(pause)
        oldest = loop.time() + spec.event_age * self._scale
        await asyncio.sleep(self._latency.delay(Leg.ASYNC_START))
        attempts, back_off = 0, FIRST_BACK_OFF
        while True:
            result = await self._runner.invoke(spec.logical_id, payload)
            if result.status is InvocationStatus.OK:
                return
            if result.status is InvocationStatus.THROTTLED:
                pause, back_off = back_off, min(back_off * 2, LONGEST_BACK_OFF)
            else:
                if attempts >= spec.retry_attempts:
                    return
                pause = RETRY_PAUSES[min(attempts, len(RETRY_PAUSES) - 1)]
                attempts += 1
            pause *= self._scale
            if loop.time() + pause > oldest:
                return
            await asyncio.sleep(pause)
