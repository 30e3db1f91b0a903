"""WebSocket frames, as a client reads and writes them, without I/O.

What carries ``emissary.v2`` takes whole text messages out of a socket that it waits for. Here bytes are
handed on as they come, so that a message may be of any length and nothing of it is kept. Source: RFC 6455
section 5; docs/protocol.md sections 12.2 and 12.3.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.text import decode_clean

#: Longest payload of a control frame, in bytes (RFC 6455 section 5.5).
MAX_CONTROL: Final = 125

#: What a Close frame without a status reads as (RFC 6455 section 7.1.5).
NO_STATUS: Final = 1005

_MASKED: Final = 0x80
_FIN: Final = 0x80
_RESERVED: Final = 0x70


class Opcode(enum.IntEnum):
    """Kind of a frame (RFC 6455 section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_CONTROL: Final = frozenset({Opcode.CLOSE, Opcode.PING, Opcode.PONG})


class Payload(Record):
    """Bytes of a message; one message has several of these.

    Attributes:
        data: The bytes; empty for nothing but the end of a message.
        ends: Whether the message ends with them.
    """

    data: bytes = hidden()
    ends: bool


class Ping(Record):
    """To be answered by a Pong with the same data."""

    data: bytes


class Pong(Record):
    """The answer to a Ping, or none's."""

    data: bytes


class Close(Record):
    """The last frame.

    Attributes:
        code: RFC 6455 section 7.4; ``NO_STATUS`` if there was none.
        reason: In words, cleaned of what a terminal would act on; may be empty.
    """

    code: int
    reason: str


Event = Payload | Ping | Pong | Close


class FrameReader:
    """Reads the server's frames, cut in any way.

    It keeps no more than a frame's head and a control frame: 135 bytes. Nothing is read behind a Close.

    Thread safety: none; one owner.
    """

    def __init__(self) -> None:
        self._kept = b""  # a head, or a control frame, that is not whole
        self._left = 0  # of the payload of a data frame that has begun
        self._final = True  # whether that frame, or the last one, ended its message
        self._closed = False

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes; gives what they bring, which is to be taken to its end.

        Raises:
            RemoteProtocolError: They are no frames of a server's, or of a kind that the original does not
                send.
        """
        data, at = self._kept + data, 0
        self._kept = b""
        while at < len(data) and not self._closed:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                yield Payload(piece, self._final and not self._left)
                continue
            head = _head(data, at)
            if head is None:
                self._kept = data[at:]
                return
            size, opcode, final, length = head
            if opcode in _CONTROL:
                if len(data) < at + size + length:
                    self._kept = data[at:]
                    return
                yield self._control(opcode, data[at + size : at + size + length])
                at += size + length
            else:
                self._begin(opcode, final=final, length=length)
                at += size
                if not length:
                    yield Payload(b"", final)

    def _begin(self, opcode: Opcode, *, final: bool, length: int) -> None:
        if (opcode is Opcode.BINARY) is not self._final:
            raise RemoteProtocolError("the server mixed up the fragments of its messages")
        self._left, self._final = length, final

    def _control(self, opcode: Opcode, data: bytes) -> Event:
        if opcode is Opcode.PING:
            return Ping(data)
        if opcode is Opcode.PONG:
            return Pong(data)
        self._closed = True
        if len(data) == 1:
            raise RemoteProtocolError("the server sent a Close frame with half a status")
        code = int.from_bytes(data[:2], "big") if data else NO_STATUS
        return Close(code, decode_clean(data[2:]))


def _head(data: bytes, at: int) -> tuple[int, Opcode, bool, int] | None:
    """Size of the head at ``at``, opcode, FIN, length of the payload; ``None`` if more bytes are needed."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    try:
        opcode = Opcode(first & 0xF)
    except ValueError:
        raise RemoteProtocolError(f"the server sent a frame of the unknown kind {first & 0xF}") from None
    if first & _RESERVED:
        raise RemoteProtocolError("the server sent a frame with a reserved bit: no extension was offered")
    if second & _MASKED:
        raise RemoteProtocolError("the server sent a masked frame, as clients do")
    if opcode is Opcode.TEXT:
        raise RemoteProtocolError("the server sent a text message; the original Emissary sends binary ones")
    final, length = bool(first & _FIN), second
    if opcode in _CONTROL:
        if length > MAX_CONTROL or not final:
            raise RemoteProtocolError("the server sent a control frame that is too long, or in fragments")
        return 2, opcode, final, length
    if length <= MAX_CONTROL:
        return 2, opcode, final, length
    form, least = (">H", MAX_CONTROL + 1) if length == MAX_CONTROL + 1 else (">Q", 1 << 16)
    size = 2 + struct.calcsize(form)
    if len(data) < at + size:
        return None
    (length,) = struct.unpack_from(form, data, at + 2)
    if not least <= length < 1 << 63:
        raise RemoteProtocolError("the server sent a frame with a length that RFC 6455 has no form for")
    return size, opcode, final, length


def encode_frame(opcode: Opcode, payload: bytes, mask: bytes) -> bytes:
    """A client's frame, whole, so that it is a message of its own.

    Args:
        opcode: Its kind.
        payload: Of a control frame at most 125 bytes.
        mask: 4 bytes that nobody can foretell (RFC 6455 section 5.3).
    """
    size = len(payload)
    if size <= MAX_CONTROL:
        head = struct.pack(">BB", _FIN | opcode, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", _FIN | opcode, _MASKED | MAX_CONTROL + 1, size)
    else:
        head = struct.pack(">BBQ", _FIN | opcode, _MASKED | MAX_CONTROL + 2, size)
    return head + mask + _masked(payload, mask)


def encode_close(code: int, mask: bytes) -> bytes:
    """A client's Close frame, without a reason."""
    return encode_frame(Opcode.CLOSE, struct.pack(">H", code), mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
