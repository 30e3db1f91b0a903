"""The bench's target: a plain TCP server in a process of its own. Run as a module; prints its port.

A connection carries commands of one byte and a count of eight bytes, big-endian:

- ``S``, a source: the server sends that many bytes.
- ``K``, a sink: the server reads that many bytes, then answers with one byte.
- ``E``, an echo: from now on the server sends back what it reads.

The process ends when its standard input does, so that it cannot outlive whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Final

#: Command and count.
HEADER: Final = struct.Struct(">cQ")

_BLOCK: Final = bytes(range(256)) * 1024


@contextlib.contextmanager
def target_process() -> Iterator[tuple[str, int]]:
    """Start the server in a process of its own; gives its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools.bench.target"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield "127.0.0.1", int(process.stdout.readline())
        # Leaving Popen's block closes its standard input, and waits.


def receive_exactly(sock: socket.socket, size: int) -> None:
    """Read and drop ``size`` bytes.

    Raises:
        ConnectionError: If the stream ends before.
    """
    buffer = bytearray(min(size, len(_BLOCK)) or 1)
    while size:
        got = sock.recv_into(buffer, min(size, len(buffer)))
        if not got:
            raise ConnectionError(f"the stream ended {size} bytes early")
        size -= got


def send_exactly(sock: socket.socket, size: int) -> None:
    """Send ``size`` bytes."""
    while size:
        piece = _BLOCK[: min(size, len(_BLOCK))]
        sock.sendall(piece)
        size -= len(piece)


def _serve(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(header := sock.recv(HEADER.size, socket.MSG_WAITALL)) == HEADER.size:
            command, count = HEADER.unpack(header)
            if command == b"S":
                send_exactly(sock, count)
            elif command == b"K":
                receive_exactly(sock, count)
                sock.sendall(b".")
            else:
                while data := sock.recv(65_536):
                    sock.sendall(data)


def main() -> None:
    """Serve until standard input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()

        def accept() -> None:
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=_serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        sys.stdin.buffer.read()
        os._exit(0)


if __name__ == "__main__":
    main()
