"""One budget of messages in flight for all tunnels of a dialer (docs/protocol.md section 4.5).

Each message towards ``$default`` is a concurrent Lambda invocation; the account's limit on those is shared
with everything else that runs in it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class FlightBudget:
    """Places for messages in flight.

    Args:
        places: How many there are.

    Thread safety: all of it may be used from any thread.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: deque[FlightPlaces] = deque()

    def member(self) -> FlightPlaces:
        """A gate for one more session."""
        return FlightPlaces(self)

    def _take(self, member: FlightPlaces) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if member not in self._waiting:
                self._waiting.append(member)
            return False

    def _give(self, count: int) -> None:
        with self._lock:
            self._free += count
            woken = [self._waiting.popleft() for _ in range(min(self._free, len(self._waiting)))]
        for member in woken:
            member.wake()

    def _leave(self, member: FlightPlaces) -> None:
        with self._lock:
            if member in self._waiting:
                self._waiting.remove(member)


class FlightPlaces:
    """One session's view of the budget; a :class:`emissary_lib.protocol.flight.FlightGate`.

    Attributes:
        wake: Called, from any thread, when a place is free after :meth:`take` refused one. Must not block.
    """

    def __init__(self, budget: FlightBudget) -> None:
        self._budget = budget
        self.wake: Callable[[], None] = lambda: None

    def take(self) -> bool:
        return self._budget._take(self)

    def give(self, count: int) -> None:
        self._budget._give(count)

    def leave(self) -> None:
        """The session is over: do not wake it again."""
        self._budget._leave(self)
