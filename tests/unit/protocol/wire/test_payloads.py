"""Payloads of fixed shape (docs/protocol.md sections 2, 3.4, 4.3 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FrameError
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, encode
from emissary_lib.protocol.wire.frames import decode as decode_frame
from emissary_lib.protocol.wire.payloads import (
    CAPABILITY_SHARED,
    MAX_REASON,
    OPENED_OVERHEAD,
    Connections,
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

TOKEN = bytes(range(32))
OPENED = Opened(Code.TARGET_REFUSED, 898_500, 30_000, TOKEN)
CASES: list[tuple[Any, str]] = [
    (Reset(Code.TARGET_RESET), "0004"),
    (
        End(Code.INCOMPLETE, 4, 261, 7, 65_536),
        "000c 0000000000000004 0000000000000105 00000007 00010000",
    ),
    (Connections(3, 2, 1 << 31), "00000003 00000002 80000000"),
    (Ended(Code.OK, 1 << 32, 7), "0000 0000000100000000 0000000000000007"),
    (Disconnected(2, 513), "02 0201"),
    (GoAway(Code.RELAY_DEADLINE, 60_000), "0006 0000ea60"),
]
FIXED = pytest.mark.parametrize(("payload", "golden"), CASES, ids=lambda value: type(value).__name__)


@FIXED
def test_it_is_these_bytes(payload: Any, golden: str) -> None:
    assert payload.encode() == bytes.fromhex(golden)
    assert type(payload).decode(bytes.fromhex(golden)) == payload


@FIXED
def test_cut_anywhere_it_is_refused_by_name(payload: Any, golden: str) -> None:
    raw = bytes.fromhex(golden)
    for cut in range(len(raw)):
        with pytest.raises(FrameError, match=f"{type(payload).__name__.upper()}: {cut} bytes of payload, "):
            type(payload).decode(raw[:cut])


@pytest.mark.parametrize("decode", [End.decode, Disconnected.decode, GoAway.decode, Connections.decode])
def test_bytes_of_a_later_version_are_ignored(decode: Callable[[bytes], Any]) -> None:
    raw = bytes(range(1, 31))
    assert decode(raw) == decode(raw + b"later")


@pytest.mark.parametrize("shape", [Reset(Code.KILLED, "müde"), Ended(Code.KILLED, 1, 2, "müde")])
def test_a_reason_is_utf_8(shape: Reset | Ended) -> None:
    raw = shape.encode()
    assert raw.endswith(b"m\xc3\xbcde")
    assert type(shape).decode(raw) == shape


def test_a_long_reason_is_cut_between_characters() -> None:
    assert MAX_REASON == 512
    raw = Reset(Code.KILLED, "x" + "ü" * 300).encode()
    assert len(raw) == 2 + 511
    assert Reset.decode(raw).reason == "x" + "ü" * 255


def test_a_longer_or_broken_reason_of_the_peer_does_no_harm() -> None:
    assert len(Reset.decode(b"\0\4" + b"x" * 5000).reason) == 512
    assert Reset.decode(b"\0\4\xff").reason == "\N{REPLACEMENT CHARACTER}"


def test_a_code_of_a_later_version_is_an_error_of_some_kind() -> None:
    assert Reset.decode(b"\xff\xff").code is Code.PROTOCOL_ERROR


def test_opened_is_these_bytes() -> None:
    raw = bytes.fromhex("002a 0022 000db5c4 00007530") + TOKEN
    assert (OPENED.encode(), OPENED_OVERHEAD) == (raw, 44 + 4)
    assert Opened.decode(raw + b"stream") == (OPENED, b"stream")
    assert Opened.decode(raw) == (OPENED, b"")


def test_parameters_of_a_later_version_are_skipped() -> None:
    raw = bytes.fromhex("002d 0022 000db5c4 00007530") + TOKEN + b"new" + b"stream"
    assert Opened.decode(raw) == (OPENED, b"stream")


def test_a_relay_that_can_more_says_so_behind_the_parameters_that_all_know() -> None:
    raw = bytes.fromhex("002e 0022 000db5c4 00007530") + TOKEN + bytes.fromhex("00000001")
    assert replace(OPENED, capabilities=CAPABILITY_SHARED).encode() == raw
    assert Opened.decode(raw + b"stream") == (replace(OPENED, capabilities=1), b"stream")


def test_the_relay_of_a_shared_session_tells_how_many_connections_it_had() -> None:
    plain = "000c 0000000000000004 0000000000000105 00000007 00010000"
    end = End(Code.INCOMPLETE, 4, 261, 7, 65_536, 258)
    assert end.encode() == bytes.fromhex(plain + "00000102")
    assert End.decode(end.encode()) == end
    assert End.decode(bytes.fromhex(plain + "000001")) == replace(end, connections=None)
    assert replace(end, connections=1 << 40).encode()[-4:] == b"\xff\xff\xff\xff"


def test_counts_beyond_their_field_are_the_most_that_fits() -> None:
    assert Connections(1 << 40, 0, 1 << 32).encode() == bytes.fromhex("ffffffff 00000000 ffffffff")


def test_the_message_of_counts_may_be_skipped_by_a_bridge_that_does_not_know_it() -> None:
    """An older one has no type of that number: it skips what is marked so, as this one does with type 14."""
    frame = Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, payload=Connections(1, 1, 0).encode())
    assert decode_frame(encode(frame)) == frame
    assert frame.type == 13
    assert decode_frame(encode(replace(frame, type=14))).type == 14
    with pytest.raises(FrameError, match="unknown"):
        decode_frame(encode(Frame(14)))


def test_opened_cut_anywhere_is_refused() -> None:
    raw = OPENED.encode()
    for cut in range(len(raw)):
        with pytest.raises(FrameError, match="OPENED: "):
            Opened.decode(raw[:cut])
    with pytest.raises(FrameError, match="OPENED: 41 bytes of parameters, 42 needed"):
        Opened.decode(b"\0\x29" + bytes(100))


def test_the_resume_token_is_not_shown() -> None:
    assert (
        repr(OPENED) == f"Opened(code={Code.TARGET_REFUSED!r}, remaining=898500, grace=30000, capabilities=0)"
    )


def test_ranges_are_pairs_of_positions() -> None:
    raw = bytes.fromhex("0000000000000002 0000000000000005 0000000000000007 0000000000000008")
    assert encode_ranges([(2, 5), (7, 8)]) == raw
    assert decode_ranges(raw, ack=1) == [(2, 5), (7, 8)]
    assert (encode_ranges([]), decode_ranges(b"", ack=9)) == (b"", [])


@pytest.mark.parametrize(
    "ranges",
    [
        [(1, 5)],  # not above ack
        [(0, 5)],
        [(3, 3)],  # empty
        [(5, 3)],
        [(2, 5), (4, 8)],  # overlapping
        [(2, 5), (5, 8)],  # touching, so one range
        [(7, 8), (2, 5)],  # descending
    ],
)
def test_ranges_ascend_above_the_acknowledgement(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(FrameError, match="ACK: range "):
        decode_ranges(encode_ranges(ranges), ack=1)


def test_thirty_two_ranges_are_the_most() -> None:
    ranges = [(2 * index, 2 * index + 1) for index in range(1, 34)]
    assert len(decode_ranges(encode_ranges(ranges[:32]), ack=0)) == 32
    with pytest.raises(FrameError, match="ACK: 528 bytes are no list of at most 32 ranges"):
        decode_ranges(encode_ranges(ranges), ack=0)


@pytest.mark.parametrize("size", [1, 15, 17])
def test_half_a_range_is_refused(size: int) -> None:
    with pytest.raises(FrameError, match=f"ACK: {size} bytes are no list"):
        decode_ranges(bytes(size), ack=0)


RESUMED_CASES = [
    (Resumed(2, 65_537, "d=", "relay="), "00000002 00010001 02 643d 06 72656c61793d"),
    (Resumed(2, 1, None, "r"), "00000002 00000001 00 01 72"),
    (Resumed(1, 3, None, None), "00000001 00000003 00 00"),
]


@pytest.mark.parametrize(("payload", "golden"), RESUMED_CASES)
def test_resumed_is_these_bytes_and_an_absent_side_an_empty_name(payload: Resumed, golden: str) -> None:
    raw = bytes.fromhex(golden)
    assert payload.encode() == raw
    assert Resumed.decode(raw) == Resumed.decode(raw + b"later") == payload


def test_resumed_cut_anywhere_is_refused_by_name() -> None:
    raw = bytes.fromhex(RESUMED_CASES[0][1])
    for cut in range(len(raw)):
        with pytest.raises(FrameError, match="RESUMED: "):
            Resumed.decode(raw[:cut])


@pytest.mark.parametrize("name", [b"d\xff", "d\N{LATIN SMALL LETTER E WITH ACUTE}".encode()])
def test_a_connection_id_that_is_no_ascii_is_refused(name: bytes) -> None:
    names = bytes([len(name)]) + name
    for raw in (names + b"\0", b"\0" + names):
        with pytest.raises(FrameError, match="RESUMED: a connection id is no ASCII"):
            Resumed.decode(bytes(8) + raw)
