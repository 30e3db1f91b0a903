"""What the stack has found out about long messages (docs/protocol.md rule 4.8-7)."""

from __future__ import annotations

from typing import Final

from functions.common.ports import Clock, SessionStore

#: For how long it is remembered, in seconds. AWS may have changed by then; to find out again costs seconds.
REMEMBERED: Final = 86_400.0

#: How often an execution environment asks the table, in seconds.
ASKED_EVERY: Final = 60.0


class ShortMessages:
    """Whether messages of more than one fragment do not pass, as the table has it.

    Args:
        store: The table.
        clock: Seconds since 1970 UTC.
    """

    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known = False
        self._asked_at = -ASKED_EVERY

    def known(self) -> bool:
        """Whether it is known; up to :data:`ASKED_EVERY` old.

        Raises:
            StoreError: The table could not be reached.
        """
        now = self._clock()
        if now >= self._asked_at + ASKED_EVERY:
            self._known = self._store.short_messages(now)
            self._asked_at = now
        return self._known

    def note(self) -> bool:
        """A client has found it out: whether that is news here.

        Raises:
            StoreError: The table could not be reached.
        """
        if self.known():
            return False
        now = self._clock()
        self._store.note_short_messages(now, now + REMEMBERED)
        self._known = True
        return True
