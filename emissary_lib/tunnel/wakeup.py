"""Wakes a thread that waits in a selector."""

from __future__ import annotations

import contextlib
import socket

from emissary_lib.system import never_sigpipe
from emissary_lib.transport.forked import keep_from_children


class Wakeup:
    """A socket that becomes readable when another thread calls :meth:`wake`."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        keep_from_children(self._receiver, self._sender)
        self._flags = never_sigpipe(self._sender)

    def fileno(self) -> int:
        """For a selector to wait on."""
        return self._receiver.fileno()

    def wake(self) -> None:
        """Wake the waiting thread, or the next one to wait. From any thread; does not block."""
        # Full: it is awake already. Closed: there is nobody left to wake.
        with contextlib.suppress(OSError):
            self._sender.send(b"\0", self._flags)

    def clear(self) -> None:
        """Forget past wake-ups."""
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def close(self) -> None:
        """Give the sockets back; :meth:`wake` does nothing from now on."""
        self._receiver.close()
        self._sender.close()
