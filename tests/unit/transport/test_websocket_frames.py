"""WebSocket frames, against the examples of RFC 6455 and in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.wire.websocket import CONTROL, FrameFormatError, Opcode
from emissary_lib.transport.websocket_frames import FrameReader, WebSocketFrame
from tests.helpers.ws_server import frame_bytes

LIMIT = 70_000

#: Section 5.7.
EXAMPLES = {
    "810548656c6c6f": WebSocketFrame(Opcode.TEXT, True, b"Hello"),
    "010348656c": WebSocketFrame(Opcode.TEXT, False, b"Hel"),
    "80026c6f": WebSocketFrame(Opcode.CONTINUATION, True, b"lo"),
    "890548656c6c6f": WebSocketFrame(Opcode.PING, True, b"Hello"),
    "8a0548656c6c6f": WebSocketFrame(Opcode.PONG, True, b"Hello"),
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


SHORT = st.binary(max_size=5)
FRAMES = st.one_of(
    st.builds(WebSocketFrame, st.sampled_from(sorted(CONTROL)), st.just(True), SHORT),
    st.builds(
        WebSocketFrame,
        st.sampled_from(sorted(set(Opcode) - CONTROL)),
        st.booleans(),
        SHORT | st.binary(min_size=120, max_size=130) | st.just(bytes(65_536)),
    ),
)


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 300), max_size=20))
def test_frames_are_the_same_in_whatever_pieces_they_come(
    frames: list[WebSocketFrame], cuts: list[int]
) -> None:
    raw = b"".join(frame_bytes(each.opcode, each.payload, fin=each.last) for each in frames)
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


def test_too_long_a_frame_is_refused_before_any_of_it_is_read() -> None:
    assert all_frames([frame_bytes(Opcode.TEXT, bytes(LIMIT))])
    for size in (LIMIT + 1, 1 << 62):
        with pytest.raises(FrameFormatError, match=f"a frame of {size} bytes"):
            all_frames([b"\x81\x7f" + size.to_bytes(8, "big")])
