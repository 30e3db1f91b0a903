"""WebSocket frames, written as a client and read as one (RFC 6455 section 5).

websocket-client has both, too. But it takes sixteen kilobytes at a time through five calls each, and that is
most of what a relay's bytes cost it here; and it masks at a third of the speed that Python's own means allow.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from emissary_lib.transport.masking import KEY, mask


class Opcode(enum.IntEnum):
    """What a frame is."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


#: Frames that stand between others, and between the fragments of a message.
CONTROL: Final = frozenset({Opcode.CLOSE, Opcode.PING, Opcode.PONG})

#: Longest payload of a control frame, in bytes (section 5.5).
MAX_CONTROL: Final = 125

_OPCODES: Final = {int(opcode): opcode for opcode in Opcode}

# Bits of the first byte and of the second, and the lengths that say that others tell it.
_FIN, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_TWO_BYTES, _EIGHT_BYTES = 126, 127


class FrameFormatError(ValueError):
    """What came is no frame that may come; the text says what it is."""


class WebSocketFrame(NamedTuple):
    """One frame that came.

    Attributes:
        opcode: What it is.
        last: Whether it ends its message.
        payload: Unmasked.
    """

    opcode: Opcode
    last: bool
    payload: bytes


def frame_parts(payload: bytes, opcode: Opcode, key: bytes, *, last: bool = True) -> tuple[bytes, ...]:
    """One frame to send, in pieces.

    Args:
        payload: At most 65,535 bytes.
        opcode: What it is.
        key: Four bytes for the mask, that nobody can guess, fresh for each frame (section 5.3).
        last: Whether it ends its message.

    Raises:
        OverflowError: The payload is longer: a bug on this side.
    """
    first, size = (_FIN if last else 0) | opcode, len(payload)
    if size < _TWO_BYTES:
        return bytes([first, _MASKED | size]), key, mask(payload, key)
    return bytes([first, _MASKED | _TWO_BYTES]), size.to_bytes(2, "big"), key, mask(payload, key)


class _Head(NamedTuple):
    opcode: Opcode
    last: bool
    size: int
    key: bytes


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
        self._head: _Head | None = None  # of a frame whose payload is not whole
        self._parts: list[bytes] = []  # of that payload
        self._missing = 0

    def next(self) -> WebSocketFrame:
        """The next frame.

        Raises:
            FrameFormatError: It has reserved bits, an unknown opcode or too long a payload.
        """
        if self._head is None:
            self._head = self._take_head()
            self._missing = self._head.size
        payload = self._take_payload()
        head, self._head = self._head, None
        return WebSocketFrame(head.opcode, head.last, mask(payload, head.key) if head.key else payload)

    def _take_head(self) -> _Head:
        self._have(2)
        first, second = self._buffer[self._at], self._buffer[self._at + 1]
        opcode = _OPCODES.get(first & _OPCODE)
        if first & _RESERVED or opcode is None:
            raise FrameFormatError(f"it sent a frame that begins with {first:#04x}")
        size, told = second & _LENGTH, 0
        if size >= _TWO_BYTES:
            told = 2 if size == _TWO_BYTES else 8
        length = 2 + told + (KEY if second & _MASKED else 0)
        self._have(length)
        head = self._buffer[self._at : self._at + length]
        if told:
            size = int.from_bytes(head[2 : 2 + told], "big")
        if size > self._limit:
            raise FrameFormatError(f"it sent a frame of {size} bytes")
        self._at += length
        return _Head(opcode, bool(first & _FIN), size, head[2 + told :])

    def _have(self, count: int) -> None:
        """Have the next ``count`` bytes in the buffer."""
        while len(self._buffer) - self._at < count:
            more = self._read()
            self._buffer, self._at = self._buffer[self._at :] + more, 0

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
