"""A connected pair of loopback TCP sockets.

TCP and not ``socket.socketpair``: an AF_UNIX pair cannot signal a reset, and it refuses ``TCP_NODELAY``,
which ``http.client`` and several drivers set.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import Final

from emissary_lib.system import (
    ShortSelector,
    claim_port,
    pending_error,
    reset_on_close,
    send_queue_bytes,
    wait_for,
    writable_when_sent,
)
from emissary_lib.transport.deadline import Deadline

#: Bytes that the kernel is asked to buffer each way at each socket that a tunnel reads and writes. Left to
#: itself it takes up to 6 MiB for each (net.ipv4.tcp_rmem), beyond what a session's capacity bounds. A tunnel
#: carries a few megabytes a second, and a target is milliseconds away: 128 KiB are more than are ever under
#: way. The system's limits allow as much everywhere (net.core.wmem_max: 208 KiB), and Linux doubles it for
#: its own bookkeeping.
KERNEL_BUFFER: Final = 131_072

#: Seconds that a reader has where the kernel does not tell how much is left for it. That is Windows, where a
#: reset throws away what has come and was not read, too.
UNTOLD: Final = 1.0


def tcp_pair(deadline: Deadline | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected blocking sockets with ``TCP_NODELAY``; what one sends the other receives.

    Whoever else on this machine connects to the port in between is turned away: only the connection that this
    function itself made is accepted.

    Args:
        deadline: For both to be connected; ``None`` for no end.

    Blocking: while others keep the port's queue full, at most until the deadline. Any thread.

    Raises:
        TimeoutError: The deadline passed.
        OSError: The machine has no loopback address, or no file descriptor is left.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        claim_port(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        listener.setblocking(False)
        near = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            near.setblocking(False)
            # To connect first and accept then would wait for a place in the queue, which strangers may fill.
            with contextlib.suppress(BlockingIOError):
                near.connect(listener.getsockname())
            far = _accept_from(listener, near, deadline or Deadline(None))
        except BaseException:
            near.close()
            raise
    for sock in (near, far):
        sock.setblocking(True)
        tune(sock)
    return near, far


def tune(sock: socket.socket) -> None:
    """Have a socket send at once, and the kernel buffer no more than :data:`KERNEL_BUFFER` each way."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)


def _accept_from(listener: socket.socket, near: socket.socket, deadline: Deadline) -> socket.socket:
    with ShortSelector() as selector:
        selector.register(near, selectors.EVENT_WRITE)
        selector.register(listener, selectors.EVENT_READ)
        while not deadline.passed():
            ready = [key.fileobj for key, _events in selector.select(deadline.remaining())]
            if near in ready:
                if error := pending_error(near):
                    raise error
                selector.unregister(near)
            if listener in ready and (accepted := _accept(listener, near.getsockname())):
                return accepted
    raise TimeoutError("timed out")


def _accept(listener: socket.socket, address: object) -> socket.socket | None:
    try:
        accepted, peer = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):  # whoever it was has left
        return None
    if peer == address:
        return accepted
    accepted.close()
    return None


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer sees a reset, not an end of file; never raises.

    The peer of a Unix socket sees one only if it has written what nobody has read.
    """
    reset_on_close(sock)
    sock.close()


def reset_after_drain(sock: socket.socket, deadline: Deadline) -> None:
    """As :func:`reset`, but only after the peer's end holds everything that was sent.

    A reset throws away what the kernel has not passed on yet, and a slow reader leaves a lot there. Where the
    kernel does not tell how much that is, the reader has a second at most.

    Blocking: until then, or until the peer closes, or the deadline passes. Never raises.
    """
    with contextlib.suppress(OSError, ValueError):  # of a Unix socket, too: its peer holds it already
        writable_when_sent(sock)
        if send_queue_bytes(sock) is None:
            deadline = deadline.within(UNTOLD)
        while send_queue_bytes(sock) != 0 and not deadline.passed():
            sock.getpeername()  # raises once the connection is broken
            wait_for(sock, selectors.EVENT_WRITE, deadline.remaining())
            time.sleep(0.001)  # sent, and acknowledged at any moment: no event tells of that
    reset(sock)
