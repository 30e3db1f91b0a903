"""The heads of WebSocket frames, written as a client and read as one (RFC 6455 section 5). Pure.

Who waits for whole messages, and who hands bytes on as they come, each take payloads in their own way.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.wire.masking import mask


class Opcode(enum.IntEnum):
    """What a frame is (section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


#: Frames that stand between others, and between the fragments of a message.
CONTROL: Final = frozenset({Opcode.CLOSE, Opcode.PING, Opcode.PONG})

#: Longest payload of a control frame, in bytes (section 5.5); longer ones tell their length in another form.
MAX_CONTROL: Final = 125

_OPCODES: Final = {int(opcode): opcode for opcode in Opcode}

# Bits of the first byte and of the second, and the lengths that say that others tell it.
_FIN, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_TWO_BYTES, _EIGHT_BYTES = 126, 127


class FrameFormatError(RemoteProtocolError):
    """A head that no server may send; the text says what it is: ``a frame of ...``."""


class Head(NamedTuple):
    """What stands before a payload.

    Attributes:
        length: Its own, in bytes.
        opcode: What the frame is.
        last: Whether the frame ends its message.
        size: Of the payload, in bytes.
    """

    length: int
    opcode: Opcode
    last: bool
    size: int


def read_head(data: bytes, at: int) -> Head | None:
    """The head that begins at ``at``; ``None`` if more bytes are needed.

    Raises:
        FrameFormatError: There can be none.
    """
    if len(data) < at + 2:
        return None
    first, size = data[at], data[at + 1]
    opcode = _OPCODES.get(first & _OPCODE)
    if opcode is None:
        raise FrameFormatError(f"a frame of the unknown kind {first & _OPCODE}")
    if first & _RESERVED:
        raise FrameFormatError("a frame with a reserved bit, though no extension was offered")
    if size & _MASKED:
        raise FrameFormatError("a frame that is masked, as only a client's are")
    last, length = bool(first & _FIN), 2
    if opcode in CONTROL and not (last and size <= MAX_CONTROL):
        raise FrameFormatError("a control frame that is too long, or in fragments")
    if size >= _TWO_BYTES:
        least, length = (_TWO_BYTES, 4) if size == _TWO_BYTES else (1 << 16, 10)
        if len(data) < at + length:
            return None
        size = int.from_bytes(data[at + 2 : at + length], "big")
        if not least <= size < 1 << 63:
            raise FrameFormatError("a frame whose length is not in the shortest form")
    return Head(length, opcode, last, size)


def frame_parts(
    payload: bytes, opcode: Opcode, key: bytes, *, last: bool = True
) -> tuple[bytes, bytes, bytes]:
    """One frame to send, in pieces.

    Args:
        payload: Of a control frame at most ``MAX_CONTROL`` bytes.
        opcode: What it is.
        key: Four bytes for the mask, that nobody can guess, fresh for each frame (section 5.3).
        last: Whether it ends its message.
    """
    first, size = (_FIN if last else 0) | opcode, len(payload)
    if size < _TWO_BYTES:
        head = bytes([first, _MASKED | size])
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, _MASKED | _TWO_BYTES, size)
    else:
        head = struct.pack(">BBQ", first, _MASKED | _EIGHT_BYTES, size)
    return head, key, mask(payload, key)
