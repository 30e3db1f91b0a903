"""Takes WebSocket frames out of a connection, each of them whole.

websocket-client has that, too. But it takes sixteen kilobytes at a time through five calls each, and that is
most of what a relay's bytes cost it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from emissary_lib.protocol.wire.websocket import FrameFormatError, Head, Opcode, read_head


class WebSocketFrame(NamedTuple):
    """One frame that came.

    Attributes:
        opcode: What it is.
        last: Whether it ends its message.
        payload: The whole of it.
    """

    opcode: Opcode
    last: bool
    payload: bytes


class FrameReader:
    """Takes frames from bytes that come in any pieces.

    Args:
        read: Gives at least one byte more, or raises; then :meth:`next` may be called again, and nothing is
            lost.
        limit: Longest payload to take, in bytes.

    Thread safety: none.
    """

    def __init__(self, read: Callable[[], bytes], limit: int) -> None:
        self._read = read
        self._limit = limit
        self._buffer = b""
        self._at = 0  # how much of it was taken
        self._head: Head | None = None  # of a frame whose payload is not whole
        self._parts: list[bytes] = []  # of that payload
        self._missing = 0

    def next(self) -> WebSocketFrame:
        """The next frame.

        Raises:
            FrameFormatError: What came is none, or has too long a payload.
        """
        if self._head is None:
            self._head = self._take_head()
            self._missing = self._head.size
        payload = self._take_payload()
        head, self._head = self._head, None
        return WebSocketFrame(head.opcode, head.last, payload)

    def _take_head(self) -> Head:
        while (head := read_head(self._buffer, self._at)) is None:
            more = self._read()
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        if head.size > self._limit:
            raise FrameFormatError(f"a frame of {head.size} bytes")
        self._at += head.length
        return head

    def _take_payload(self) -> bytes:
        while self._missing:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._read(), 0
            piece = self._buffer[self._at : self._at + self._missing]
            self._at += len(piece)
            self._missing -= len(piece)
            self._parts.append(piece)
        payload = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        return payload
