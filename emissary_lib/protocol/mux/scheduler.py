"""Whose bytes go out next: all that have some, in turn (docs/protocol.md 11.5-1)."""

from __future__ import annotations

from collections import deque

from emissary_lib.protocol.mux.connection import Connection


class RoundRobin:
    """Connections that have something to send, each once."""

    def __init__(self) -> None:
        self._queue: deque[Connection] = deque()

    def add(self, connection: Connection) -> None:
        """Put it behind the others. Idempotent."""
        if not connection.scheduled:
            connection.scheduled = True
            self._queue.append(connection)

    @property
    def head(self) -> Connection | None:
        """Whose turn it is."""
        return self._queue[0] if self._queue else None

    def served(self, *, again: bool) -> None:
        """The head has had its turn; ``again``: it has more for the next."""
        connection = self._queue.popleft()
        connection.scheduled = False
        if again:
            self.add(connection)

    def remove(self, connection: Connection) -> None:
        """It has nothing to send any more. Idempotent."""
        if connection.scheduled:
            connection.scheduled = False
            self._queue.remove(connection)
