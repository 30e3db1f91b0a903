"""A user whose connection broke, and what it wrote before, still on its way (docs/protocol.md rule 6-21)."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import LINGER


class UserLoss:
    """Why the session is to be cut off, and until when that waits.

    Args:
        code: Why.
        reason: The same in words.
        unread: Bytes of the user's that were not read and never will be.
        acked: How much of its stream has arrived at the peer.
        now: The time, in seconds.

    Attributes:
        until: When it was waited for long enough, unless more arrives.
    """

    __slots__ = ("_acked", "_away", "code", "reason", "unread", "until")

    def __init__(self, code: Code, reason: str, unread: int, acked: int, now: float) -> None:
        self.code = code
        self.reason = reason
        self.unread = unread
        self.until = now + LINGER
        self._acked = acked
        self._away = False

    def look(self, acked: int, now: float, *, away: bool) -> None:
        """Wait on if more has arrived, or while nothing can, or from when it can again."""
        if away or self._away or acked > self._acked:
            self._acked, self._away = acked, away
            self.until = now + LINGER
