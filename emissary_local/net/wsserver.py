"""The server's end of one WebSocket, as strict as API Gateway's.

It drives the sans-I/O core of the ``websockets`` package: that shows single frames, which a message-level
server does not, and the 32 KB limit is one on frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from emissary_local.limits import Limits
from emissary_local.net.tcp import reset

#: Close codes used here. Source: RFC 6455 section 7.4.1, and API Gateway's behaviour for each.
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
UNSUPPORTED_DATA: Final = 1003
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009

#: The beginning of a text frame of 1,024 bytes, and half of it.
_HALF_A_FRAME: Final = b"\x81\x7e\x04\x00" + b"A" * 512

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class SocketOwner(Protocol):
    """Who is told what happens on a :class:`ClientSocket`. Calls come from the event loop."""

    def upgrade_requested(self, socket: ClientSocket, request: Request) -> None:
        """A valid upgrade came; answer it, at any time, with ``accept`` or ``refuse``."""

    def message_received(self, socket: ClientSocket, text: bytes) -> None:
        """One whole text message came; valid UTF-8, within the limits."""

    def closed(self, socket: ClientSocket, code: int, reason: str) -> None:
        """An accepted connection ended, whoever ended it; called once, nothing follows."""


class ClientSocket(asyncio.Protocol):
    """The server's end of one WebSocket.

    Thread safety: none; it belongs to its event loop. No method blocks.

    Args:
        owner: Who is told.
        limits: Frame and message sizes, and the time a close may take.
        clock: For ``Date`` headers, seconds since 1970.
    """

    def __init__(self, owner: SocketOwner, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._owner = owner
        self._limits = limits
        self._clock = clock
        self._silent = False
        # The message limit is ours to check: the library's counts control frames into it.
        self._ws = ServerProtocol(max_size=(None, limits.frame_bytes))
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._early = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = True  # Until accepted.
        self._closing: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Accepted, and no close sent, received or inferred."""
        return self._ws.state is State.OPEN and not self._ended

    @property
    def waiting_bytes(self) -> int:
        """Bytes accepted for sending that the operating system has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def source_ip(self) -> str:
        """The client's address."""
        return str(self._the_transport().get_extra_info("peername")[0])

    @property
    def secure(self) -> bool:
        """Whether the client came over TLS."""
        return self._the_transport().get_extra_info("ssl_object") is not None

    def begin(self, transport: asyncio.Transport, head: bytes, early: bytes) -> None:
        """Take over a connection whose first request is an upgrade.

        Args:
            transport: The connection.
            head: The request head, its empty line included.
            early: What came behind it; kept until the upgrade is accepted.
        """
        self._transport = transport
        transport.set_protocol(self)
        self._early = early
        self._ws.receive_data(head)
        events = self._ws.events_received()
        if not events:
            transport.write(_BAD_REQUEST)
            transport.close()
            return
        request = cast(Request, events[0])
        response = self._ws.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._ws.send_response(response)
            self._flush()
            return
        self._response = response
        # Nothing may be said before the 101; what the client sends meanwhile waits in the kernel.
        transport.pause_reading()
        self._owner.upgrade_requested(self, request)

    def accept(self, subprotocol: str | None) -> bool:
        """Answer 101, and start receiving. State: after ``upgrade_requested``, once.

        Returns:
            False when the client is gone already; then ``closed`` is never called.
        """
        if self._response is None or self._the_transport().is_closing():
            return False
        self._set_date(self._response)
        if subprotocol is not None:
            self._response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._ws.send_response(self._response)
        self._response, self._ended = None, False
        self._flush()
        self._the_transport().resume_reading()
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)
        return True

    def refuse(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Answer the upgrade with an HTTP error. State: after ``upgrade_requested``, once."""
        if self._response is None or self._the_transport().is_closing():
            return
        self._set_date(self._response)
        fields = Headers([("Date", self._response.headers["Date"]), ("Connection", "close")])
        for name, value in headers:
            fields[name] = value
        fields["Content-Length"] = str(len(body))
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = "Refused"
        self._response = None
        self._ws.send_response(Response(status, phrase, fields, body))
        self._flush()
        self._the_transport().resume_reading()

    def send(self, text: bytes) -> None:
        """Send one text message, in frames of at most ``limits.frame_bytes``. Does nothing once closed.

        Args:
            text: Valid UTF-8.
        """
        if not self.is_open or self._silent:
            return
        step = self._limits.frame_bytes
        if len(text) <= step:
            self._ws.send_text(text)
        else:
            view = memoryview(text)
            self._ws.send_text(view[:step], fin=False)
            for start in range(step, len(text), step):
                self._ws.send_continuation(view[start : start + step], fin=start + step >= len(text))
        self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close from here: ``closed`` is called at once, the TCP connection ends when the client agrees."""
        if not self.is_open:
            return
        if self._silent:
            self._finish()
            return
        self._ws.send_close(code, reason)
        self._flush()
        self._arm_close()
        self._finish()

    def abort(self) -> None:
        """Drop the TCP connection with no close frame."""
        if self._transport is not None:
            self._transport.abort()

    # The ways in which a network ends a connection, for the fault engine. Each needs an open one.

    def reset(self) -> None:
        """End it with a TCP reset: what was on its way, either way, is lost."""
        reset(self._the_transport())
        self._finish()

    def break_off(self) -> None:
        """End it in the middle of a frame that the client has begun to receive."""
        transport = self._the_transport()
        transport.write(_HALF_A_FRAME)
        transport.close()
        self._arm_close()
        self._finish()

    def lose_answer(self) -> None:
        """End it instead of answering the upgrade; ``closed`` is not called. State: as for ``accept``."""
        self._response = None
        self._the_transport().abort()

    def silence(self) -> None:
        """Neither read nor write any more, and leave the TCP connection as it is. It still counts as open."""
        self._silent = True
        self._the_transport().pause_reading()

    @property
    def is_silent(self) -> bool:
        """Whether it has been silenced."""
        return self._silent

    def give_up(self) -> None:
        """Take a silent connection for lost: ``closed`` is told 1006, and its client still hears nothing."""
        self._finish()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client, unless the connection is silent."""
        if self._silent:
            return
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if not self._receive(cast(Frame, event)):
                break
        self._settle()

    def eof_received(self) -> bool:
        """The client has ended its side: so does this one."""
        self._ws.receive_eof()
        self._settle()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is gone: ``closed`` is told, if it was not before."""
        if self._closing is not None:
            self._closing.cancel()
        self._finish()

    def _receive(self, frame: Frame) -> bool:
        """Take one frame in; False when it broke a rule and nothing behind it counts."""
        if frame.opcode is Opcode.BINARY:
            self._ws.fail(UNSUPPORTED_DATA, "Binary is not supported")
            return False
        if frame.opcode is not Opcode.TEXT and frame.opcode is not Opcode.CONT:
            return True  # The library has answered pings and closes.
        self._parts.append(bytes(frame.data))
        self._size += len(frame.data)
        if self._size > self._limits.message_bytes:
            self._ws.fail(TOO_BIG, "Message too long")
            return False
        if not frame.fin:
            return True
        text = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        if not text.isascii():
            try:
                text.decode()
            except UnicodeDecodeError:
                self._ws.fail(INVALID_DATA, "Invalid UTF-8")
                return False
        self._owner.message_received(self, text)
        return True

    def _settle(self) -> None:
        self._flush()
        if self._ws.state is State.CLOSING or self._ws.state is State.CLOSED:
            self._arm_close()
            self._finish()

    def _flush(self) -> None:
        writes = self._ws.data_to_send()
        transport = self._transport
        if not writes or transport is None or transport.is_closing():
            return
        ends = not writes[-1]  # An empty write is the library's sign for "end of stream".
        transport.writelines([data for data in writes if data])
        if ends:
            self._arm_close()
            if transport.can_write_eof():
                # Half-closed, not closed: closing with bytes unread would reset the connection and could
                # destroy the close frame on its way. A client that is gone already, unread, makes it fail.
                with contextlib.suppress(OSError):
                    transport.write_eof()
            else:
                transport.close()

    def _arm_close(self) -> None:
        if self._closing is None and self._transport is not None:
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(self._limits.close_seconds, self._transport.abort)

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._parts = []
        close = self._ws.close_rcvd or self._ws.close_sent
        if close is None:
            self._owner.closed(self, ABNORMAL, "Connection closed abnormally")
        elif close.code == NO_STATUS:
            self._owner.closed(self, NO_STATUS, "Client-side close frame status not set")
        else:
            self._owner.closed(self, int(close.code), close.reason)

    def _set_date(self, response: Response) -> None:
        del response.headers["Date"]
        response.headers["Date"] = email.utils.formatdate(self._clock(), usegmt=True)

    def _the_transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("ClientSocket.begin has not been called")
        return self._transport
