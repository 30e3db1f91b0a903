"""Windows of the peer's streams: what may come, so that all of it has a place (docs/protocol.md 11.5)."""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.limits import MuxLimits

#: A window that half was used of within this long, in seconds, may be too small for the way it goes.
_FAST: Final = 0.5

#: A user that keeps up leaves less than this part of the window untaken: one piece of a message or so, where
#: bytes are taken in pieces. With one that does not, half waits whenever there is credit to give.
_KEPT_UP: Final = 1 / 4

#: One that took longer than this, in seconds, need not be as large as it is.
_SLOW: Final = 10.0


class WindowPool:
    """Shares the memory for received bytes among all connections.

    A connection's window is what it may take of that memory: bytes that wait for the user, and credit that
    the peer has for more. Credit cannot be taken back, so a window counts until it is used up. Each
    connection has ``limits.window`` for certain; what is left of the memory lets the windows of those grow
    whose user takes all at once, by doubling, as long as the pool keeps as much as it gives.

    Args:
        limits: Of this side.

    Thread safety: none.
    """

    def __init__(self, limits: MuxLimits) -> None:
        self._base = limits.window
        self._most = limits.most_window
        self._free = limits.receive_memory - limits.connections * limits.window

    def admit(self, connection: Connection, now: float) -> None:
        """A connection begins, with the window that SETTINGS told."""
        connection.window = connection.credit = self._base
        connection.granted_at = now

    def grant(self, connection: Connection, now: float) -> int:
        """After the user has taken bytes: how much credit to give the peer now, which is counted as given."""
        spare = connection.window - connection.credit - len(connection.received)
        if spare * 2 < connection.window:
            return 0
        used_for = now - connection.granted_at
        if used_for < _FAST and len(connection.received) < connection.window * _KEPT_UP:
            more = min(connection.window, self._most - connection.window, self._free // 2)
            self._resize(connection, connection.window + more)
        elif used_for > _SLOW:
            self._resize(connection, max(self._base, connection.window - spare))
        connection.granted_at = now
        granted = connection.window - connection.credit - len(connection.received)
        connection.credit += granted
        return granted

    def give_back(self, connection: Connection) -> int:
        """All that has come was dropped: how much credit to give the peer now, which is counted as given.

        The peer is not held up, and the window no larger than each has for certain.
        """
        self._resize(connection, max(self._base, connection.credit))
        spare = connection.window - connection.credit
        if spare * 2 < connection.window:
            return 0
        connection.credit += spare
        return spare

    def end(self, connection: Connection) -> None:
        """Nothing more will come: only what waits still counts. Idempotent; to be repeated as it is taken."""
        connection.credit = 0
        self._resize(connection, max(self._base, len(connection.received)))

    def release(self, connection: Connection) -> None:
        """The connection is gone, and its bytes with it."""
        self._resize(connection, self._base)

    def _resize(self, connection: Connection, window: int) -> None:
        self._free += connection.window - window
        connection.window = window
