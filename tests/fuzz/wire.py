"""What stands in messages: frames, their payloads, base64, varints, text."""

from __future__ import annotations

import base64
import contextlib
from typing import Final

from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded, encode_unpadded
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode, peek
from emissary_lib.protocol.wire.health import Healthy
from emissary_lib.protocol.wire.payloads import (
    Disconnected,
    End,
    Ended,
    GoAway,
    Opened,
    Reset,
    Resumed,
    decode_ranges,
    encode_ranges,
)
from emissary_lib.protocol.wire.text import clean, decode_clean
from emissary_lib.protocol.wire.varint import decode_varint, encode_varint
from tests.fuzz.entry import as_text

#: Read by number; the order is the seeds'.
PAYLOADS: Final = (Reset, End, Ended, Disconnected, Resumed, GoAway, Opened, Healthy)
_TEXTS: Final = ("reason", "server_version")


def frames(data: bytes) -> None:
    for text in (data, base64.b64encode(data)):
        with contextlib.suppress(RemoteProtocolError):
            number, generation = peek(text)
            assert (0 <= number < 32, 0 <= generation < 65_536) == (True, True)
        with contextlib.suppress(RemoteProtocolError):
            frame = decode(text)
            assert encode(frame) == text  # no two texts are the same frame
            assert peek(text) == (frame.type, frame.generation)


def frame_fields(data: bytes) -> None:
    """Each field with a byte more than it may have, the first two bytes of each for the sign."""
    numbers, at = [], 0
    for width in (2, 2, 3, 5, 9, 9):
        numbers.append(int.from_bytes(data[at : at + width], "big", signed=True))
        at += width
    kind, flags, generation, window, offset, ack = numbers
    frame = Frame(kind, flags, generation, window, offset, ack, data[at:])
    try:
        text = encode(frame)
    except LocalProtocolError:
        return
    if frame.type in tuple(FrameType) or frame.flags & Flag.IGNORABLE:
        assert decode(text) == frame


def payloads(data: bytes) -> None:
    """The first byte says which. Texts may be cut, since what stands for a wrong byte takes three."""
    kind = PAYLOADS[data[0] % len(PAYLOADS)] if data else Reset
    try:
        read = kind.decode(data[1:])
    except RemoteProtocolError:
        return
    once, rest = read if isinstance(read, tuple) else (read, b"")
    again = kind.decode(once.encode() + rest)
    twice, rest_again = again if isinstance(again, tuple) else (again, b"")
    assert rest == rest_again
    for name in once.__match_args__:
        one, other = getattr(once, name), getattr(twice, name)
        assert one.startswith(other) if name in _TEXTS else one == other, name


def sack_ranges(data: bytes) -> None:
    ack = int.from_bytes(data[:8], "big")
    try:
        ranges = decode_ranges(data[8:], ack=ack)
    except RemoteProtocolError:
        return
    assert encode_ranges(ranges) == data[8:]
    edges = [ack, *(edge for pair in ranges for edge in pair)]
    assert edges == sorted(set(edges))


def unpadded_base64(data: bytes) -> None:
    assert decode_unpadded(encode_unpadded(data)) == data
    with contextlib.suppress(EncodingError):
        assert encode_unpadded(decode_unpadded(as_text(data))) == as_text(data)


def varint(data: bytes) -> None:
    try:
        found = decode_varint(data)
    except RemoteProtocolError:
        return
    if found is None:
        assert len(data) < 10
        return
    number, used = found
    assert decode_varint(encode_varint(number)) == (number, len(encode_varint(number)))
    assert len(encode_varint(number)) <= used <= len(data)


def foreign_text(data: bytes) -> None:
    for shown in (clean(as_text(data), 40), decode_clean(data, 40)):
        assert shown.isprintable()
        assert len(shown) <= 40
        assert clean(shown, 40) == shown
