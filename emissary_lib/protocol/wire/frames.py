"""One frame to one text message and back (docs/protocol.md section 2).

A message is bytes, all of them ASCII, from here to the socket; text is only what the bridge's events hold.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from emissary_lib.protocol.constants import HEADER_BYTES, MAX_MESSAGE, MAX_PAYLOAD, VERSION
from emissary_lib.protocol.errors import FrameError, LocalProtocolError, UnsupportedVersionError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.wire.base64 import FASTEST, Base64, EncodingError, decode_strictly

_HEADER: Final = struct.Struct(">BBHIQQ")
_PEEK: Final = struct.Struct(">BBH")
_TYPE_BITS: Final = 5
_TYPE_MASK: Final = (1 << _TYPE_BITS) - 1


class FrameType(enum.IntEnum):
    """The frame types; numbers below 16 may come from a client, the others from the bridge or the relay."""

    DATA = 1
    ACK = 2
    PING = 3
    PONG = 4
    RESET = 5
    OPENING = 8
    RESUME = 9
    PROBE = 10
    END = 11
    HEALTH = 12
    CONNECTIONS = 13
    RESUMED = 16
    PROBED = 17
    ENDED = 18
    HEALTHY = 19
    DISCONNECTED = 20
    OPENED = 24
    GOAWAY = 25


class Flag(enum.IntFlag):
    """Bits of the flags byte."""

    FIN = 0x01
    IGNORABLE = 0x02
    ACK_NOW = 0x04
    SHORT = 0x08


#: What ``$default`` copies to the peer unread.
COPIED: Final = frozenset({FrameType.DATA, FrameType.ACK, FrameType.PING, FrameType.PONG, FrameType.RESET})

_TYPES: Final = {int(frame_type): frame_type for frame_type in FrameType}


class Frame(Record):
    """One protocol unit.

    Attributes:
        type: A :class:`FrameType`, or the bare number of an unknown type that is marked IGNORABLE.
        flags: :class:`Flag` bits.
        generation: 0 to 65535 (docs/protocol.md section 5).
        window: Bytes the sender of this frame accepts beyond ``ack``.
        offset: Position in the sender's stream of the first stream byte in ``payload``.
        ack: Every byte of the receiver's stream below this position has arrived.
        payload: At most ``MAX_PAYLOAD`` bytes.
    """

    __slots__ = ("ack", "flags", "generation", "offset", "payload", "type", "window")

    type: int
    flags: int
    generation: int
    window: int
    offset: int
    ack: int
    payload: bytes

    def __init__(
        self,
        type: int,
        flags: int = 0,
        generation: int = 0,
        window: int = 0,
        offset: int = 0,
        ack: int = 0,
        payload: bytes = b"",
    ) -> None:
        put = object.__setattr__
        put(self, "type", type)
        put(self, "flags", flags)
        put(self, "generation", generation)
        put(self, "window", window)
        put(self, "offset", offset)
        put(self, "ack", ack)
        put(self, "payload", payload)


def encode(frame: Frame, base64: Base64 = FASTEST) -> bytes:
    """The frame as one text message of at most ``MAX_MESSAGE`` ASCII characters.

    Args:
        frame: What to write.
        base64: Does the work.

    Raises:
        LocalProtocolError: A field is out of range or the payload too long: a bug on this side.
    """
    if not 0 <= frame.type <= _TYPE_MASK:
        raise LocalProtocolError(f"frame type {frame.type} does not fit {_TYPE_BITS} bits")
    if len(frame.payload) > MAX_PAYLOAD:
        raise LocalProtocolError(f"a payload of {len(frame.payload)} bytes is over {MAX_PAYLOAD}")
    try:
        header = _HEADER.pack(
            VERSION << _TYPE_BITS | frame.type,
            frame.flags,
            frame.generation,
            frame.window,
            frame.offset,
            frame.ack,
        )
    except struct.error as exc:
        raise LocalProtocolError(f"a header field is out of range: {exc}") from exc
    return base64.encode(header + frame.payload)


def decode(message: bytes, base64: Base64 = FASTEST) -> Frame:
    """Read one message.

    Args:
        message: As it came.
        base64: Does the work.

    Raises:
        FrameError: Not strict base64, shorter than a header, over ``MAX_MESSAGE``, or a type that is
            unknown and not marked IGNORABLE.
        UnsupportedVersionError: A frame of another version.
    """
    if len(message) > MAX_MESSAGE:
        raise FrameError(f"a message of {len(message)} characters is over {MAX_MESSAGE}")
    raw = _strict_base64(message, base64)
    if raw:
        _check_version(raw[0])  # first: another version may have another header
    if len(raw) < HEADER_BYTES:
        raise FrameError(f"a frame of {len(raw)} bytes is shorter than its {HEADER_BYTES}-byte header")
    first, flags, generation, window, offset, ack = _HEADER.unpack_from(raw)
    number = first & _TYPE_MASK
    frame_type = _TYPES.get(number, number)
    if not isinstance(frame_type, FrameType) and not flags & Flag.IGNORABLE:
        raise FrameError(f"frame type {number} is unknown and not ignorable")
    return Frame(frame_type, flags, generation, window, offset, ack, raw[HEADER_BYTES:])


def peek(message: bytes) -> tuple[int, int]:
    """Type number and generation, from the first 8 characters alone: all that ``$default`` looks at.

    Raises:
        FrameError: Fewer than 8 characters, or not base64.
        UnsupportedVersionError: A frame of another version.
    """
    if len(message) < 8:
        raise FrameError(f"a message of {len(message)} characters is no frame")
    raw = _strict_base64(message[:8], FASTEST)
    if len(raw) < 6:
        raise FrameError("a message that ends within its header is no frame")
    first, _flags, generation = _PEEK.unpack_from(raw)
    _check_version(first)
    return first & _TYPE_MASK, generation


def newer(generation: int, than: int) -> bool:
    """Whether one generation is newer than another, as serial numbers (RFC 1982, 16 bits).

    Example:
        >>> newer(0, 65535), newer(2, 2), newer(1, 2)
        (True, False, False)
    """
    return 0 < (generation - than) & 0xFFFF < 0x8000


def _check_version(first: int) -> None:
    version = first >> _TYPE_BITS
    if version != VERSION:
        raise UnsupportedVersionError(f"the peer speaks protocol version {version}, this side {VERSION}")


def _strict_base64(message: bytes, base64: Base64) -> bytes:
    try:
        return decode_strictly(message, base64)
    except EncodingError as exc:
        raise FrameError(f"a message is not strict base64: {exc}") from exc
