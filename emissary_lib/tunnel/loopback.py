"""A connected pair of loopback TCP sockets.

TCP and not ``socket.socketpair``: an AF_UNIX pair cannot signal a reset, and it refuses ``TCP_NODELAY``,
which ``http.client`` and several drivers set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import time
from typing import Final

from emissary_lib.transport.deadline import Deadline

#: Bytes that the kernel is asked to buffer each way at each socket that a tunnel reads and writes. Left to
#: itself it takes up to 6 MiB for each (net.ipv4.tcp_rmem), beyond what a session's capacity bounds. A tunnel
#: carries a few megabytes a second, and a target is milliseconds away: 128 KiB are more than are ever under
#: way. The system's limits allow as much everywhere (net.core.wmem_max: 208 KiB), and Linux doubles it for
#: its own bookkeeping.
KERNEL_BUFFER: Final = 131_072

#: Linux's number, which Python does not name everywhere: writable only when nothing is left unsent.
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


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
    poll = select.poll()
    poll.register(near, select.POLLOUT)
    poll.register(listener, select.POLLIN)
    while not deadline.passed():
        left = deadline.remaining()
        for descriptor, _events in poll.poll(None if left is None else int(left * 1000) + 1):
            if descriptor == near.fileno():
                if error := near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                poll.unregister(near)
            elif accepted := _accept(listener, near.getsockname()):
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
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def reset_after_drain(sock: socket.socket, deadline: Deadline) -> None:
    """As :func:`reset`, but only after the peer's end holds everything that was sent.

    A reset throws away what the kernel has not passed on yet, and a slow reader leaves a lot there.

    Blocking: until then, or until the peer closes, or the deadline passes. Never raises.
    """
    with contextlib.suppress(OSError):  # of a Unix socket, too: its peer holds it already
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 1)
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while send_queue_bytes(sock) and not deadline.passed():
            left = deadline.remaining()
            ready = poll.poll(None if left is None else int(left * 1000) + 1)
            if any(events & (select.POLLERR | select.POLLHUP) for _fd, events in ready):
                break
            time.sleep(0.001)  # sent, and acknowledged at any moment: no event tells of that
    reset(sock)


def send_queue_bytes(sock: socket.socket) -> int:
    """Bytes that the kernel still holds for the peer of a TCP socket.

    Raises:
        OSError: The socket is closed.
    """
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def recv_queue_bytes(sock: socket.socket) -> int:
    """Bytes that have come and were not read; 0 of a socket that is closed."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    except (OSError, ValueError):
        return 0
    return int(count)
