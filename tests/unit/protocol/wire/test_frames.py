"""Frames as text messages and back (docs/protocol.md section 2); golden bytes are written out by hand."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest

from emissary_lib.protocol.constants import MAX_MESSAGE, MAX_PAYLOAD
from emissary_lib.protocol.errors import FrameError, LocalProtocolError, UnsupportedVersionError
from emissary_lib.protocol.wire.base64 import Base64
from emissary_lib.protocol.wire.frames import COPIED, Flag, Frame, FrameType, decode, encode, newer, peek
from tests.helpers.speedups import BASE64

VECTORS: dict[str, Any] = json.loads(
    (pathlib.Path(__file__).parents[3] / "vectors" / "frames.json").read_text()
)
HEADER = bytes.fromhex("41 07 1234 00010203 0102030405060708 1112131415161718")
FRAME = Frame(
    FrameType.DATA, 0x07, 0x1234, 0x00010203, 0x0102030405060708, 0x1112131415161718, b"\xfb\xff\x00"
)
TEXT = b"QQcSNAABAgMBAgMEBQYHCBESExQVFhcY+/8A"


def text_of(raw: bytes) -> bytes:
    return base64.b64encode(raw)


def test_a_frame_is_these_characters() -> None:
    assert text_of(HEADER + b"\xfb\xff\x00") == TEXT
    assert encode(FRAME) == TEXT
    assert decode(TEXT) == FRAME


@BASE64
@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_every_vector_is_written_and_read(vector: dict[str, Any], codec: Base64) -> None:
    frame = Frame(**{**vector["fields"], "payload": bytes.fromhex(vector["fields"].get("payload", ""))})
    text = vector["text"].encode()
    assert base64.b64encode(bytes.fromhex(vector["bytes"])) == text
    assert decode(text, codec) == frame
    assert encode(frame, codec) == text
    assert peek(text[:8]) == (frame.type, frame.generation)


@BASE64
@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_every_refused_vector_is_refused(vector: dict[str, Any], codec: Base64) -> None:
    errors = {"FrameError": FrameError, "UnsupportedVersionError": UnsupportedVersionError}
    with pytest.raises(errors[vector["error"]]):
        decode(vector["text"].encode(), codec)


def test_the_header_is_exactly_the_first_32_characters() -> None:
    assert encode(Frame(FrameType.ACK)) == b"QgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    assert len(encode(Frame(FrameType.ACK))) == 32
    assert encode(FRAME)[:32] == text_of(HEADER)


@BASE64
@pytest.mark.parametrize("length", range(8))
def test_every_length_of_payload_survives(length: int, codec: Base64) -> None:
    frame = Frame(FrameType.DATA, payload=b"\xff" * length)
    assert encode(frame, codec) == text_of(b"\x41" + bytes(23) + b"\xff" * length)
    assert decode(encode(frame, codec), codec) == frame


@BASE64
def test_the_largest_frame_fills_a_message(codec: Base64) -> None:
    text = encode(Frame(FrameType.DATA, payload=bytes(MAX_PAYLOAD)))
    assert (len(text), MAX_PAYLOAD) == (MAX_MESSAGE, 94_476)
    assert len(decode(text, codec).payload) == MAX_PAYLOAD


def test_a_byte_more_is_refused_on_both_sides() -> None:
    with pytest.raises(LocalProtocolError, match="a payload of 94477 bytes is over 94476"):
        encode(Frame(FrameType.DATA, payload=bytes(MAX_PAYLOAD + 1)))
    with pytest.raises(FrameError, match="a message of 126004 characters is over 126000"):
        decode(text_of(b"\x41" + bytes(23 + MAX_PAYLOAD + 1)))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameType.DATA, flags=256),
        Frame(FrameType.DATA, generation=65_536),
        Frame(FrameType.DATA, window=1 << 32),
        Frame(FrameType.DATA, offset=1 << 64),
        Frame(FrameType.DATA, ack=-1),
    ],
)
def test_a_field_out_of_range_is_this_sides_fault(frame: Frame) -> None:
    with pytest.raises(LocalProtocolError, match="a header field is out of range"):
        encode(frame)


@pytest.mark.parametrize("number", [32, 64, -1])
def test_a_type_never_spills_into_the_version(number: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"frame type {number} does not fit 5 bits"):
        encode(Frame(number))


@BASE64
@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_a_frame_cut_anywhere_is_refused_or_is_a_shorter_frame(cut: int, codec: Base64) -> None:
    """One message is one frame: there is no half a frame to wait for."""
    if cut < 32 or cut % 4:
        with pytest.raises(FrameError):
            decode(TEXT[:cut], codec)
    else:
        assert decode(TEXT[:cut], codec).payload == FRAME.payload[: (cut - 32) // 4 * 3]


@BASE64
@pytest.mark.parametrize("trailing", ["=", "====", "\n", " ", "\0", "A", "-", "{", "é", "\ud800", "\u0130"])
def test_anything_but_strict_base64_is_refused(trailing: str, codec: Base64) -> None:
    strange = trailing.encode("utf-8", "surrogatepass")
    for text in (TEXT + strange, strange + TEXT, TEXT[:16] + strange + TEXT[16:]):
        with pytest.raises((FrameError, UnsupportedVersionError)):
            decode(text, codec)


@BASE64
@pytest.mark.parametrize(
    "last", ["QR==", "QQ=A", "QQ", "QQ=", "QUJ=", "QUI", "QQ===", "Q===", "QUI==", "-_-_"]
)
def test_loose_padding_and_unused_bits_are_refused(last: str, codec: Base64) -> None:
    with pytest.raises(FrameError, match="not strict base64"):
        decode(text_of(HEADER) + last.encode(), codec)


def test_every_other_version_is_named() -> None:
    for version in (0, 1, 3, 4, 5, 6, 7):
        text = text_of(bytes([version << 5 | 1]) + bytes(23))
        with pytest.raises(UnsupportedVersionError, match=f"protocol version {version}, this side 2"):
            decode(text)
        with pytest.raises(UnsupportedVersionError):
            peek(text)


def test_another_version_may_have_another_header() -> None:
    with pytest.raises(UnsupportedVersionError):
        decode(text_of(b"\x61\0\0"))


@pytest.mark.parametrize("length", range(24))
def test_a_frame_shorter_than_its_header_is_refused(length: int) -> None:
    with pytest.raises(FrameError, match=f"a frame of {length} bytes is shorter than its 24-byte header"):
        decode(text_of((b"\x41" + bytes(23))[:length]))


def test_an_unknown_type_is_skipped_only_if_it_says_so() -> None:
    known = {int(kind) for kind in FrameType}
    for number in set(range(32)) - known:
        with pytest.raises(FrameError, match=f"frame type {number} is unknown and not ignorable"):
            decode(text_of(bytes([0x40 | number]) + bytes(23)))
        assert decode(text_of(bytes([0x40 | number, Flag.IGNORABLE]) + bytes(22))).type == number


def test_a_known_type_is_a_frame_type() -> None:
    for kind in FrameType:
        assert decode(encode(Frame(kind))).type is kind


def test_peek_needs_eight_characters_and_no_more() -> None:
    assert peek(TEXT[:8] + b"\n not base64") == (1, 0x1234)
    for text in (b"", TEXT[:7], b"QQcS NAA", b'{"messag', b"QQcSNAA="):
        with pytest.raises(FrameError):
            peek(text)


def test_the_bridge_copies_the_clients_types_only() -> None:
    assert sorted(COPIED) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("generation", "than", "expected"),
    [
        (1, 0, True),
        (0, 1, False),
        (5, 5, False),
        (0, 65_535, True),
        (65_535, 0, False),
        (32_767, 0, True),
        (32_768, 0, False),  # RFC 1982: neither is newer
        (0, 32_768, False),
        (32_769, 0, False),
    ],
)
def test_generations_are_serial_numbers(generation: int, than: int, expected: bool) -> None:
    assert newer(generation, than) is expected
