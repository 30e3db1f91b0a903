"""Event loops whose time a test tells: ten minutes pass at once, and a slow machine changes nothing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Lets seconds pass; returns when what was due by then has begun.
Advance = Callable[[float], Awaitable[None]]


class _Selector(selectors.DefaultSelector):
    """Waits for sockets only, never for time."""

    def __init__(self, skip: Callable[[float], None] | None) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self._skip is None:
            return super().select(None)
        self._skip(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock begins at 0 and moves only as told.

    Args:
        runs_ahead: Whether time jumps to the next timer as soon as nothing else is to do. Sockets and threads
            need time of their own, so this is for what uses none.
    """

    def __init__(self, *, runs_ahead: bool) -> None:
        self._virtual = 0.0
        super().__init__(_Selector(self.skip if runs_ahead else None))

    def time(self) -> float:
        return self._virtual

    def skip(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._virtual += seconds


def run_ahead(scenario: Coroutine[Any, Any, T]) -> T:
    """Run what uses neither sockets nor threads: every wait for time is over at once, in the right order."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(runs_ahead=True)) as runner:
        return runner.run(scenario)


def run_stepped(scenario: Callable[[Advance], Coroutine[Any, Any, T]]) -> T:
    """Run what may use sockets, threads and processes: time passes only where ``scenario`` lets it."""

    async def body() -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)

        async def advance(seconds: float) -> None:
            loop.skip(seconds)
            await asyncio.sleep(0)  # the timers that are due are seen when the loop turns,
            await asyncio.sleep(0)  # and what they woke runs in the next

        return await scenario(advance)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(runs_ahead=False)) as runner:
        return runner.run(body())
