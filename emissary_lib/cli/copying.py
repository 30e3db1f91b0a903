"""Copies between two descriptors and a tunnel, until either side is done; for ``emissary connect``."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
from typing import Final

from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exceptions import EmissaryError, OutputError, local_resource_error
from emissary_lib.system import waiter
from emissary_lib.tunnel.loopback import reset
from emissary_lib.tunnel.wakeup import Wakeup

#: Bytes that are copied at once, at most.
_PIECE: Final = 65_536


def copy(sock: TunnelSocket, source: int | None, sink: int) -> bool:
    """Copy from one descriptor to the target, and from the target to another, until it is all over.

    Args:
        sock: Leads to the target; closed when this returns.
        source: Where to read; ``None`` for nothing.
        sink: Where to write.

    Returns:
        Whether the target has ended its stream; otherwise nobody is left to read the sink.

    Raises:
        TunnelResetError: The tunnel was cut off.
        EmissaryError: The source cannot be read.
        OutputError: The sink takes no more, for another reason than that its reader has gone.
        LocalResourceError: No thread is left.

    Blocking: until the end. A thread that waits for the source may outlive this until something comes there.
    """
    sock.setblocking(False)
    sender = _Sender(source, sock)
    try:
        try:
            sender.start()
        except RuntimeError as exc:
            raise local_resource_error(exc) from exc
        ended = _receive(sock, sink)
        if ended and source is not None and stat.S_ISREG(os.fstat(source).st_mode):
            sender.join()  # a file has an end, and nobody else would notice that a part of it was not sent
        if ended and sender.error:  # not that of a terminal that has hung up
            raise EmissaryError(
                f"cannot read standard input: {sender.error.strerror}; give the command something readable"
            ) from sender.error
        if ended and sock.session and sock.session.error and not sock.session.error.whole:
            raise sock.session.error
        sender.stop()
        if not ended:
            reset(sock)
        return ended
    except BaseException:
        sender.stop()
        reset(sock)  # what was not all sent is not to look as if it were
        raise
    finally:
        sock.close()


class _Sender(threading.Thread):
    """Sends what comes from the source, and its end.

    Args:
        source: As of :func:`copy`.
        sock: A non-blocking socket.

    Attributes:
        error: Why the source cannot be read, if so; then the stream to the target has not ended, and reading
            the socket gives an end.
    """

    def __init__(self, source: int | None, sock: socket.socket) -> None:
        super().__init__(name="emissary-connect", daemon=True)
        self.error: OSError | None = None
        self._source = source
        self._sock = sock
        self._wakeup = Wakeup()
        self._sending = threading.Lock()
        self._stopped = False

    def run(self) -> None:
        """Until the end of the source, or of the socket, which is told where that is read."""
        with contextlib.suppress(OSError):
            while data := self._read():
                self._send(data)
            with self._sending:
                self._sock.shutdown(socket.SHUT_RD if self.error else socket.SHUT_WR)

    def stop(self) -> None:
        """Leave the socket alone from now on: one that a call still uses would not be closed. Idempotent."""
        self._stopped = True
        self._wakeup.wake()
        with self._sending:
            self._wakeup.close()

    def _send(self, data: bytes) -> None:
        with self._sending:
            left = memoryview(data)
            while left and not self._stopped:
                try:
                    left = left[self._sock.send(left) :]
                except BlockingIOError:
                    select.select([self._wakeup], [self._sock], [])

    def _read(self) -> bytes:
        while self._source is not None:
            try:
                return os.read(self._source, _PIECE)
            except BlockingIOError:  # whoever shares it has made it so
                select.select([self._source], [], [])
            except OSError as exc:
                self.error = exc
                break
        return b""


def _receive(sock: TunnelSocket, sink: int) -> bool:
    """Write what the target sends; whether it came to its end, and not to that of whoever reads the sink."""
    wait = waiter(sock, sink)
    try:
        while wait():
            try:
                data = sock.recv(_PIECE)
            except BlockingIOError:
                continue
            if not data:
                return True
            if not _write(sink, data):
                return False
    except ConnectionResetError:
        # It has all, we have all, and the program has ended its stream: a reset says no more than an end.
        if sock.session and sock.session.error and sock.session.error.whole:
            return True
        raise
    return False


def _write(sink: int, data: bytes) -> bool:
    """Write all of it; False if nobody is left to read it."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:
            select.select([], [sink], [])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as exc:
            raise OutputError(
                f"cannot write to standard output: {exc.strerror}; make room, or send it elsewhere"
            ) from exc
    return True
