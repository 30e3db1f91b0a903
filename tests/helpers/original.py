"""The original Emissary's server, as its authors publish it: WebSocket, banner, SOCKS5, two copies of bytes.

It behaves as that one does, the surprising parts included. It ends both directions with the target's, and
closes with 1000 whether the target has ended its stream or reset the connection. It reads one message after
the other, and so answers a Ping only when the target has all bytes before it. It looks names up before
its list.

Sources: docs/protocol.md section 12; server/proxy and internal/ws of encoredev/emissary; go-socks5 and
gorilla/websocket, on which they stand.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Final

from emissary_lib.protocol.auth.httpdate import http_date, parse_http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.errors import AuthenticationError
from emissary_lib.protocol.opening.banner import Banner
from tests.helpers.patience import HANG
from tests.helpers.ws_server import BINARY, CLOSE, PING, PONG, Peer, Request, WsServer, refusal

KEY: Final = Key(7, bytes(range(32)))

#: As long as io.Copy reads at once.
_CHUNK: Final = 32_768

_NO_ADDRESS: Final = b"\x00\x01" + bytes(6)


class _ConnectionEndedError(Exception):
    """As of ``io.EOF`` and of the errors of Go: what ends a copy."""

    def __init__(self, *, clean: bool) -> None:
        super().__init__(clean)
        self.clean = clean


class _Connection:
    """``ws.Conn`` over gorilla's: messages as a stream of bytes."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._buffer = b""
        self._lock = threading.Lock()
        self._closed = False
        self._close_sent = False

    def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``; control frames are answered on the way."""
        while not self._buffer:
            self._buffer = self._read_message()
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.read(size - len(data))
        return data

    def write(self, data: bytes) -> None:
        with self._lock:
            if self._close_sent:
                raise _ConnectionEndedError(clean=False)
            self._send(BINARY, data)

    def close(self) -> None:
        """``Close`` of the server's own, and ``CloseWrite``, which is the same."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._send_close(1000, b"encore")
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.peer.sock, socket.SHUT_RDWR)

    def _read_message(self) -> bytes:
        parts = []
        while True:
            try:
                frame = self.peer.read_frame()
            except OSError as exc:
                raise _ConnectionEndedError(clean=self._closed) from exc
            assert frame.masked, "a client masks its frames"
            if frame.opcode == PING:
                with self._lock:
                    if not self._close_sent:
                        self._send(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                code = int.from_bytes(frame.payload[:2], "big") if frame.payload else 1005
                with self._lock:
                    self._send_close(code, b"")
                raise _ConnectionEndedError(clean=code == 1000)
            elif frame.opcode != PONG:
                parts.append(frame.payload)
                if frame.fin:
                    return b"".join(parts)

    def _send_close(self, code: int, reason: bytes) -> None:
        if not self._close_sent:
            self._close_sent = True
            with contextlib.suppress(_ConnectionEndedError):
                self._send(CLOSE, struct.pack(">H", code) + reason)

    def _send(self, opcode: int, payload: bytes) -> None:
        assert self._lock.locked()
        try:
            self.peer.send_frame(opcode, payload)
        except OSError as exc:
            raise _ConnectionEndedError(clean=False) from exc


class OriginalServer:
    """The server; a context manager that leaves no thread and no socket.

    Args:
        allowed: Host and port of each target that may be reached, by the very name that is dialled.
        keys: Those that are valid.
        names: Addresses of host names; those that are missing do not resolve.
        version: What the banner says.
        clock: What it takes for the time, in seconds since 1970.
        answer: As of :class:`WsServer`.
        connect: How it reaches a target.
        headers: Lines that the answer to an upgrade has, of a load balancer's.

    Attributes:
        url: Where it is.
    """

    def __init__(
        self,
        allowed: Collection[tuple[str, int]] = (),
        *,
        keys: Collection[Key] = (KEY,),
        names: Mapping[str, str] | None = None,
        version: str = "devel",
        clock: Callable[[], float] = time.time,
        answer: Callable[[Request], bytes | None] = lambda request: None,
        connect: Callable[[tuple[str, int]], socket.socket] = socket.create_connection,
        headers: Sequence[str] = (),
    ) -> None:
        self._allowed = allowed
        self._keys = {key.key_id: key for key in keys}
        self._names = names or {}
        self._version = version
        self._clock = clock
        self._connect = connect
        self._lock = threading.Lock()
        self._peers: list[Peer] = []
        self._server = WsServer(self._serve, subprotocol=None, answer=_no_websocket, headers=headers)
        self._server.answering(answer)
        self.url = self._server.url

    @property
    def requests(self) -> list[Request]:
        """Every upgrade that was asked for."""
        return self._server.requests

    def __enter__(self) -> OriginalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, value, trace)

    def cut(self) -> None:
        """Cut every WebSocket, without a Close frame."""
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)

    def close_all(self, code: int, reason: str = "") -> None:
        """Have something on the way close every WebSocket."""
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.send_close(code, reason)

    @property
    def open(self) -> int:
        """How many WebSockets are open."""
        with self._lock:
            return len(self._peers)

    def _serve(self, peer: Peer) -> None:
        with self._lock:
            self._peers.append(peer)
        connection = _Connection(peer)
        try:
            self._converse(connection)
        except _ConnectionEndedError:
            pass
        finally:
            connection.close()
            with self._lock:
                self._peers.remove(peer)

    def _converse(self, connection: _Connection) -> None:
        nonce = os.urandom(32)
        connection.write(Banner("emissary-server", self._version, 1, nonce).encode_message())
        if connection.read_exactly(1) != b"\x05":
            return
        methods = connection.read_exactly(connection.read_exactly(1)[0])
        if 2 not in methods:
            connection.write(b"\x05\xff")
            return
        connection.write(b"\x05\x02")
        if connection.read_exactly(1) != b"\x01":
            return
        user = connection.read_exactly(connection.read_exactly(1)[0])
        password = connection.read_exactly(connection.read_exactly(1)[0])
        if not self._valid(user.decode(), password, nonce):
            connection.write(b"\x01\x01")
            return
        connection.write(b"\x01\x00")
        _version, command, _reserved, kind = connection.read_exactly(4)
        if (address := _read_address(connection, kind)) is None:
            connection.write(b"\x05\x08" + _NO_ADDRESS)
            return
        host, named = address
        port = int.from_bytes(connection.read_exactly(2), "big")
        resolved = self._names.get(host) if named else host
        if resolved is None:  # before anything else is looked at
            connection.write(b"\x05\x04" + _NO_ADDRESS)
        elif command != 1:
            connection.write(b"\x05\x07" + _NO_ADDRESS)
        elif (host, port) not in self._allowed:
            connection.write(b"\x05\x02" + _NO_ADDRESS)
        else:
            self._proxy(connection, (resolved, port))

    def _valid(self, date: str, password: bytes, nonce: bytes) -> bool:
        try:
            given = base64.b64decode(password + b"=" * (-len(password) % 4), validate=True)
            off = abs(self._clock() - parse_http_date(date))
        except (ValueError, AuthenticationError):
            return False
        key = self._keys.get(int.from_bytes(given[:4], "big"))
        if key is None or off > 15 * 60:
            return False
        content = date.encode() + b"\0" + base64.b64encode(nonce).rstrip(b"=")
        return hmac.compare_digest(hmac.new(key.secret, content, hashlib.sha256).digest(), given[4:])

    def _proxy(self, connection: _Connection, address: tuple[str, int]) -> None:
        try:
            target = self._connect(address)
        except OSError as exc:
            refused = isinstance(exc, ConnectionRefusedError)
            connection.write((b"\x05\x05" if refused else b"\x05\x04") + _NO_ADDRESS)
            return
        with target:
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = target.getsockname()[:2]
            connection.write(b"\x05\x00\x00\x01" + socket.inet_aton(host) + port.to_bytes(2, "big"))
            back = threading.Thread(target=self._copy_back, args=(target, connection), name="test-original")
            back.start()
            try:
                failed = self._copy(connection, target)
            finally:
                if failed:  # the handler returns at the first error, and closes both
                    _hang_up(target, connection)
                back.join(HANG)

    def _copy(self, connection: _Connection, target: socket.socket) -> bool:
        """From the WebSocket to the target; whether that failed."""
        failed = False
        try:
            while True:
                target.sendall(connection.read(_CHUNK))
        except _ConnectionEndedError as exc:
            failed = not exc.clean
        except OSError:
            failed = True
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        return failed

    def _copy_back(self, target: socket.socket, connection: _Connection) -> None:
        """From the target to the WebSocket, which ends with it."""
        try:
            while data := target.recv(_CHUNK):
                connection.write(data)
        except (OSError, _ConnectionEndedError):
            connection.close()
            _hang_up(target, connection)
        connection.close()


def _no_websocket(request: Request) -> bytes | None:
    """The answer to a request that is none for a WebSocket, as Go's HTTP server dates it."""
    if "upgrade" in request.headers:
        return None
    return refusal(400, f"Date: {http_date(time.time())}")


def _hang_up(target: socket.socket, connection: _Connection) -> None:
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
    connection.close()


def _read_address(connection: _Connection, kind: int) -> tuple[str, bool] | None:
    """The host, and whether that is a name."""
    if kind == 1:
        return socket.inet_ntoa(connection.read_exactly(4)), False
    if kind == 4:
        return socket.inet_ntop(socket.AF_INET6, connection.read_exactly(16)), False
    if kind == 3:
        return connection.read_exactly(connection.read_exactly(1)[0]).decode(), True
    return None
