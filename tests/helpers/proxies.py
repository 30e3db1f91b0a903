"""Proxies on loopback that lead every name to one place, and remember what they were asked for."""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.helpers.patience import HANG
from tests.helpers.servers import Server
from tests.helpers.tls_front import pass_on, read_exactly

#: Speaks a proxy's protocol with one client: what it asks for, the answer, and whether it is let through.
Greeting = Callable[[socket.socket], tuple[str, bytes, bool]]


@dataclass
class RunningProxy:
    """A proxy that listens.

    Attributes:
        port: Where, on 127.0.0.1.
        asked: The ``host:port`` of every client, in order.
    """

    port: int
    asked: list[str] = field(default_factory=list)


def http_proxy(user: str = "", password: str = "", refusal: bytes = b"") -> Greeting:
    """CONNECT, for whoever has the credentials; or an answer that refuses."""

    def greet(sock: socket.socket) -> tuple[str, bytes, bool]:
        read = b""
        while not read.endswith(b"\r\n\r\n") and (byte := read_exactly(sock, 1)):
            read += byte
        if not read:
            raise ConnectionAbortedError("it only looked whether somebody listens")
        head = read.decode("latin-1")
        method, target, _version = head.split(" ", 2)
        assert method == "CONNECT"
        wanted = base64.b64encode(f"{user}:{password}".encode()).decode()
        if user and f"Proxy-Authorization: Basic {wanted}\r\n" not in head:
            return (
                target,
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 9999\r\n\r\n",
                False,
            )
        if refusal:
            return target, refusal, False
        return target, b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n", True

    return greet


def socks5_proxy(sock: socket.socket) -> tuple[str, bytes, bool]:
    """SOCKS5 without authentication, for names (RFC 1928)."""
    _version, count = read_exactly(sock, 2)
    read_exactly(sock, count)
    sock.sendall(b"\x05\x00")
    *_head, kind, length = read_exactly(sock, 5)
    assert kind == 3, "a name, which the proxy looks up"
    name = read_exactly(sock, length).decode()
    (port,) = struct.unpack("!H", read_exactly(sock, 2))
    return f"{name}:{port}", b"\x05\x00\x00\x01" + bytes(6), True


@contextmanager
def proxy_to(port: int, greet: Greeting) -> Iterator[RunningProxy]:
    """A proxy that leads everybody to a port of this machine."""
    asked: list[str] = []

    def serve(sock: socket.socket) -> None:
        sock.settimeout(HANG)
        target, answer, granted = greet(sock)
        asked.append(target)
        sock.sendall(answer)
        if granted:
            with socket.create_connection(("127.0.0.1", port), HANG) as there:
                pass_on(sock, there)

    with Server(serve) as (_host, listening):
        yield RunningProxy(listening, asked)
