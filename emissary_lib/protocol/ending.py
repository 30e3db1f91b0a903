"""How a session ends: what to repeat, and for how long (docs/protocol.md section 6)."""

from __future__ import annotations

from dataclasses import dataclass

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import END_DEADLINE, END_INTERVAL


@dataclass(slots=True)
class Ending:
    """The last words of a session, repeated until the bridge confirms.

    Attributes:
        code: Why it ends.
        reason: The same in words.
        tell_peer: Whether RESET goes to the peer beside END to the bridge.
        next_at: When the next round goes out.
        until: When to give up.
    """

    code: Code
    reason: str
    tell_peer: bool
    next_at: float
    until: float

    @classmethod
    def begin(cls, code: Code, reason: str, now: float, *, tell_peer: bool, delay: float = 0.0) -> Ending:
        """Start the last words; the first round goes out after ``delay`` seconds."""
        return cls(code, reason, tell_peer, now + delay, now + END_DEADLINE)

    @property
    def next_timeout(self) -> float:
        return min(self.next_at, self.until)

    def due(self, now: float) -> bool:
        """Whether a round has to go out now; if so, the next one is scheduled."""
        if now < self.next_at:
            return False
        self.next_at = now + END_INTERVAL
        return True

    def over(self, now: float) -> bool:
        """Whether to give up waiting for the bridge."""
        return now >= self.until
