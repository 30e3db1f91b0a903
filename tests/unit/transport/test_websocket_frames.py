"""WebSocket frames, against the examples of RFC 6455 and in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.transport.masking import mask
from emissary_lib.transport.websocket_frames import (
    FrameFormatError,
    FrameReader,
    Opcode,
    WebSocketFrame,
    frame_parts,
)
from tests.helpers.ws_server import frame_bytes

LIMIT = 70_000
KEY = bytes.fromhex("37fa213d")

#: Section 5.7.
EXAMPLES = {
    "810548656c6c6f": WebSocketFrame(Opcode.TEXT, True, b"Hello"),
    "818537fa213d7f9f4d5158": WebSocketFrame(Opcode.TEXT, True, b"Hello"),
    "010348656c": WebSocketFrame(Opcode.TEXT, False, b"Hel"),
    "80026c6f": WebSocketFrame(Opcode.CONTINUATION, True, b"lo"),
    "890548656c6c6f": WebSocketFrame(Opcode.PING, True, b"Hello"),
    "8a8537fa213d7f9f4d5158": WebSocketFrame(Opcode.PONG, True, b"Hello"),
    "827e0100" + "ab" * 256: WebSocketFrame(Opcode.BINARY, True, b"\xab" * 256),
    "827f0000000000010000" + "ab" * 65_536: WebSocketFrame(Opcode.BINARY, True, b"\xab" * 65_536),
}


class Pieces:
    """What a socket gives: a piece each time, and a timeout where there is none."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            raise EOFError
        if not piece:
            raise TimeoutError
        return piece


def all_frames(pieces: Iterable[bytes], limit: int = LIMIT) -> list[WebSocketFrame]:
    """Everything that can be read, however often the time runs out in between."""
    reader, found = FrameReader(Pieces(pieces).read, limit), list[WebSocketFrame]()
    while True:
        try:
            found.append(reader.next())
        except TimeoutError:
            pass
        except EOFError:
            return found


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_rfc_are_read(example: str) -> None:
    assert all_frames([bytes.fromhex(example)]) == [EXAMPLES[example]]


def test_the_masked_example_of_the_rfc_is_written() -> None:
    parts = frame_parts(b"Hello", Opcode.TEXT, KEY)
    assert b"".join(parts) == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 255, 256, 31_000, 65_535])
def test_what_is_written_is_read(size: int, last: bool) -> None:
    payload = bytes(range(256)) * 256
    written = b"".join(frame_parts(payload[:size], Opcode.TEXT, KEY, last=last))
    assert all_frames([written]) == [WebSocketFrame(Opcode.TEXT, last, payload[:size])]


def test_a_frame_longer_than_any_of_ours_is_not_written() -> None:
    with pytest.raises(OverflowError):
        frame_parts(bytes(65_536), Opcode.TEXT, KEY)


FRAMES = st.builds(
    WebSocketFrame,
    st.sampled_from(Opcode),
    st.booleans(),
    st.one_of(st.binary(max_size=5), st.binary(min_size=120, max_size=130), st.just(bytes(65_536))),
)


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 300), max_size=20), st.booleans())
def test_frames_are_the_same_in_whatever_pieces_they_come(
    frames: list[WebSocketFrame], cuts: list[int], masked: bool
) -> None:
    raw = b"".join(frame_bytes(each.opcode, each.payload, fin=each.last) for each in frames)
    if masked:
        raw = b"".join(
            bytes([head[0], head[1] | 0x80]) + head[2:] + KEY + mask(payload, KEY)
            for head, payload in (
                (whole[: len(whole) - len(each.payload)], each.payload)
                for each in frames
                for whole in [frame_bytes(each.opcode, each.payload, fin=each.last)]
            )
        )
    pieces, at = [], 0
    for cut in cuts:  # an empty one is a timeout
        pieces.append(raw[at : at + cut])
        at += cut
    assert all_frames([*pieces, *([raw[at:]] if raw[at:] else [])]) == frames


def test_a_frame_byte_by_byte_with_a_timeout_before_each_is_whole() -> None:
    raw = frame_bytes(Opcode.TEXT, b"x" * 300) + frame_bytes(Opcode.PING)
    pieces = [piece for at in range(len(raw)) for piece in (b"", raw[at : at + 1])]
    assert all_frames(pieces) == [
        WebSocketFrame(Opcode.TEXT, True, b"x" * 300),
        WebSocketFrame(Opcode.PING, True, b""),
    ]


@pytest.mark.parametrize("first", [0xF1, 0xC1, 0xA1, 0x91, 0x83, 0x87, 0x8B, 0x8F])
def test_reserved_bits_and_opcodes_are_refused(first: int) -> None:
    with pytest.raises(FrameFormatError, match=f"begins with {first:#04x}"):
        all_frames([bytes([first, 0])])


def test_too_long_a_frame_is_refused_before_any_of_it_is_read() -> None:
    assert all_frames([frame_bytes(Opcode.TEXT, bytes(LIMIT))])
    for size in (LIMIT + 1, 1 << 62):
        with pytest.raises(FrameFormatError, match=f"a frame of {size} bytes"):
            all_frames([b"\x81\x7f" + size.to_bytes(8, "big")])
