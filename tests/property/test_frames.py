"""Any frame comes back as it was; any text is a frame or a FrameError, for each decoder."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emissary_lib.protocol.constants import MAX_MESSAGE, MAX_PAYLOAD
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode, newer, peek
from tests.fuzz import wire

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


@given(FRAMES)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    text = encode(frame)
    assert text.isascii()
    assert len(text) == 4 * ((24 + len(frame.payload) + 2) // 3)
    assert decode(text) == frame
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


@given(st.binary(max_size=120))
def test_a_message_of_any_bytes_decodes_only_as_itself(raw: bytes) -> None:
    text = base64.b64encode(bytes([0x41, Flag.IGNORABLE]) + bytes(22) + raw).decode()
    assert decode(text).payload == raw


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
