"""Any frame comes back as it was; any text is a frame or a FrameError, for each decoder."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emissary_lib.protocol.constants import MAX_MESSAGE, MAX_PAYLOAD
from emissary_lib.protocol.wire.base64 import Base64, EncodingError, decode_strictly
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode, newer, peek
from tests.fuzz import wire
from tests.helpers.speedups import BASE64

U64 = st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    Frame,
    type=st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    generation=st.integers(0, 65_535),
    window=st.integers(0, 2**32 - 1),
    offset=U64,
    ack=U64,
    payload=st.binary(max_size=200),
)
BASE64ISH = st.text(alphabet="ABCQgw+/=019", max_size=80)


def spoilt(raw: bytes, at: int, instead: bytes, cut: int) -> bytes:
    """The text of some bytes, with something else at one place."""
    text = base64.b64encode(raw)
    at %= len(text) + 1
    return text[:at] + instead + text[at + cut :]


NEARLY = st.builds(
    spoilt,
    st.binary(max_size=40),
    st.integers(0, 100),
    st.sampled_from([b"", b"=", b"==", b"\n", b"A", b"h", b"\xff", b"-"]),
    st.integers(0, 2),
)


@BASE64
@given(frame=FRAMES)
def test_a_frame_comes_back_as_it_was(codec: Base64, frame: Frame) -> None:
    text = encode(frame, codec)
    assert text.isascii()
    assert len(text) == 4 * ((24 + len(frame.payload) + 2) // 3)
    assert decode(text, codec) == frame
    assert peek(text) == (frame.type, frame.generation)


@given(st.integers(0, MAX_PAYLOAD))
@example(MAX_PAYLOAD)
def test_a_frame_of_any_size_fits_a_message(size: int) -> None:
    text = encode(Frame(FrameType.DATA, payload=bytes(size)))
    assert len(text) <= MAX_MESSAGE
    assert len(decode(text).payload) == size


@given(st.one_of(st.text(max_size=100), BASE64ISH, st.builds("QQAA".__add__, BASE64ISH)))
@example("A" * 33 + "=")
def test_any_text_is_a_frame_or_refused(text: str) -> None:
    wire.frames(text.encode())


@BASE64
@given(raw=st.binary(max_size=120))
def test_a_message_of_any_bytes_decodes_only_as_itself(codec: Base64, raw: bytes) -> None:
    text = base64.b64encode(bytes([0x41, Flag.IGNORABLE]) + bytes(22) + raw)
    assert decode(text, codec).payload == raw


@BASE64
@given(text=st.one_of(BASE64ISH.map(str.encode), st.binary(max_size=80), NEARLY))
def test_only_the_one_text_of_some_bytes_is_decoded(codec: Base64, text: bytes) -> None:
    with contextlib.suppress(EncodingError):
        assert base64.b64encode(decode_strictly(text, codec)) == text


@pytest.mark.parametrize("kind", range(len(wire.PAYLOADS)))
@given(raw=st.binary(max_size=700))
def test_any_payload_is_read_or_refused(kind: int, raw: bytes) -> None:
    wire.payloads(bytes([kind]) + raw)


@given(ack=U64, raw=st.binary(max_size=80))
def test_any_ranges_are_read_or_refused(ack: int, raw: bytes) -> None:
    wire.sack_ranges(ack.to_bytes(8, "big") + raw)


@given(st.integers(0, 65_535), st.integers(0, 65_535))
def test_of_two_generations_at_most_one_is_newer(one: int, other: int) -> None:
    assert not (newer(one, other) and newer(other, one))
    assert newer(one, other) or newer(other, one) or (one - other) % 65_536 in (0, 32_768)
