"""What goes wrong by itself from time to time: cuts, silent deaths, cold-start storms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sized
from typing import Protocol

from emissary_local.faults import FaultEngine, Site


class Disconnects(Protocol):
    """What cuts connections: :class:`emissary_local.gateway.disconnects.Disconnects`."""

    def of_side(self, side: str) -> Sized:
        """The open connections of ``dialer`` or ``relay``."""

    def cut(self, side: str, how: str, which: str | int | None = None) -> int:
        """Cut connections now."""


class FaultSchedule:
    """Draws when a fault happens by itself, and makes it happen.

    Args:
        faults: How often.
        disconnects: Cuts connections.
        retire: Makes every idle environment go; returns how many there were.

    Thread safety: none; use it on one event loop.
    """

    def __init__(self, faults: FaultEngine, disconnects: Disconnects, retire: Callable[[], int]) -> None:
        self._faults = faults
        self._disconnects = disconnects
        self._retire = retire
        self._rng = faults.rng(Site.SCHEDULE)
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False
        faults.on_change(self._begin)

    def start(self) -> None:
        """Begin, with what is on; what is switched on later begins then."""
        self._open = True
        self._begin()

    async def close(self) -> None:
        """End. Idempotent."""
        self._open = False
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> None:
        for task in self._tasks:
            task.cancel()
        kinds: dict[str, Callable[[random.Random], None]] = {
            "cut_every": self._cut, "silence_every": self._silence, "storm_every": self._storm,
        }  # fmt: skip
        self._tasks = [
            asyncio.ensure_future(self._repeat(kind, getattr(self._faults.faults, kind), act))
            for kind, act in kinds.items()
            if self._open and getattr(self._faults.faults, kind)
        ]

    async def _repeat(self, kind: str, mean: float, act: Callable[[random.Random], None]) -> None:
        while True:
            stream = self._rng.stream(kind)
            await asyncio.sleep(stream.expovariate(1.0 / mean))
            act(stream)

    def _cut(self, stream: random.Random) -> None:
        faults = self._faults.faults
        self._one(stream, stream.choice(faults.cut_sides), stream.choice(faults.cut_hows))

    def _silence(self, stream: random.Random) -> None:
        self._one(stream, stream.choice(self._faults.faults.cut_sides), "silent")

    def _one(self, stream: random.Random, side: str, how: str) -> None:
        # Drawn whether or not somebody is there, so that the next draws are the same.
        share = stream.random()
        open_ones = len(self._disconnects.of_side("relay" if side == "relay" else "dialer"))
        if open_ones:
            self._disconnects.cut(side, how, int(share * open_ones))

    def _storm(self, stream: random.Random) -> None:
        if self._retire():
            self._faults.count("storm")
