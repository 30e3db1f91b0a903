"""One time budget carried through several steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

#: Longest time between two looks at whether a deadline has passed early, in seconds: whoever waits for a
#: socket is not woken then.
LOOK: Final = 0.25


class Deadline:
    """A point in time, counted from a timeout.

    Args:
        timeout: Seconds from now; ``None`` for no end.
        clock: A monotonic clock.

    Attributes:
        passed_for: What became of whatever it was for, once it has passed, for messages.
    """

    passed_for = "timed out"

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout = timeout
        self._clock = clock
        self._at = None if timeout is None else clock() + timeout

    def remaining(self) -> float | None:
        """Seconds left, at least 0; ``None`` for no end."""
        return None if self._at is None else max(0.0, self._at - self._clock())

    def passed(self) -> bool:
        """Whether the time is up."""
        return self._at is not None and self._clock() >= self._at

    def cap(self, seconds: float | None) -> float | None:
        """The shorter of ``seconds`` and what remains; ``None`` where neither ends."""
        left = self.remaining()
        if seconds is None or left is None:
            return left if seconds is None else seconds
        return min(seconds, left)

    def within(self, seconds: float) -> Deadline:
        """A deadline ``seconds`` from now on the same clock, but no later than this one."""
        return Deadline(self.cap(seconds), self._clock)

    def wait(self, event: threading.Event) -> None:
        """Wait until ``event`` is set, at most until the deadline."""
        event.wait(self.remaining())


class EarlyDeadline(Deadline):
    """A deadline that may pass before its time, as a subclass finds out: whoever waits has to look again.

    Thread safety: any.
    """

    def passed_early(self) -> bool:
        """Whether it has passed before its time."""
        raise NotImplementedError

    def cap(self, seconds: float | None) -> float | None:
        """No longer than to the next look at :meth:`passed`."""
        return super().cap(LOOK if seconds is None else min(seconds, LOOK))

    def within(self, seconds: float) -> Deadline:
        """For what is still to be said once it has passed early, there is time: nobody waits for it."""
        return Deadline(seconds if self.passed_early() else super().cap(seconds), self._clock)


class AbortableDeadline(EarlyDeadline):
    """A deadline that another thread can bring forward to now.

    Thread safety: any.
    """

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(timeout, clock)
        self._lock = threading.Lock()
        self._awaited: list[threading.Event] = []
        self._aborted = False

    def passed_early(self) -> bool:
        """Whether it was brought forward."""
        return self._aborted

    def abort(self) -> None:
        """The time is up: wakes whoever waits in :meth:`wait`. Idempotent."""
        with self._lock:
            self._aborted = True
            now = self._clock()
            self._at = now if self._at is None else min(self._at, now)
            for event in self._awaited:
                event.set()

    def wait(self, event: threading.Event) -> None:
        """As :meth:`Deadline.wait`; :meth:`abort` sets ``event`` too, so look for yourself what happened."""
        with self._lock:
            self._awaited.append(event)
        try:
            super().wait(event)
        finally:
            with self._lock:
                self._awaited.remove(event)
