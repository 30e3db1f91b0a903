"""When a tunnel lets go of its socket, and when it returns whatever is still to be said.

A relay costs money for as long as it runs, and is killed at Lambda's limit; so it waits neither without end
for a target that does not take its bytes, nor for a bridge that does not confirm the end of a session.
"""

from __future__ import annotations

import math
from typing import Final

from emissary_lib.protocol.constants import LINGER

#: Seconds between two looks at whether the kernel has passed on what it was given: no event tells of that.
_LOOK: Final = 0.05


class ShutdownPolicy:
    """The times of one tunnel, in seconds on its clock.

    Attributes:
        drain_deadline: When to wait no longer for a socket that does not take its bytes. After the session
            was cut off that is ``LINGER`` later at most. Infinity for no end: nobody pays for the wait.
        return_deadline: When to return though the bridge has not confirmed the end.
        linger: The longest wait for the socket after a clean end, where ``drain_deadline`` has one.
    """

    __slots__ = ("_cut_off", "_ended", "drain_deadline", "linger", "return_deadline")

    def __init__(
        self, drain_deadline: float = math.inf, return_deadline: float = math.inf, linger: float = math.inf
    ) -> None:
        self.drain_deadline = drain_deadline
        self.return_deadline = return_deadline
        self.linger = linger
        self._cut_off = False
        self._ended = False

    def cut_off(self, now: float, *, linger: float = LINGER) -> None:
        """The session was cut off: its socket is to be reset, ``linger`` seconds from now at the latest."""
        self._cut_off = True
        self._within(now, linger)

    def finish(self, now: float) -> None:
        """The session is over, well or not, and nothing is left to be said."""
        self._ended = True
        self._within(now, self.linger)

    @property
    def bounded(self) -> bool:
        """Whether the wait for the socket has an end."""
        return self.drain_deadline < math.inf

    def _within(self, now: float, seconds: float) -> None:
        if self.bounded:
            self.drain_deadline = min(self.drain_deadline, now + seconds)

    def patience(self, now: float) -> float | None:
        """Seconds that the socket may still take; ``None`` for no end."""
        return self.drain_deadline - now if self.bounded else None

    def resets(self, now: float, *, taken: bool) -> bool:
        """Whether to reset the socket now, even before the bridge has confirmed that the session is cut off.

        Whoever is to be told may take long to be told, and a database must not go on meanwhile with what
        nobody is there for any more.

        Args:
            now: The time.
            taken: Whether the socket's peer holds all that arrived for it.
        """
        return self._cut_off and self.bounded and (taken or now >= self.drain_deadline)

    def over(self, now: float, *, delivered: bool) -> bool:
        """Whether the tunnel is to return.

        Args:
            now: The time.
            delivered: Whether the socket was given all that arrived for it.
        """
        return now >= self.return_deadline or (self._ended and (delivered or now >= self.drain_deadline))

    def next_timeout(self, now: float, *, waits: bool) -> float:
        """When one of these may have changed of itself.

        Args:
            now: The time.
            waits: Whether nothing but the kernel's passing on is waited for.
        """
        if not (self._cut_off or self._ended) or now >= self.drain_deadline:
            return self.return_deadline
        looks = self._cut_off and waits and self.bounded
        return min(self.return_deadline, self.drain_deadline, now + _LOOK if looks else math.inf)
