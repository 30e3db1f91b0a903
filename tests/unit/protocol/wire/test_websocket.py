"""The heads of WebSocket frames, against the examples of RFC 6455 and its limits."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.wire.websocket import (
    MAX_CONTROL,
    FrameFormatError,
    Head,
    Opcode,
    frame_parts,
    read_head,
)

KEY = bytes.fromhex("37fa213d")

#: Section 5.7.
EXAMPLES = {
    "810548656c6c6f": Head(2, Opcode.TEXT, True, 5),
    "010348656c": Head(2, Opcode.TEXT, False, 3),
    "80026c6f": Head(2, Opcode.CONTINUATION, True, 2),
    "890548656c6c6f": Head(2, Opcode.PING, True, 5),
    "827e0100": Head(4, Opcode.BINARY, True, 256),
    "827f0000000000010000": Head(10, Opcode.BINARY, True, 65_536),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_head_is_read_once_all_of_it_is_there(example: str) -> None:
    data, head = bytes.fromhex(example), EXAMPLES[example]
    assert read_head(data, 0) == head
    assert read_head(b"before" + data, 6) == head
    assert [read_head(data[:length], 0) for length in range(head.length)] == [None] * head.length


def test_the_masked_example_is_written() -> None:
    assert b"".join(frame_parts(b"Hello", Opcode.TEXT, KEY)) == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 255, 256, 31_000, 65_535, 65_536])
def test_what_is_written_is_masked_and_as_short_as_it_can_be(size: int, last: bool) -> None:
    payload = (bytes(range(256)) * 257)[:size]
    head, key, masked = frame_parts(payload, Opcode.BINARY, KEY, last=last)
    assert head[1] & 0x80
    unmasked = bytes([head[0], head[1] & 0x7F]) + head[2:]
    assert read_head(unmasked, 0) == Head(len(head), Opcode.BINARY, last, size)
    assert len(head) == 2 + (size > 125) * 2 + (size > 65_535) * 6
    assert (key, bytes(each ^ KEY[at % 4] for at, each in enumerate(masked))) == (KEY, payload)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("8300", "unknown kind 3"),
        ("8700", "unknown kind 7"),
        ("8b00", "unknown kind 11"),
        ("8f00", "unknown kind 15"),
        ("c100", "reserved bit"),
        ("a100", "reserved bit"),
        ("9100", "reserved bit"),
        ("8180", "masked"),
        ("897e", "control frame that is too long"),
        ("0900", "or in fragments"),
        ("827e007d", "not in the shortest form"),
        ("827f000000000000ffff", "not in the shortest form"),
        ("827f8000000000000000", "not in the shortest form"),
    ],
)
def test_what_no_server_may_send_is_refused(head: str, said: str) -> None:
    with pytest.raises(FrameFormatError, match=said):
        read_head(bytes.fromhex(head), 0)
    assert read_head(bytes([0x89, MAX_CONTROL]), 0) == Head(2, Opcode.PING, True, MAX_CONTROL)
