"""frames: each kind whole, byte by byte and with more behind it; what no server of the original's sends."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.original.frames import (
    NO_STATUS,
    Close,
    Event,
    FrameReader,
    Payload,
    Ping,
    Pong,
    encode_close,
    encode_frame,
)
from emissary_lib.protocol.wire.websocket import Opcode
from tests.helpers.ws_server import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame_bytes

MASK = b"\x11\x22\x33\x44"


def read(*pieces: bytes) -> list[Event]:
    reader = FrameReader()
    return [event for piece in pieces for event in reader.receive(piece)]


def joined(events: list[Event]) -> list[Event]:
    """The same, with the pieces of each message put together."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, Payload) and found and isinstance(last := found[-1], Payload) and not last.ends:
            found[-1] = Payload(last.data + event.data, event.ends)
        else:
            found.append(event)
    return found


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (frame_bytes(BINARY, b""), Payload(b"", True)),
        (frame_bytes(BINARY, b"a"), Payload(b"a", True)),
        (frame_bytes(BINARY, bytes(125)), Payload(bytes(125), True)),
        (frame_bytes(BINARY, bytes(126)), Payload(bytes(126), True)),
        (frame_bytes(BINARY, bytes(65_535)), Payload(bytes(65_535), True)),
        (frame_bytes(BINARY, bytes(65_536)), Payload(bytes(65_536), True)),
        (frame_bytes(BINARY, b"ab", fin=False), Payload(b"ab", False)),
        (frame_bytes(BINARY, b"", fin=False), Payload(b"", False)),
        (frame_bytes(PING, b"are you there"), Ping(b"are you there")),
        (frame_bytes(PONG, bytes(125)), Pong(bytes(125))),
        (frame_bytes(CLOSE), Close(NO_STATUS, "")),
        (frame_bytes(CLOSE, b"\x03\xe8"), Close(1000, "")),
        (frame_bytes(CLOSE, b"\x03\xe9bye\x1b[2J"), Close(1001, "bye [2J")),
    ],
)
def test_a_frame_is_read_whole_by_bytes_and_with_more_behind_it(frame: bytes, event: Event) -> None:
    assert read(frame) == [event]
    some = frame if len(frame) < 1000 else frame[:20]
    pieces = [*(some[at : at + 1] for at in range(len(some))), frame[len(some) :]]
    assert joined(read(*pieces)) == [event]
    more = frame_bytes(PING, b"next")
    closed = isinstance(event, Close)
    assert read(frame + more) == ([event] if closed else [event, Ping(b"next")])
    assert read(frame, more) == ([event] if closed else [event, Ping(b"next")])


def test_control_frames_come_between_the_fragments_of_a_message() -> None:
    stream = (
        frame_bytes(BINARY, b"ab", fin=False)
        + frame_bytes(PING, b"1")
        + frame_bytes(CONT, b"", fin=False)
        + frame_bytes(CONT, b"cd")
        + frame_bytes(BINARY, b"e")
    )
    assert read(stream) == [
        Payload(b"ab", False),
        Ping(b"1"),
        Payload(b"", False),
        Payload(b"cd", True),
        Payload(b"e", True),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame_bytes(TEXT, b"{}"), "text message"),
        (frame_bytes(CONT, b"a"), "mixed up the fragments"),
        (frame_bytes(BINARY, b"a", fin=False) + frame_bytes(BINARY, b"b"), "mixed up the fragments"),
        (b"\x83\x00", "unknown kind 3"),
        (b"\x8b\x00", "unknown kind 11"),
        (b"\xc2\x00", "reserved bit"),
        (b"\x82\x80", "masked"),
        (b"\x89\x7e", "control frame that is too long"),
        (b"\x09\x00", "control frame that is too long, or in fragments"),
        (b"\x88\x01\x03", "half a status"),
        (b"\x82\x7e\x00\x7d", "not in the shortest form"),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "not in the shortest form"),
        (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "not in the shortest form"),
    ],
)
def test_what_the_original_s_server_never_sends_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(RemoteProtocolError, match=said):
        read(data)
    with pytest.raises(RemoteProtocolError, match=said):
        read(*(data[at : at + 1] for at in range(len(data))))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 65_535, 65_536])
def test_a_written_frame_is_masked_and_as_short_as_it_can_be(size: int) -> None:
    payload = bytes(each % 251 for each in range(size))
    frame = encode_frame(Opcode.BINARY, payload, MASK)
    head = frame_bytes(BINARY, payload)[: len(frame) - 4 - size]
    assert frame[0] == 0x82
    assert frame[1 : len(head)] == bytes([head[1] | 0x80]) + head[2:]
    assert frame[len(head) : len(head) + 4] == MASK
    assert bytes(each ^ MASK[at % 4] for at, each in enumerate(frame[len(head) + 4 :])) == payload


def test_a_close_frame_has_its_status() -> None:
    assert encode_close(1000, bytes(4)) == b"\x88\x82\0\0\0\0\x03\xe8"
