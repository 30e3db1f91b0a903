"""The gate in front of the HTTP/2 library: what it lets through, and what it ends the session for."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.errors import FrameError, RemoteProtocolError
from emissary_lib.protocol.mux.gate import FrameGate
from tests.helpers.mux_pair import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    request,
    setting,
)  # fmt: skip

GOOD = [
    frame(SETTINGS, 0, 0, setting(4, 65_535) * 32),
    frame(SETTINGS, ACK),
    request(1),
    frame(HEADERS, END_HEADERS, 1, bytes(1_024)),
    frame(DATA, 0, 1, bytes(16_384)),
    frame(DATA, END_STREAM, 1),
    frame(WINDOW_UPDATE, 0, 1, bytes(4)),
    frame(PING, 0, 0, bytes(8)),
    frame(0xF0, 0, 1, bytes(18)),
    frame(0x77, 0xFF, 1, bytes(16_384)),
]
BAD = {
    "too long": frame(DATA, 0, 1, bytes(16_385)),
    "unknown and too long": frame(0x77, 0, 1, bytes(16_385)),
    "priority": frame(PRIORITY, 0, 1, bytes(5)),
    "push": frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
    "continuation": frame(CONTINUATION, END_HEADERS, 1),
    "alternative service": frame(10, 0, 1, bytes(2)),
    "padded data": frame(DATA, PADDED, 1, bytes(2)),
    "padded headers": frame(HEADERS, PADDED | END_HEADERS, 1, bytes(2)),
    "headers with a priority": frame(HEADERS, 0x20 | END_HEADERS, 1, bytes(6)),
    "headers that go on": frame(HEADERS, 0, 1, b"\x88"),
    "large headers": frame(HEADERS, END_HEADERS, 1, bytes(1_025)),
}


@pytest.mark.parametrize("piece", [1, 3, 9, 10, 1 << 20])
def test_what_is_allowed_passes_however_it_is_cut(piece: int) -> None:
    gate = FrameGate(len(PREFACE), NOW)
    stream = PREFACE + b"".join(GOOD)
    for start in range(0, len(stream), piece):
        gate.check(stream[start : start + piece], NOW)
    assert gate.between_frames


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_what_is_ruled_out_is_refused_as_soon_as_its_header_is_there(name: str, piece: int) -> None:
    gate = FrameGate(0, NOW)
    stream = GOOD[0] + BAD[name]
    last = len(GOOD[0]) + 9
    for start in range(0, last - 1, piece):
        gate.check(stream[start : min(start + piece, last - 1)], NOW)
    with pytest.raises(FrameError):
        gate.check(stream[last - 1 : last], NOW)


def test_the_end_of_the_stream_within_a_frame_is_seen() -> None:
    gate = FrameGate(0, NOW)
    assert gate.between_frames
    for byte in frame(PING, 0, 0, bytes(8))[:-1]:
        gate.check(bytes([byte]), NOW)
        assert not gate.between_frames
    gate.check(b"\0", NOW)
    assert gate.between_frames
    assert not FrameGate(24, NOW).between_frames


@pytest.mark.parametrize(
    "flood", [frame(PING, 0, 0, bytes(8)), frame(DATA, 0, 1), frame(DATA, END_STREAM, 1), request(1)]
)
def test_a_flood_of_frames_that_carry_nothing_ends(flood: bytes) -> None:
    gate = FrameGate(0, NOW)
    gate.check(flood * 2_000, NOW)
    gate.check(flood * 500, NOW + 1)
    gate.sent()
    gate.check(flood, NOW + 1)
    with pytest.raises(RemoteProtocolError, match="carry nothing"):
        gate.check(flood, NOW + 1)


def test_bytes_are_no_flood() -> None:
    FrameGate(0, NOW).check(frame(DATA, 0, 1, b"x") * 10_000, NOW)


def test_settings_are_few_and_small() -> None:
    gate = FrameGate(0, NOW)
    gate.check(frame(SETTINGS) * 16 + frame(SETTINGS, ACK) * 100, NOW)
    with pytest.raises(RemoteProtocolError, match="SETTINGS"):
        gate.check(frame(SETTINGS), NOW)
    with pytest.raises(RemoteProtocolError, match="SETTINGS"):
        FrameGate(0, NOW).check(frame(SETTINGS, 0, 0, setting(0x99, 0) * 33), NOW)
