"""The target of one run."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

from emissary_lib.system import recv_queue_bytes
from emissary_lib.tunnel.loopback import reset

#: Seconds for which a late target reads nothing: longer than whoever ends waits for bytes that stand still.
LATE: Final = 5.0


class Recorder:
    """A service for :class:`tests.helpers.servers.Server` that takes what comes, in its own way.

    Args:
        how: ``good``, ``slow``, ``late``, ``resets`` or ``resets late``.
        reset_after: Bytes after which it resets, if it does.
    """

    def __init__(self, how: str, reset_after: int) -> None:
        self._how = how
        self._reset_after = reset_after
        self._lock = threading.Lock()
        self._open = 0
        self._arrived: list[bytearray] = []
        self._unread = 0
        self._closing = threading.Event()

    @property
    def arrived(self) -> bytes:
        """What was read of the connection that brought most: a launch that came too late brings nothing."""
        with self._lock:
            return bytes(max(self._arrived, key=len, default=b""))

    @property
    def thrown_away(self) -> int:
        """Bytes that its kernel had, and that it reset its connection on: they had arrived."""
        return self._unread

    @property
    def reached(self) -> bool:
        """Whether there ever was a connection."""
        return bool(self._arrived)

    @property
    def busy(self) -> bool:
        """Whether a connection is open."""
        return self._open > 0

    def close(self) -> None:
        """Wait for nothing more."""
        self._closing.set()

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection."""
        got = bytearray()
        with self._lock:
            self._open += 1
            self._arrived.append(got)
        try:
            with contextlib.suppress(OSError):
                self._take(connection, got)
        finally:
            with self._lock:
                self._open -= 1

    def _take(self, connection: socket.socket, got: bytearray) -> None:
        if "late" in self._how:
            self._closing.wait(LATE)
        resets = self._how.startswith("resets")
        while data := connection.recv(self._reset_after - len(got) or 1 if resets else 65_536):
            got += data
            if resets and len(got) >= self._reset_after:
                self._unread = recv_queue_bytes(connection)
                reset(connection)
                return
            if self._how == "slow":
                self._closing.wait(0.05)
