"""How much of one connection's bytes has arrived, where many connections share a session's stream."""

from __future__ import annotations

from collections import deque


class ArrivalMarks:
    """Notes where a connection's bytes stand in the session's stream, and tells which of them have arrived.

    It holds an entry for each piece that went into the session and was not acknowledged yet: no more than the
    session holds bytes.

    Thread safety: none; the driver's lock guards it.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()
        self._noted = 0
        self._arrived = 0

    def note(self, count: int, position: int) -> None:
        """The connection's first ``count`` bytes are in the session's stream below ``position``."""
        if count > self._noted:
            self._noted = count
            self._marks.append((position, count))

    def arrived(self, acked: int) -> int:
        """How many of the connection's bytes a peer has that has acknowledged ``acked`` of the session's."""
        while self._marks and self._marks[0][0] <= acked:
            # In this order: who asks may be interrupted in between.
            self._arrived = self._marks[0][1]
            self._marks.popleft()
        return self._arrived
