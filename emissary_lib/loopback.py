"""A connected pair of loopback TCP sockets.

TCP and not ``socket.socketpair``: an AF_UNIX pair cannot signal a reset, and it refuses ``TCP_NODELAY``,
which ``http.client`` and several drivers set.
"""

from __future__ import annotations

import contextlib
import socket
import struct


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected blocking sockets with ``TCP_NODELAY``; what one sends the other receives.

    Whoever else on this machine connects first to the port in between is turned away: only the connection
    that this function itself made is accepted.

    Raises:
        OSError: The machine has no loopback address, or no file descriptor is left.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        near = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            near.connect(listener.getsockname())
            far = _accept_from(listener, near.getsockname())
        except BaseException:
            near.close()
            raise
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _accept_from(listener: socket.socket, address: object) -> socket.socket:
    while True:
        accepted, peer = listener.accept()
        if peer == address:
            return accepted
        accepted.close()


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer sees a reset, not an end of file; never raises."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
