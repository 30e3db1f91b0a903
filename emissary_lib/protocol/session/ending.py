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
        until: When to give up, as long as there is a WebSocket to say it over.
        may_wait_until: When to give up waiting for a WebSocket, if that is later; ``None``: it is not.
    """

    code: Code
    reason: str
    tell_peer: bool
    next_at: float
    until: float
    may_wait_until: float | None = None

    @classmethod
    def begin(cls, code: Code, reason: str, now: float, *, tell_peer: bool, delay: float = 0.0) -> Ending:
        """Start the last words; the first round goes out after ``delay`` seconds."""
        return cls(code, reason, tell_peer, now + delay, now + END_DEADLINE)

    @property
    def has_a_reason(self) -> bool:
        """Whether it holds what nobody else can tell. That a side is gone, whoever waits for it finds out."""
        return self.tell_peer and self.code not in (Code.DIALER_GONE, Code.RELAY_GONE)

    def interrupted(self, bound: float) -> None:
        """There is no WebSocket to say it over: wait for one until ``bound``, or until an earlier one."""
        if self.has_a_reason:
            self.may_wait_until = bound if self.may_wait_until is None else min(bound, self.may_wait_until)

    def resumed(self, now: float) -> None:
        """There is a WebSocket again: say it at once."""
        self.next_at = now
        if self.may_wait_until is not None:
            self.until = max(self.until, min(now, self.may_wait_until) + END_DEADLINE)

    @property
    def wait_ends(self) -> float:
        """When to give up while there is no WebSocket."""
        return self.until if self.may_wait_until is None else max(self.until, self.may_wait_until)

    @property
    def next_timeout(self) -> float:
        return min(self.next_at, self.until)

    def due(self, now: float) -> bool:
        """Whether a round has to go out now; if so, the next one is scheduled."""
        if now < self.next_at:
            return False
        self.next_at = now + END_INTERVAL
        return True

    def over(self, now: float, *, heard: bool) -> bool:
        """Whether to give up waiting for the bridge.

        Args:
            now: The time.
            heard: Whether there is a WebSocket to say it over.
        """
        return now >= (self.until if heard else self.wait_ends)
