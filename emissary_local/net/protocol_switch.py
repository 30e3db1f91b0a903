"""One listening port for WebSocket upgrades and plain HTTP, because AWS has one host for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from emissary_local.limits import Limits
from emissary_local.net.wsserver import ClientSocket

_END_OF_HEAD: Final = b"\r\n\r\n"

#: What a TLS client begins with. Source: RFC 8446 section 5.1, ``handshake(22)``.
_TLS_HANDSHAKE: Final = 0x16


class ProtocolSwitch(asyncio.Protocol):
    """Reads the first request head of a TCP connection, then hands the connection on.

    Args:
        upgrade: Makes the socket of a WebSocket upgrade.
        plain: Makes the protocol for anything else; it gets the bytes read so far.
        limits: How long the head may be, and take.
        track: Called with the transport when the connection opens, so that it can be dropped at the end.
    """

    def __init__(
        self,
        upgrade: Callable[[], ClientSocket],
        plain: Callable[[], asyncio.Protocol],
        limits: Limits,
        track: Callable[[asyncio.Transport], None],
    ) -> None:
        self._upgrade = upgrade
        self._plain = plain
        self._limits = limits
        self._track = track
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request's head, for as long as the limits allow."""
        self._transport = cast(asyncio.Transport, transport)
        self._track(self._transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._limits.head_seconds, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer; there is nobody to hand over to."""
        self._stop()

    def data_received(self, data: bytes) -> None:
        """Collect the head; once it is whole, hand the connection and all that was read over."""
        if self._transport is None:
            return
        self._buffer += data
        if self._buffer[0] == _TLS_HANDSHAKE:  # else it would wait for an answer for as long as it can
            self._turn_away(400, "This port speaks plain HTTP; start the local cloud with TLS")
            return
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0:
            if len(self._buffer) > self._limits.head_bytes:
                self._turn_away(431, "Request Header Fields Too Large")
            return
        head = bytes(self._buffer[: end + len(_END_OF_HEAD)])
        line, _, fields = head.partition(b"\r\n")
        if len(line) > self._limits.url_characters + len("OPTIONS  HTTP/1.1"):
            self._turn_away(414, "Request-URI Too Long")
            return
        self._stop()
        transport, self._transport = self._transport, None
        if _asks_for_websocket(fields):
            self._upgrade().begin(transport, head, bytes(self._buffer[len(head) :]))
        else:
            protocol = self._plain()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            protocol.data_received(bytes(self._buffer))

    def _turn_away(self, status: int, phrase: str) -> None:
        self._stop()
        if self._transport is not None:
            self._transport.write(
                f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
            )
            self._transport.close()
            self._transport = None

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


def _asks_for_websocket(fields: bytes) -> bool:
    for line in fields.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"upgrade" and b"websocket" in value:
            return True
    return False
