"""A clock that moves only when a test moves it."""

from __future__ import annotations


class Clock:
    """Seconds on a monotonic clock, in a test's own time.

    Attributes:
        now: The present, in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new present."""
        return self.advance_to(self.now + seconds)

    def advance_to(self, at: float) -> float:
        """Let time pass until ``at``; a point in the past is the present."""
        self.now = max(self.now, at)
        return self.now
