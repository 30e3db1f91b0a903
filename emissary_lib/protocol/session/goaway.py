"""The relay's end: announced, then carried out (docs/protocol.md section 5.6)."""

from __future__ import annotations

from emissary_lib.protocol.constants import GOAWAY_BEFORE


class GoAwayTimer:
    """When GOAWAY goes out, and when the time is up.

    Args:
        expires_at: The relay's end, on the clock of ``now``.

    Attributes:
        expires_at: The same.
    """

    def __init__(self, expires_at: float) -> None:
        self.expires_at = expires_at
        self._announcements = [expires_at - before for before in GOAWAY_BEFORE]

    def next_timeout(self, *, heard: bool) -> float:
        """When :meth:`announcement` or :meth:`over` has something new to say.

        Args:
            heard: Whether the peer can be told anything now; else an announcement waits until it can.
        """
        return min(self._announcements, default=self.expires_at) if heard else self.expires_at

    def remaining(self, now: float) -> int:
        """Milliseconds until the end."""
        return max(0, int((self.expires_at - now) * 1000))

    def announcement(self, now: float) -> bool:
        """Whether GOAWAY has to go out now; several that are due at once are one."""
        due = [at for at in self._announcements if now >= at]
        self._announcements = [at for at in self._announcements if now < at]
        return bool(due) and not self.over(now)

    def over(self, now: float) -> bool:
        """Whether the time is up."""
        return now >= self.expires_at
