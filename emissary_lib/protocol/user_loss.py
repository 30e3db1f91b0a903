"""A user whose connection broke, and what it wrote before (docs/protocol.md rules 6-21 and 11.4-12)."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import LINGER


class UserLoss:
    """How long what the user wrote is still waited for.

    Args:
        code: Why.
        reason: The same in words.
        unread: Bytes of the user's that were not read and never will be.
        progress: How far its stream has got; grows.
        now: The time, in seconds.

    Attributes:
        until: When it was waited for long enough, unless there is more progress.
    """

    __slots__ = ("_paused", "_progress", "code", "reason", "unread", "until")

    def __init__(self, code: Code, reason: str, unread: int, progress: int, now: float) -> None:
        self.code = code
        self.reason = reason
        self.unread = unread
        self.until = now + LINGER
        self._progress = progress
        self._paused = False

    def look(self, progress: int, now: float, *, paused: bool) -> None:
        """Wait on if there was progress, or while there can be none, or from when there can be again.

        Args:
            progress: How far the user's stream has got now.
            now: The time, in seconds.
            paused: Whether the time does not count, because nothing can move for another reason.
        """
        if paused or self._paused or progress > self._progress:
            self._progress, self._paused = progress, paused
            self.until = now + LINGER
