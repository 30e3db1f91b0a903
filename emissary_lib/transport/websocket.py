"""The WebSocket to API Gateway: the only module that imports websocket-client, and that maps its errors.

It makes the handshake and takes frames apart. Sending, fragments and control frames are done here, because
its ``send`` makes one frame per message, while API Gateway takes 32 KB a frame; its ``recv`` answers pings
behind the back of a thread that is sending; and it validates UTF-8 in pure Python (18 ms per 128 KB), which
is switched off: the frame decoder refuses what is not ASCII.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Final

import websocket

from emissary_lib.deadline import Deadline
from emissary_lib.exceptions import GatewayRefusedError, GatewayUnreachableError, LinkClosedError
from emissary_lib.protocol.constants import MAX_FRAGMENT, SUBPROTOCOL
from emissary_lib.transport.bytestream import ByteStream

#: Seconds that a send may wait for room in the kernel before the link counts as dead.
SEND_TIMEOUT: Final = 30.0


def connect(
    url: str,
    *,
    headers: Mapping[str, str],
    deadline: Deadline,
    ssl_context: ssl.SSLContext | None = None,
) -> WebSocketTransport:
    """Open a WebSocket with subprotocol ``emissary.v2``.

    Args:
        url: ``wss://host/stage`` (or ``ws://`` for the local cloud).
        headers: Sent with the upgrade request.
        deadline: Bounds DNS, TCP, TLS and the upgrade together.
        ssl_context: For ``wss``; ``None`` for Python's default, which checks certificate and name.

    Raises:
        GatewayUnreachableError: No answer.
        GatewayRefusedError: An answer other than 101.
        TimeoutError: The deadline passed.
    """
    ws = websocket.WebSocket(
        skip_utf8_validation=True,
        enable_multithread=False,  # no thread but this one sees it
        sockopt=_socket_options(),
        sslopt={"context": ssl_context} if ssl_context else None,
    )
    ws.settimeout(deadline.remaining())
    try:
        ws.connect(  # type: ignore[no-untyped-call]
            url, header=dict(headers), subprotocols=[SUBPROTOCOL], suppress_origin=True
        )
    except websocket.WebSocketBadStatusException as exc:
        ws.shutdown()  # type: ignore[no-untyped-call]
        date = (exc.resp_headers or {}).get("date")
        status = int(exc.status_code or 0)
        raise GatewayRefusedError(
            f"the gateway at {url} refused the connection with HTTP status {status}",
            http_status=status,
            date=date,
        ) from exc
    except (websocket.WebSocketTimeoutException, TimeoutError) as exc:
        ws.shutdown()  # type: ignore[no-untyped-call]
        raise TimeoutError(f"the gateway at {url} did not answer in time") from exc
    except (websocket.WebSocketException, OSError, ValueError) as exc:
        ws.shutdown()  # type: ignore[no-untyped-call]
        raise GatewayUnreachableError(
            f"cannot reach the gateway at {url}: {exc}; check the URL, DNS and the way out to the internet"
        ) from exc
    if ws.sock is None or ws.getsubprotocol() != SUBPROTOCOL:
        ws.shutdown()  # type: ignore[no-untyped-call]
        raise GatewayUnreachableError(f"the server at {url} does not speak {SUBPROTOCOL}; check the URL")
    return WebSocketTransport(ByteStream(ws.sock), url)


def _socket_options() -> list[tuple[int, int, int]]:
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A peer that vanished must not be waited for as long as TCP does by default: a quarter of an hour.
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_TIMEOUT * 1000)))
    return options


class WebSocketTransport:
    """An open WebSocket; see :class:`emissary_lib.transport.base.MessageTransport` for the contract."""

    def __init__(self, stream: ByteStream, url: str) -> None:
        self._stream = stream
        self._url = url
        self._deadline = Deadline(None)
        self._frames = websocket.frame_buffer(self._read, True)
        self._parts: list[bytes] = []  # of a message whose last fragment has not come yet
        self._send_lock = threading.Lock()

    def send(self, text: str) -> None:
        data = text.encode("ascii")
        frames = []
        for start in range(0, len(data) or 1, MAX_FRAGMENT):
            opcode = websocket.ABNF.OPCODE_CONT if start else websocket.ABNF.OPCODE_TEXT
            last = start + MAX_FRAGMENT >= len(data)
            frames.append(_frame(data[start : start + MAX_FRAGMENT], opcode, last=last))
        self._write(b"".join(frames))

    def recv(self, timeout: float | None) -> str:
        self._deadline = Deadline(timeout)
        while True:
            try:
                frame = self._frames.recv_frame()
            except (websocket.WebSocketException, OSError, ValueError) as exc:
                if isinstance(exc, TimeoutError):
                    raise
                raise LinkClosedError(f"the WebSocket to {self._url} broke: {exc}") from exc
            data = bytes(frame.data)  # type: ignore[arg-type]  # bytes by then, whatever its annotation says
            match frame.opcode:
                case websocket.ABNF.OPCODE_TEXT | websocket.ABNF.OPCODE_CONT:
                    self._parts.append(data)
                    if frame.fin:
                        message, self._parts = b"".join(self._parts), []
                        return message.decode("ascii", "replace")
                case websocket.ABNF.OPCODE_PING:
                    self._write(_frame(data, websocket.ABNF.OPCODE_PONG))
                case websocket.ABNF.OPCODE_CLOSE:
                    raise self._closed_by_peer(data)

    def close(self) -> None:
        # Somebody else may be blocked in a send; then the goodbye is dropped rather than waited for.
        if self._send_lock.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    goodbye = (1000).to_bytes(2, "big")
                    self._stream.write(_frame(goodbye, websocket.ABNF.OPCODE_CLOSE), Deadline(0))
            finally:
                self._send_lock.release()
        self.abort()

    def abort(self) -> None:
        self._stream.shutdown()

    def release(self) -> None:
        """Close the file descriptor; only once no thread uses this transport any more."""
        self._stream.close()

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size, self._deadline)
        if not data:
            raise ConnectionResetError("the connection ended without a close frame")
        return data

    def _write(self, data: bytes) -> None:
        with self._send_lock:
            try:
                self._stream.write(data, Deadline(SEND_TIMEOUT))
            except OSError as exc:
                self.abort()  # part of a frame may be gone: nothing can follow it
                raise LinkClosedError(f"the WebSocket to {self._url} broke: {exc}") from exc

    def _closed_by_peer(self, data: bytes) -> LinkClosedError:
        with contextlib.suppress(LinkClosedError):
            self._write(_frame(data[:2], websocket.ABNF.OPCODE_CLOSE))
        code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
        reason = data[2:].decode("utf-8", "replace") or "no reason given"
        return LinkClosedError(
            f"the gateway at {self._url} closed the WebSocket: {code} ({reason})", close_code=code
        )


def _frame(data: bytes, opcode: int, *, last: bool = True) -> bytes:
    return websocket.ABNF.create_frame(data, opcode, int(last)).format()
