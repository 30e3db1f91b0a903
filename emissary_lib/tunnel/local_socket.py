"""A tunnel's end of a local TCP connection: read, written and let go of without ever blocking."""

from __future__ import annotations

import contextlib
import selectors
import socket

from emissary_lib.system import never_sigpipe, pending_error, recv_queue_bytes, send_queue_bytes
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import reset, reset_after_drain


class LocalSocket:
    """A connected TCP socket, made non-blocking, and what the tunnel has found out about it.

    Args:
        sock: Owned from now on.

    Attributes:
        blocked: It took no more; wait until it is writable.
        gone: It failed, or was reset here: nothing moves any more, and it is only to be closed.

    Thread safety: none; the tunnel's lock guards it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._flags = never_sigpipe(sock)
        self.blocked = False
        self.gone = False
        self._write_ended = False

    def fileno(self) -> int:
        """The descriptor, so that a selector takes this object."""
        return self._sock.fileno()

    def receive(self, size: int) -> bytes | None:
        """Up to ``size`` bytes; ``b""`` at the end of the stream, ``None`` if nothing is there now.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None

    def send(self, data: memoryview) -> int:
        """Hand over as much as is taken now, and tell how much that was.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._sock.send(data, self._flags)
        except BlockingIOError:
            self.blocked = True
            return 0

    def end_write(self) -> None:
        """End the stream towards the program. Idempotent; never raises."""
        if not self._write_ended and not self.gone:
            self._write_ended = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def has_unread(self) -> bool:
        """Whether bytes, or the end of the stream, are there that :meth:`receive` has not given yet."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except OSError:  # above all: nothing is there
            return False
        return True

    def pending_error(self) -> OSError | None:
        """What broke the connection, if that has not been told yet; for a socket that is not waited for."""
        return pending_error(self._sock)

    @property
    def recv_queue(self) -> int:
        """Bytes from the program that the kernel holds for us."""
        return recv_queue_bytes(self._sock)

    @property
    def taken(self) -> bool:
        """Whether the program's kernel holds all that was handed over; true where nobody can tell.

        Raises:
            OSError, ValueError: The socket is closed.
        """
        return not send_queue_bytes(self._sock)

    @property
    def tells(self) -> bool:
        """Whether the kernel tells how much was not taken; else :attr:`taken` is a guess."""
        return send_queue_bytes(self._sock) is not None

    def register(self, selector: selectors.BaseSelector, before: int, events: int) -> None:
        """Have ``selector`` wait for ``events`` instead of those of ``before``; 0 is none."""
        if not before:
            selector.register(self, events)
        elif events:
            selector.modify(self, events)
        else:
            selector.unregister(self)

    def close(self) -> None:
        """Close it; what was handed over still arrives."""
        self._sock.close()

    def reset(self) -> None:
        """Close it so that the program sees a reset, at once."""
        self.gone = True
        reset(self._sock)

    def reset_after_drain(self, deadline: Deadline) -> None:
        """As :meth:`reset`, after the program's kernel holds all that was handed over.

        Blocking: until then, at most until ``deadline``.
        """
        reset_after_drain(self._sock, deadline)
