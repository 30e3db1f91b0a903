"""Whatever the other end of a shared session sends: one declared error at most, within bounded memory."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import CutOff, Opened, Requested
from emissary_lib.protocol.mux.limits import MAX_FRAME, MAX_WAITING, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from tests.helpers.mux_pair import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    TARGET,
    WINDOW_UPDATE,
    answer,
    frame,
    literal,
    named,
    position,
    request,
    setting,
)  # fmt: skip

LIMITS: Final = MuxLimits(connections=4, window=200, most_window=1_000, receive_memory=2_000, send_buffer=300)

STREAMS: Final = st.integers(0, 12) | st.sampled_from([2**31 - 1])
NUMBERS: Final = st.integers(0, 5) | st.sampled_from([199, 200, 201, 2**31 - 1, 2**31, 2**32 - 1])
FIELDS: Final = st.lists(
    st.sampled_from(
        [
            literal(2, b"CONNECT"), literal(2, b"GET"), literal(1, b"db.internal:5432"), literal(1, b"x"),
            literal(8, b"200"), literal(8, b"403"), literal(8, b"100"), named(b"emissary-code", b"33"),
            named(b":protocol", b"websocket"), named(b"X", b""), b"\xbe", b"\x3f\xe1\x1f", b"\x20",
            b"\xff\xff",
            b"\x88",
            b"\x40\x01x\x7f\x49" + b"y" * 200,
        ]
    ),
    max_size=6,
).map(b"".join)  # fmt: skip
WORDS: Final = NUMBERS.map(lambda number: struct.pack(">L", number))
FRAMES: Final = st.one_of(
    st.builds(request, STREAMS),
    st.builds(answer, STREAMS, st.sampled_from([b"200", b"403", b"502"])),
    st.builds(frame, st.just(HEADERS), st.integers(0, 255), STREAMS, FIELDS),
    st.builds(
        frame, st.just(DATA), st.sampled_from([0, END_STREAM, 8]), STREAMS, st.integers(0, 300).map(bytes)
    ),
    st.builds(frame, st.just(RST_STREAM), st.just(0), STREAMS, WORDS),
    st.builds(frame, st.just(WINDOW_UPDATE), st.just(0), STREAMS, WORDS),
    st.builds(
        lambda flags, settings: frame(SETTINGS, flags, 0, b"".join(settings)),
        st.sampled_from([0, ACK]),
        st.lists(st.builds(setting, st.integers(0, 9), NUMBERS), max_size=3),
    ),
    st.builds(frame, st.just(PING), st.sampled_from([0, ACK]), st.just(0), st.just(bytes(8))),
    st.builds(frame, st.just(GOAWAY), st.just(0), st.just(0), st.just(bytes(8))),
    st.builds(
        position, STREAMS.filter(lambda n: n < 2**31), st.integers(0, 400), st.integers(0, 400),
        st.sampled_from([0, 4, 5, 99]),
    ),
    st.builds(frame, st.integers(0, 255), st.integers(0, 255), STREAMS, st.binary(max_size=40)),
    st.binary(max_size=30),
)  # fmt: skip


def begun(role: str, limits: MuxLimits = LIMITS) -> Multiplexer:
    """One side; its peer has begun, and if it is the dialer, it has asked for three connections."""
    if role == "relay":
        relay = RelayMultiplexer(limits, NOW)
        relay.receive(PREFACE + frame(SETTINGS), NOW)
        return relay
    dialer = DialerMultiplexer(limits, NOW)
    dialer.receive(frame(SETTINGS), NOW)
    for _ in range(min(3, dialer.room)):
        dialer.open(TARGET)
    return dialer


def error_of(side: Multiplexer, data: bytes) -> RemoteProtocolError | None:
    """What these bytes end the session with; ``None`` if it goes on."""
    try:
        side.receive(data, NOW)
    except RemoteProtocolError as error:
        return error
    return None


def act(side: Multiplexer, users: set[int], reads: bool) -> None:
    """What a driver would do."""
    while event := side.next_event():
        match event:
            case Requested(stream, _) if isinstance(side, RelayMultiplexer):
                side.accept(stream)
                users.add(stream)
            case Opened(stream):
                users.add(stream)
            case CutOff(stream):
                users.discard(stream)
    for stream in users:
        side.send_data(stream, bytes(50))
        if reads:
            side.consume(stream, len(side.peek(stream, 1 << 20)))
        if side.receive_ended(stream):
            side.send_eof(stream)
        if isinstance(side, RelayMultiplexer):
            side.release_end(stream)


def lose(side: Multiplexer, users: set[int]) -> None:
    """One user goes; what it wrote is waited for as long as its clock says."""
    if users:
        side.user_lost(users.pop(), Code.TARGET_RESET, NOW)
    elif (due := side.next_timeout()) is not None:
        side.handle_timeout(due)


@given(
    role=st.sampled_from(["dialer", "relay"]),
    frames=st.lists(FRAMES, max_size=25),
    piece=st.sampled_from([1, 7, 60, 1 << 20]),
    reads=st.booleans(),
    takes=st.booleans(),
    loses=st.booleans(),
)
def test_it_ends_with_a_declared_error_or_goes_on_within_its_bounds(
    role: str, frames: list[bytes], piece: int, reads: bool, takes: bool, loses: bool
) -> None:
    side, users = begun(role), set[int]()
    stream = b"".join(frames)
    for start in range(0, len(stream), piece):
        error = error_of(side, stream[start : start + piece])
        if error is not None:
            assert error.code in (Code.PROTOCOL_ERROR, Code.FLOW_CONTROL_ERROR)
            assert str(error).isprintable()
            assert (side.connections, side.buffered, side.data_to_send(100)) == (0, (0, 0), b"")
            assert side.send_room(1) == 0
            assert error_of(side, b"") is error
            return
        act(side, users, reads)
        if loses:
            lose(side, users)
        if takes:
            side.data_to_send(500)
        waits, came = side.buffered
        assert came <= LIMITS.receive_memory
        assert waits <= LIMITS.connections * LIMITS.send_buffer + MAX_WAITING
        assert side.connections <= LIMITS.connections


def opened_and_reset() -> Iterator[bytes]:
    for stream in itertools.count(1, 2):
        yield request(stream) + frame(RST_STREAM, 0, stream, bytes(4))


def refused_at_once() -> Iterator[bytes]:
    for stream in itertools.count(1, 2):
        yield request(stream, b"no target")


def bytes_to_what_was_reset() -> Iterator[bytes]:
    yield request(1) + frame(RST_STREAM, 0, 1, bytes(4))
    while True:
        yield frame(DATA, 0, 1, b"x") * 5


def many_connections_one_after_the_other() -> Iterator[bytes]:
    for stream in itertools.count(1, 2):
        yield request(stream)
        yield frame(DATA, END_STREAM, stream)


def single_bytes_that_nobody_reads() -> Iterator[bytes]:
    yield request(1)
    yield from itertools.repeat(frame(DATA, 0, 1, b"x") * 50)


FLOODS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "pings": lambda: itertools.repeat(frame(PING, 0, 0, bytes(8)) * 10),
    "settings": lambda: (frame(SETTINGS, 0, 0, b"".join(setting(n * 32 + k, 1) for k in range(32)))
                         for n in itertools.count(1)),
    "acknowledgements": lambda: itertools.repeat(frame(SETTINGS, ACK) * 10),
    "unknown frames": lambda: itertools.repeat(frame(0x99, 0, 1, bytes(16_384))),
    "a long frame in pieces": lambda: itertools.chain(
        [b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"], itertools.repeat(bytes(9_999))
    ),
    "headers that go on": lambda: itertools.repeat(frame(HEADERS, 0, 1, bytes(1_000))),
    "opened and reset": opened_and_reset,
    "refused at once": refused_at_once,
    "bytes to what was reset": bytes_to_what_was_reset,
    "connections one after the other": many_connections_one_after_the_other,
    "single bytes that nobody reads": single_bytes_that_nobody_reads,
    "windows": lambda: itertools.repeat(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 10),
    "positions": lambda: itertools.chain([request(1)], itertools.repeat(position(1, 0, 0) * 10)),
}  # fmt: skip


#: Those that do not end the session, at the pace and for as long as this test goes on.
HARMLESS: Final = {"unknown frames", "bytes to what was reset", "connections one after the other"}


@pytest.mark.slow
@pytest.mark.parametrize("takes", [True, False], ids=["takes answers", "takes none"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_a_bounded_amount_of_memory(name: str, takes: bool) -> None:
    """As Python counts it, with all that objects cost: 2 MB, whether the session ends for it or goes on."""
    limits = MuxLimits(
        connections=4, window=20_000, most_window=20_000, receive_memory=80_000, send_buffer=300
    )
    side, users, now, ended = begun("relay", limits), set[int](), NOW, False
    tracemalloc.start()
    try:
        for data in itertools.islice(FLOODS[name](), 6_000):
            now += 0.01
            side.receive(data, now)
            act(side, users, reads=False)
            users = set(sorted(users)[-4:])
            if takes:
                side.data_to_send(1 << 20)
    except RemoteProtocolError:
        ended = True
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert ended == (name not in HARMLESS)
    assert peak < 2_000_000
    assert sum(side.buffered) <= 80_000 + 4 * 300 + MAX_WAITING + 2 * MAX_FRAME


def test_a_header_bomb_is_refused_before_it_is_unpacked() -> None:
    """A byte each brings back the same long field of the table (RFC 7541 section 6.1)."""
    relay = begun("relay")
    block = literal(2, b"CONNECT") + literal(1, b"a:1") + b"\x40\x01x\x7f\x81\x06" + b"y" * 896 + b"\xbe" * 60
    with pytest.raises(RemoteProtocolError, match="Oversized"):
        relay.receive(frame(HEADERS, END_HEADERS, 1, block), NOW)
