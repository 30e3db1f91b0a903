"""What a SOCKS5 client of this machine says and reads, by hand: RFC 1928."""

from __future__ import annotations

import socket

from emissary_lib.protocol.opening.socks5_messages import connect, greeting
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.patience import HANG

GREETING = greeting((0,))
SUCCEEDED = bytes.fromhex("05000001000000000000")


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """That many bytes, or fewer at the stream's end."""
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def ask(server: tuple[str, int], target: str) -> tuple[socket.socket, bytes]:
    """Ask for a target; the connection, and the reply."""
    sock = socket.create_connection(server, HANG)
    sock.sendall(GREETING)
    assert read_exactly(sock, 2) == b"\x05\x00"
    sock.sendall(connect(Target.parse(target)))
    return sock, read_exactly(sock, 10)
