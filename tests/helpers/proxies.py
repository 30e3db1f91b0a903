"""Proxies on loopback that lead every name to one place, and remember what they were asked for."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.helpers.patience import HANG

#: Serves one client: reads what it asks for; returns that, and the answer, or no way through.
Greeting = Callable[[socket.socket], tuple[str, bytes, bool]]


class ProxyServer:
    """An accepting thread, and one a client; a context manager.

    Args:
        greet: Speaks the proxy's protocol.
        upstream: Where everybody is led to.

    Attributes:
        asked: The ``host:port`` of every client, in order.
    """

    def __init__(self, greet: Greeting, upstream: tuple[str, int]) -> None:
        self._greet = greet
        self._upstream = upstream
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="test-proxy")]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> ProxyServer:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="test-proxied")
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            sock.settimeout(HANG)
            target, answer, granted = self._greet(sock)
            self.asked.append(target)
            sock.sendall(answer)
            if granted:
                with socket.create_connection(self._upstream, HANG) as there:
                    carry(sock, there)


def carry(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until one of them ends."""
    while True:
        for sock in select.select([one, other], [], [], HANG)[0]:
            data = sock.recv(65_536)
            if not data:
                return
            (other if sock is one else one).sendall(data)


def http_proxy(user: str = "", password: str = "", refusal: bytes = b"") -> Greeting:
    """CONNECT, for whoever has the credentials; or an answer that refuses."""

    def greet(sock: socket.socket) -> tuple[str, bytes, bool]:
        head = read_until(sock, b"\r\n\r\n").decode("latin-1")
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


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += read_exactly(sock, 1)
    return data


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the client left")
        data += piece
    return data


@contextmanager
def proxy_to(port: int, greet: Greeting) -> Iterator[ProxyServer]:
    """A proxy that leads everybody to a port of this machine."""
    with ProxyServer(greet, ("127.0.0.1", port)) as server:
        yield server
