"""Any frame comes back as it was; any text is a frame or a FrameError, for each decoder."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emissary_lib.protocol.constants import MAX_MESSAGE, MAX_PAYLOAD
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode, newer, peek
from emissary_lib.protocol.wire.payloads import (
    Disconnected,
    End,
    Ended,
    GoAway,
    Opened,
    Reset,
    decode_ranges,
    encode_ranges,
)

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
    try:
        frame = decode(text)
    except RemoteProtocolError:
        return
    assert encode(frame) == text  # no two texts are the same frame


@given(st.one_of(st.text(max_size=40), BASE64ISH))
def test_peek_reads_or_refuses_any_text(text: str) -> None:
    try:
        number, generation = peek(text)
    except RemoteProtocolError:
        return
    assert (0 <= number < 32, 0 <= generation < 65_536) == (True, True)


@given(st.binary(max_size=120))
def test_a_message_of_any_bytes_decodes_only_as_itself(raw: bytes) -> None:
    text = base64.b64encode(bytes([0x41, Flag.IGNORABLE]) + bytes(22) + raw).decode()
    assert decode(text).payload == raw


@pytest.mark.parametrize(
    "decoder",
    [Reset.decode, End.decode, Ended.decode, Disconnected.decode, GoAway.decode, Opened.decode],
)
@given(raw=st.binary(max_size=700))
def test_any_payload_is_read_or_refused(decoder: Callable[[bytes], object], raw: bytes) -> None:
    try:
        decoder(raw)
    except RemoteProtocolError:
        pass


@given(ack=U64, raw=st.binary(max_size=80))
def test_any_ranges_are_read_or_refused(ack: int, raw: bytes) -> None:
    try:
        ranges = decode_ranges(raw, ack=ack)
    except RemoteProtocolError:
        return
    assert encode_ranges(ranges) == raw
    edges = [ack, *(edge for pair in ranges for edge in pair)]
    assert edges == sorted(set(edges))


@given(st.integers(0, 65_535), st.integers(0, 65_535))
def test_of_two_generations_at_most_one_is_newer(one: int, other: int) -> None:
    assert not (newer(one, other) and newer(other, one))
    assert newer(one, other) or newer(other, one) or (one - other) % 65_536 in (0, 32_768)
