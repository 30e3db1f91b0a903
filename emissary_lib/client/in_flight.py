"""One budget of messages in flight for all tunnels of a dialer (docs/protocol.md section 4.5).

Each message towards ``$default`` is a concurrent Lambda invocation; the account's limit on those is shared
with everything else that runs in it.

Fairness: a session gives places back and asks for more in one breath, so whoever is busy would always be
served before those who wait. A place that is free while somebody waits is therefore kept for the one who has
waited longest, until that one takes it or has had its turn without taking it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable

from emissary_lib.system import in_child


class InFlightLimiter:
    """Places for messages in flight.

    Args:
        places: How many there are; at least 1.

    Attributes:
        places: The same.

    Thread safety: all of it may be used from any thread.
    """

    def __init__(self, places: int) -> None:
        if places < 1:
            raise ValueError(f"a budget of {places} messages in flight would never send one; want at least 1")
        self.places = places
        self._begin()
        _limiters.add(self)

    def _begin(self) -> None:
        """Nobody has a place; in a forked child too, since whoever has one, or the lock, is its parent's."""
        self._free = self.places
        self._lock = threading.Lock()
        self._waiting: deque[InFlightSlots] = deque()
        self._kept: set[InFlightSlots] = set()  # each has one free place kept for it

    @property
    def free(self) -> int:
        """Places that nobody holds now."""
        return self._free

    def member(self, wake: Callable[[], None]) -> InFlightSlots:
        """A gate for one more session.

        Args:
            wake: Called, from any thread, when a place is kept for this session after it was refused one.
                Must not block; the session has to ask again, and to decline once it has had its turn.
        """
        return InFlightSlots(self, wake)

    def _acquire(self, member: InFlightSlots) -> bool:
        with self._lock:
            if member in self._kept:
                self._kept.remove(member)
            elif self._free <= len(self._kept):
                if member not in self._waiting:
                    self._waiting.append(member)
                return False
            self._free -= 1
            member.held += 1
            return True

    def _release(self, member: InFlightSlots, count: int) -> None:
        with self._lock:
            count = min(count, member.held)  # what a closed member held was given back for it
            member.held -= count
            self._free += count
            woken = self._keep_for_waiting()
        _wake(woken)

    def _decline(self, member: InFlightSlots) -> None:
        with self._lock:
            if member not in self._kept:
                return
            self._kept.remove(member)
            woken = self._keep_for_waiting()
        _wake(woken)

    def _close(self, member: InFlightSlots) -> None:
        with self._lock:
            if member in self._waiting:
                self._waiting.remove(member)
            self._kept.discard(member)
            self._free += member.held
            member.held = 0
            woken = self._keep_for_waiting()
        _wake(woken)

    def _keep_for_waiting(self) -> list[InFlightSlots]:
        """Keep free places for those who wait; the lock is held. Gives whom to wake without it."""
        assert self._lock.locked()
        woken = []
        while self._waiting and self._free > len(self._kept):
            woken.append(self._waiting.popleft())
            self._kept.add(woken[-1])
        return woken


_limiters: weakref.WeakSet[InFlightLimiter] = weakref.WeakSet()


def _begin_all() -> None:
    for limiter in list(_limiters):
        limiter._begin()


in_child(_begin_all)


def _wake(members: list[InFlightSlots]) -> None:
    for member in members:
        member.wake()


class InFlightSlots:
    """One session's view of the budget; a :class:`emissary_lib.protocol.stream.congestion.InFlightGate`.

    Attributes:
        held: Places taken and not given back.
        wake: As :meth:`InFlightLimiter.member` was given it.
    """

    def __init__(self, budget: InFlightLimiter, wake: Callable[[], None]) -> None:
        self._budget = budget
        self.held = 0
        self.wake = wake

    def acquire(self) -> bool:
        """Take one place; ``False`` if none is free now, and then :attr:`wake` is called when one is kept."""
        return self._budget._acquire(self)

    def release(self, count: int) -> None:
        """Give back ``count`` places that were taken; may wake other sessions."""
        self._budget._release(self, count)

    def decline(self) -> None:
        """The session had its turn: a place that is still kept for it goes to the next."""
        self._budget._decline(self)

    def close(self) -> None:
        """The session is over: give back what it holds, and do not wake it again. Idempotent."""
        self._budget._close(self)
