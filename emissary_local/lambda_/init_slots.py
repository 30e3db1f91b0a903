"""How many execution environments may be in their init phase at once.

On AWS every environment has a processor of its own while it starts. Here they share this machine's, and a
start is nothing but work for the processor: a hundred at once, as after a storm, would take as long as one
after the other, and nothing else would get its turn meanwhile. So they are started a few at a time, in order.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Hashable
from typing import Final

#: InitSlots at once for each processor. Two, because one of them waits now and then.
PER_PROCESSOR: Final = 2


class InitSlots:
    """Places for starting environments, given in the order in which they were asked for.

    Args:
        places: How many may start at once; for this machine's processors if None.

    Thread safety: none; use it on one event loop.
    """

    def __init__(self, places: int | None = None) -> None:
        self._free = places or PER_PROCESSOR * len(os.sched_getaffinity(0))
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held: set[Hashable] = set()

    async def turn(self) -> None:
        """Wait for a place, and take it; :meth:`began` or :meth:`give_back` must follow."""
        if self._free > 0:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.give_back()
            else:
                self._waiting.remove(mine)
            raise

    def began(self, who: Hashable) -> None:
        """The place taken is now ``who``'s."""
        self._held.add(who)

    def over(self, who: Hashable) -> None:
        """``who`` has started, or died. Its place is free; nothing happens if it holds none."""
        if who in self._held:
            self._held.discard(who)
            self.give_back()

    def give_back(self) -> None:
        """The place taken is free again: nobody was started."""
        while self._waiting:
            following = self._waiting.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._free += 1
