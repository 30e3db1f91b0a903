"""A connected socket, plain or TLS, that one thread may read while another writes.

OpenSSL's objects must not be used by two threads at once, and a blocking ``SSLSocket.recv`` is in use for as
long as it waits. So the socket is non-blocking, one lock covers each attempt, and waiting is done outside.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import ssl
import threading
from typing import Final

from emissary_lib.system import never_give_up, never_sigpipe, wait_for
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.forked import keep_from_children

#: Bytes asked of the kernel at once; more than one WebSocket fragment.
CHUNK: Final = 65_536

_NO_TIME: Final = Deadline(0)

_WANT_READ: Final = (BlockingIOError, ssl.SSLWantReadError)


class ByteStream:
    """Reads and writes with a deadline.

    Thread safety: one reader and one writer at a time, and anybody may call :meth:`shutdown`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        keep_from_children(sock)
        self._sock = sock
        self._lock = threading.Lock()
        self._over = False  # shut down on this side
        self._buffer = memoryview(b"")
        flags = never_sigpipe(sock)
        self._flags = 0 if isinstance(sock, ssl.SSLSocket) else flags  # TLS takes none

    def read(self, size: int, deadline: Deadline) -> bytes:
        """At least one and at most ``size`` bytes; empty at the end of the stream and after :meth:`shutdown`.

        Once the deadline has passed it gives what is there, and waits for nothing.

        Raises:
            TimeoutError: Nothing came in time; call again.
            OSError: The connection is broken; never a TimeoutError.
        """
        while not self._buffer or self._over:
            if self._over:
                return b""  # the kernel would give first what it has, and a flood is a lot
            try:
                with self._lock:
                    data = self._sock.recv(CHUNK)
            except _WANT_READ:
                wait(self._sock, selectors.EVENT_READ, deadline)
                continue
            except ssl.SSLWantWriteError:
                wait(self._sock, selectors.EVENT_WRITE, deadline)
                continue
            except ssl.SSLEOFError:
                data = b""
            except TimeoutError as exc:  # the kernel gave up on the peer: not our deadline, and final
                raise ConnectionAbortedError(exc.errno, exc.strerror) from exc
            if not data:
                return b""
            if len(data) <= size:
                return data
            self._buffer = memoryview(data)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(piece)

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Write all of it.

        Raises:
            TimeoutError: The kernel did not take all of it in time; part of it may be sent.
            OSError: The connection is broken.
        """
        view = memoryview(data)
        while view:
            try:
                with self._lock:
                    sent = self._sock.send(view, self._flags)
            except (BlockingIOError, ssl.SSLWantWriteError):
                wait(self._sock, selectors.EVENT_WRITE, deadline)
            except ssl.SSLWantReadError:
                wait(self._sock, selectors.EVENT_READ, deadline)
            else:
                view = view[sent:]

    def fileno(self) -> int:
        """For a selector to wait on; first see that :meth:`read_now` has nothing more."""
        return self._sock.fileno()

    def read_now(self, size: int) -> bytes | None:
        """As :meth:`read`, without waiting: ``None`` if nothing is there."""
        try:
            return self.read(size, _NO_TIME)
        except TimeoutError:
            return None

    def write_now(self, data: memoryview) -> int:
        """Write as much as is taken now, and tell how much that was.

        What is written next must begin with what was not taken.

        Raises:
            OSError: The connection is broken.
        """
        try:
            with self._lock:
                return self._sock.send(data, self._flags)
        except (*_WANT_READ, ssl.SSLWantWriteError):
            return 0

    def wait_for_slow_peer(self) -> None:
        """Do not take a peer for dead that is there and takes no bytes, however long that lasts."""
        with self._lock:
            never_give_up(self._sock)

    def shutdown(self) -> None:
        """End both directions; unlike a close, this wakes a thread that waits. Idempotent."""
        self._over = True
        with contextlib.suppress(OSError):
            # The plain socket's own: SSLSocket's would forget its TLS state under a reader's feet.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the file descriptor back. A thread that still reads or writes gets an ``OSError``.

        It may be closed under a waiting thread, because every use of the descriptor but waiting is under the
        lock: a wait that ends for a wrong reason is followed by an attempt, which fails on a closed socket.
        """
        with self._lock:
            self._sock.close()


def wait(sock: socket.socket, event: int, deadline: Deadline) -> None:
    """Wait until a socket is ready for ``selectors.EVENT_READ`` or ``selectors.EVENT_WRITE``, or broken.

    Raises:
        TimeoutError: It was not in time; at once if no time is left.
        OSError: It is closed.
    """
    if deadline.passed():
        raise TimeoutError("timed out")
    descriptor = sock.fileno()
    if descriptor < 0:
        raise OSError(errno.EBADF, "the connection was closed")
    if not wait_for(descriptor, event, deadline.remaining()):
        raise TimeoutError("timed out")
