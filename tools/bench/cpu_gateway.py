"""The least that can stand between a dialer and a relay, for :mod:`tools.bench.cpu`: no API Gateway.

Whoever connects and sends ``d`` or ``r`` is dialer or relay, with its WebSocket as it is behind the upgrade;
any other byte begins a post over HTTP. The dialer's messages go to the relay, posts go to the dialer, each
after a delay, and what a relay says to the bridge is dropped. Without any delay, acknowledgements would be
back before a sender had gathered enough for a full message, as they are nowhere else.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from websockets.speedups import apply_mask

from emissary_lib.protocol.wire.frames import COPIED, peek

#: Longest payload of a frame that the gateway sends, in bytes.
_FRAGMENT: Final = 32_000

_FIN, _TEXT, _CONTINUED, _CONTROL, _EXTENDED, _LENGTH = 0x80, 0x1, 0x0, 0x8, 126, 0x7F

_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Gateway:
    """Listens on a free port of the loopback; a context manager. Its threads end with their connections.

    Args:
        delay: Seconds that each message takes.
    """

    def __init__(self, delay: float = 0.01) -> None:
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: dict[bytes, _Client] = {}
        self._both = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            kind = sock.recv(1)
            with sock.makefile("rb", buffering=262_144) as file:
                if kind not in (b"d", b"r"):
                    self._take_posts(sock, file.readline, file.read)
                    return
                client = _Client(sock, self._delay)
                with self._both:
                    self._clients[kind] = client
                    self._both.notify_all()
                try:
                    for message in _messages(file.read):
                        if kind == b"d" and peek(message)[0] in COPIED:
                            self._client(b"r").send(message)
                finally:
                    client.close()

    def _take_posts(
        self, sock: socket.socket, read_line: Callable[[], bytes], read: Callable[[int], bytes]
    ) -> None:
        while True:
            length = 0
            while (line := read_line()).strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if not line:
                return
            self._client(b"d").send(read(length))
            sock.sendall(_ANSWER)

    def _client(self, kind: bytes) -> _Client:
        with self._both:
            self._both.wait_for(lambda: kind in self._clients)
            return self._clients[kind]


class _Client:
    """A WebSocket to send to; any thread."""

    def __init__(self, sock: socket.socket, delay: float) -> None:
        self._sock = sock
        self._delay = delay
        self._queue: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._pass_on, daemon=True).start()

    def send(self, message: bytes) -> None:
        self._queue.put((time.monotonic() + self._delay, message))

    def close(self) -> None:
        self._queue.put(None)

    def _pass_on(self) -> None:
        with contextlib.suppress(OSError):
            while (waiting := self._queue.get()) is not None:
                due, message = waiting
                time.sleep(max(0.0, due - time.monotonic()))
                self._sock.sendall(b"".join(_fragments(message)))


def _fragments(message: bytes) -> Iterator[bytes]:
    for at in range(0, len(message), _FRAGMENT):
        piece = message[at : at + _FRAGMENT]
        last = at + _FRAGMENT >= len(message)
        first = (_FIN if last else 0) | (_CONTINUED if at else _TEXT)
        if len(piece) < _EXTENDED:
            yield bytes([first, len(piece)])
        else:
            yield bytes([first, _EXTENDED]) + len(piece).to_bytes(2, "big")
        yield piece


def _messages(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The messages of a client, which masks (RFC 6455 section 5.2)."""
    parts: list[bytes] = []
    while len(head := read(2)) == 2:
        size = head[1] & _LENGTH
        if size >= _EXTENDED:
            size = int.from_bytes(read(2 if size == _EXTENDED else 8), "big")
        key = read(4)
        parts.append(apply_mask(read(size), key))
        if head[0] & _CONTROL:
            return  # a goodbye: nobody pings here
        if head[0] & _FIN:
            yield b"".join(parts)
            parts.clear()
