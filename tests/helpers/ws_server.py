"""A WebSocket server of plain sockets, so that tests see and send every raw frame (RFC 6455)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.protocol.constants import SUBPROTOCOL
from tests.helpers.patience import HANG

CONT: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA


_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Request:
    """The upgrade request; header names in lower case."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RawFrame:
    """One frame as it came."""

    opcode: int
    fin: bool
    masked: bool
    payload: bytes


class Peer:
    """The server's end of one WebSocket. One thread reads, any may send."""

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self.sock = sock
        self.request = request
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._lock = threading.Lock()

    def read_frame(self, timeout: float = HANG) -> RawFrame:
        """The next frame.

        Raises:
            TimeoutError: None came in time; nothing is lost.
            ConnectionError: The connection ended.
        """
        deadline = time.monotonic() + timeout
        while (frame := self._parse()) is None:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.sock.recv(65_536)
            if not data:
                raise ConnectionResetError("the client is gone")
            self._buffer += data
        return frame

    def read_message(self, timeout: float = HANG) -> bytes | None:
        """The next whole text message; ``None`` once the client says goodbye. Pongs are skipped."""
        while True:
            frame = self.read_frame(timeout)
            if frame.opcode == CLOSE:
                return None
            if frame.opcode in (TEXT, CONT):
                self._parts.append(frame.payload)
                if frame.fin:
                    parts, self._parts = self._parts, []
                    return b"".join(parts)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.send_raw(frame_bytes(opcode, payload, fin=fin))

    def send_text(self, text: str | bytes) -> None:
        self.send_frame(TEXT, text.encode() if isinstance(text, str) else text)

    def send_close(self, code: int, reason: str = "") -> None:
        self.send_frame(CLOSE, struct.pack(">H", code) + reason.encode())

    def send_raw(self, data: bytes) -> None:
        with self._lock:
            self.sock.settimeout(HANG)
            self.sock.sendall(data)

    def _parse(self) -> RawFrame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        at, size, masked = 2, buffer[1] & 0x7F, bool(buffer[1] & 0x80)
        if size == 126:
            at, size = 4, int.from_bytes(buffer[2:4], "big")
        elif size == 127:
            at, size = 10, int.from_bytes(buffer[2:10], "big")
        end = at + 4 * masked + size
        if len(buffer) < end:
            return None
        payload = bytes(buffer[at + 4 * masked : end])
        if masked:
            payload = _unmask(bytes(buffer[at : at + 4]), payload)
        frame = RawFrame(buffer[0] & 0xF, bool(buffer[0] & 0x80), masked, payload)
        del buffer[:end]
        return frame


def frame_bytes(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """One unmasked frame."""
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        return struct.pack(">BB", first, len(payload)) + payload
    if len(payload) < 65_536:
        return struct.pack(">BBH", first, 126, len(payload)) + payload
    return struct.pack(">BBQ", first, 127, len(payload)) + payload


def _unmask(mask: bytes, data: bytes) -> bytes:
    key = int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
    return (int.from_bytes(data, "big") ^ key).to_bytes(len(data), "big")


def refusal(status: int, *headers: str, body: str = '{"message": "Forbidden"}') -> bytes:
    """An answer to an upgrade request that is not 101."""
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


class WsServer:
    """Serves WebSockets on a free loopback port; a context manager that leaves no thread and no socket.

    Args:
        handler: Serves one connection in a thread of its own, until it returns.
        answer: Decides on an upgrade: ``None`` accepts, bytes are sent instead of a 101.
        subprotocol: The one that a 101 names; ``None`` for none.
        ssl_context: For TLS.
        raw: Serves accepted sockets instead, before any HTTP.
        headers: Lines that a 101 has besides.

    Attributes:
        requests: Every upgrade request, in order.
        failures: What handlers raised, connections that ended aside; checked at the end.
    """

    def __init__(
        self,
        handler: Callable[[Peer], None] = lambda peer: None,
        *,
        answer: Callable[[Request], bytes | None] = lambda request: None,
        subprotocol: str | None = SUBPROTOCOL,
        ssl_context: ssl.SSLContext | None = None,
        raw: Callable[[socket.socket], None] | None = None,
        headers: Sequence[str] = (),
    ) -> None:
        self._handler = handler
        self._answer = answer
        self._subprotocol = subprotocol
        self._ssl_context = ssl_context
        self._raw = raw
        self._headers = headers
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        scheme, host = ("wss", "localhost") if ssl_context else ("ws", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.port}/stage"
        self._accepting = threading.Thread(target=self._accept, name="test-ws-accept")
        self._accepting.start()

    def __enter__(self) -> WsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        if self.failures and exc[0] is None:
            raise self.failures[0]

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def answering(self, answer: Callable[[Request], bytes | None]) -> None:
        """Decide in this way first; where it gives ``None``, as before."""
        before = self._answer

        def decide(request: Request) -> bytes | None:
            said = answer(request)
            return before(request) if said is None else said

        self._answer = decide

    def wait_closing(self, timeout: float = HANG) -> None:
        """Block a handler until the server closes: a server that says nothing; for ``timeout`` seconds."""
        self._closing.wait(timeout)

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="test-ws-peer")
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(HANG)
            if self._ssl_context:
                plain, sock = sock, self._ssl_context.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._sockets.discard(plain)
                    self._sockets.add(sock)
            if self._raw:
                self._raw(sock)
            else:
                self._handler(self._upgrade(sock))
        except _RefusedError:
            pass
        except (ConnectionError, ssl.SSLError):
            pass  # the client left, which is its right
        except BaseException as exc:
            if not self._closing.is_set():
                self.failures.append(exc)
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _upgrade(self, sock: socket.socket) -> Peer:
        request = _read_request(sock)
        self.requests.append(request)
        answer = self._answer(request)
        if answer is not None:
            sock.sendall(answer)
            raise _RefusedError
        digest = hashlib.sha1((request.headers["sec-websocket-key"] + _GUID).encode()).digest()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines.append(f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}")
        if self._subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {self._subprotocol}")
        sock.sendall("\r\n".join([*lines, *self._headers, "", ""]).encode())
        return Peer(sock, request)


class _RefusedError(Exception):
    pass


def _read_request(sock: socket.socket) -> Request:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)  # not a byte more: frames may follow at once
        if not piece:
            raise ConnectionResetError("no whole request came")
        head += piece
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in filter(None, lines):
        name, _colon, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(first.split(" ")[1], headers)


def noise(size: int) -> bytes:
    """Bytes that do not repeat, so that misplaced ones show."""
    return os.urandom(size)
