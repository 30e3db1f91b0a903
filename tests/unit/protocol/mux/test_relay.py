"""The relay's side of a shared session."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.mux.events import CutOff, Declined, Requested
from emissary_lib.protocol.mux.limits import SHARED_TARGET, MuxLimits
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.mux_pair import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NOW,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    TARGET,
    MuxPair,
    drain_events,
    frame,
    literal,
    named,
    request,
)  # fmt: skip

CANCEL = (8).to_bytes(4, "big")


@pytest.fixture
def pair() -> MuxPair:
    return MuxPair()


@pytest.fixture
def relay() -> RelayMultiplexer:
    """One whose dialer has begun."""
    relay = RelayMultiplexer(MuxLimits(), NOW)
    relay.receive(PREFACE + frame(SETTINGS), NOW)
    relay.data_to_send(1 << 20)
    return relay


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        (b"db.internal:5432", TARGET),
        (b"DB.Internal.:5432", TARGET),
        (b"[::1]:65535", Target("::1", 65_535)),
        (b"10.0.0.7:1", Target("10.0.0.7", 1)),
    ],
)
def test_a_request_is_for_a_target(authority: bytes, target: Target, relay: RelayMultiplexer) -> None:
    relay.receive(request(1, authority), NOW)
    assert drain_events(relay) == [Requested(1, target)]


@pytest.mark.parametrize(
    "authority",
    [b"", b"db.internal", b"db.internal:0", b"db.internal:65536", b"::1:5432", b"d b:1", b"\xe4:1", b"1.2:x",
     b"emissary.mux.invalid:1", b"emissary.mux.invalid:5432"],
)  # fmt: skip
def test_what_is_no_target_is_not_allowed(authority: bytes, relay: RelayMultiplexer) -> None:
    try:
        relay.receive(request(1, authority), NOW)
    except RemoteProtocolError:
        assert not authority  # RFC 9113 section 8.3.1 itself rules this out
        return
    assert (drain_events(relay), relay.connections, relay.refused) == ([], 0, 1)
    sent = relay.data_to_send(1 << 20)
    assert (sent[3], sent[4]) == (HEADERS, END_HEADERS | END_STREAM)


@pytest.mark.parametrize(
    "block",
    [
        literal(2, b"GET") + literal(1, b"db.internal:5432") + literal(4, b"/") + literal(6, b"http"),
        literal(2, b"CONNECT") + named(b"host", b"db.internal:5432"),
        literal(2, b"CONNECT"),
        literal(1, b"db.internal:5432"),
        literal(2, b"CONNECT") + literal(1, b"a:1") + literal(4, b"/") + literal(6, b"http")
        + named(b":protocol", b"websocket"),
        literal(2, b"CONNECT") + literal(1, b"a:1") + named(b"Upper", b"case"),
        literal(2, b"CONNECT") + literal(1, b"a:1") + named(b"x", b"y" * 901),
    ],
    ids=["GET", "host", "no authority", "no method", "extended", "upper case", "a long list"],
)  # fmt: skip
def test_what_is_no_connect_ends_the_session(block: bytes, relay: RelayMultiplexer) -> None:
    with pytest.raises(RemoteProtocolError):
        relay.receive(frame(HEADERS, END_HEADERS, 1, block), NOW)


def test_other_fields_are_ignored(relay: RelayMultiplexer) -> None:
    block = literal(2, b"CONNECT") + literal(1, b"db.internal:5432") + named(b"later", b"version")
    relay.receive(frame(HEADERS, END_HEADERS, 1, block), NOW)
    assert drain_events(relay) == [Requested(1, TARGET)]


@pytest.mark.parametrize(
    "data",
    [
        request(1, flags=END_HEADERS | END_STREAM),
        request(1) + frame(DATA, 0, 1, b"early"),
        request(1) + frame(DATA, END_STREAM, 1),
        request(2),
        request(3) + request(1),
        request(1) + request(1),
        b"".join(request(stream) for stream in range(1, 131, 2)),
    ],
    ids=["ended", "data", "end", "even", "backwards", "twice", "too many"],
)
def test_a_request_that_breaks_the_protocol_ends_the_session(data: bytes, relay: RelayMultiplexer) -> None:
    with pytest.raises(RemoteProtocolError):
        relay.receive(data, NOW)
    relay.drain()
    assert relay.data_to_send(1 << 20) == b""


def test_another_protocol_is_refused_at_once() -> None:
    relay = RelayMultiplexer(MuxLimits(), NOW)
    with pytest.raises(RemoteProtocolError, match="preamble"):
        relay.receive(b"\x16\x03\x01", NOW)


def test_a_bomb_of_headers_ends_the_session(relay: RelayMultiplexer) -> None:
    """One field goes into the table (RFC 7541 section 6.2.1), then a byte each brings it back."""
    relay.receive(frame(HEADERS, END_HEADERS, 1, literal(2, b"CONNECT") + literal(1, b"a:1")), NOW)
    bomb = literal(2, b"CONNECT") + literal(1, b"a:1") + b"\x40\x01x\x7f\x49" + b"y" * 200 + b"\xbe" * 700
    with pytest.raises(RemoteProtocolError, match="DenialOfServiceError: Oversized header block"):
        relay.receive(frame(HEADERS, END_HEADERS, 3, bomb), NOW)


def test_a_request_is_answered_once(pair: MuxPair) -> None:
    stream = pair.connect()
    with pytest.raises(LocalProtocolError, match=f"the request {stream} was answered before"):
        pair.relay.accept(stream)
    with pytest.raises(LocalProtocolError, match=f"the request {stream} was answered before"):
        pair.relay.refuse(stream, Code.TARGET_REFUSED)
    with pytest.raises(LocalProtocolError, match="not refused for OK"):
        pair.relay.refuse(stream, Code.OK)


def test_a_request_that_was_given_up_is_told_and_needs_no_answer(pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.dialer.reset(stream, Code.DIALER_RESET)
    pair.pass_on()
    assert drain_events(pair.relay) == [
        Requested(stream, TARGET), CutOff(stream, Code.DIALER_RESET, whole=False, lost=0)
    ]  # fmt: skip
    pair.relay.accept(stream)
    pair.relay.refuse(stream, Code.TARGET_REFUSED)
    assert pair.relay.data_to_send(100) == b""
    assert (pair.relay.opened, pair.relay.refused) == (0, 0)


@pytest.mark.parametrize("authority", [b"db.internal:5432", b"no target"])
def test_a_request_that_comes_in_one_piece_with_its_reset_is_no_error(authority: bytes) -> None:
    relay = RelayMultiplexer(MuxLimits(connections=1), NOW)
    relay.receive(PREFACE + frame(SETTINGS) + request(1), NOW)
    relay.accept(1)
    relay.receive(frame(DATA, END_STREAM, 1), NOW)
    relay.send_eof(1)
    relay.data_to_send(1 << 20)  # HTTP/2 has one stream less than we have connections
    relay.receive(request(3, authority) + frame(RST_STREAM, 0, 3, CANCEL), NOW)
    relay.release_end(1)
    relay.receive(request(5, authority) + frame(RST_STREAM, 0, 5, CANCEL), NOW)
    assert relay.connections == 0


def test_a_target_that_has_not_taken_all_counts_as_a_connection() -> None:
    """Else a dialer could have any number of ends wait, each with a window full of bytes."""
    pair = MuxPair(relay=MuxLimits(connections=1))
    stream = pair.connect()
    pair.dialer.send_data(stream, b"bytes")
    for side in (pair.dialer, pair.relay):
        side.send_eof(stream)
    pair.pass_on()
    pair.relay.receive(request(3), NOW)
    assert pair.relay.data_to_send(1 << 20) == frame(RST_STREAM, 0, 3, (7).to_bytes(4, "big"))
    pair.relay.consume(stream, 5)
    assert pair.relay.connections == 1
    pair.relay.release_end(stream)
    assert pair.relay.connections == 0


def test_the_end_is_for_good_only_when_the_driver_says_so(pair: MuxPair) -> None:
    stream = pair.connect()
    relay = pair.relay
    assert not relay.end_waits(stream)
    pair.dialer.send_data(stream, b"x")
    pair.dialer.send_eof(stream)
    pair.pass_on()
    assert relay.end_waits(stream)
    relay.release_end(stream)  # a byte of it waits here
    assert relay.end_waits(stream)
    relay.consume(stream, 1)
    assert relay.end_waits(stream)
    relay.release_end(stream)
    assert not relay.end_waits(stream)
    sent = relay.data_to_send(100)
    relay.release_end(stream)
    assert (len(sent), relay.data_to_send(100)) == (27, b"")
    assert not relay.end_waits(99)


def test_a_dialer_that_waits_is_told_of_bytes_while_the_end_is_not_reached(pair: MuxPair) -> None:
    stream = pair.connect()
    dialer, relay = pair.dialer, pair.relay
    dialer.send_data(stream, bytes(100_000))  # more than a window
    dialer.send_eof(stream)
    pair.pass_on()
    seen = [dialer.progress(stream)]
    assert not relay.end_waits(stream)  # what is on its way moves: the dialer sees it go
    relay.consume(stream, 40_000)
    relay.report(stream)
    pair.pass_on()
    seen.append(dialer.progress(stream))
    assert relay.end_waits(stream)  # all has come, and 60,000 bytes of it wait for the target
    for _ in range(2):
        relay.consume(stream, 30_000)
        relay.report(stream)
        pair.pass_on()
        seen.append(dialer.progress(stream))
    assert seen == [65_535, 140_001, 170_001, 200_001]
    assert not dialer.end_acked(stream)
    relay.release_end(stream)
    pair.pass_on()
    assert dialer.end_acked(stream)


def test_a_request_for_which_nothing_was_done_is_declined_and_counted(pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.relay.decline(stream)
    pair.relay.decline(stream)
    assert pair.relay.data_to_send(100) == frame(RST_STREAM, 0, stream, (7).to_bytes(4, "big"))
    pair.dialer.receive(frame(RST_STREAM, 0, stream, (7).to_bytes(4, "big")), NOW)
    assert drain_events(pair.dialer) == [Declined(stream)]
    assert (pair.relay.refused, pair.relay.connections, pair.dialer.connections) == (1, 0, 0)
    assert not pair.dialer.draining
    other = pair.connect()
    with pytest.raises(LocalProtocolError, match=f"the request {other} was answered before"):
        pair.relay.decline(other)


def test_nobody_is_declined_who_has_given_up(pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.dialer.reset(stream, Code.DIALER_RESET)
    pair.pass_on()
    pair.relay.decline(stream)
    assert (pair.relay.refused, pair.relay.data_to_send(100)) == (0, b"")


def test_the_end_of_a_session_takes_requests_and_drains_nobody(pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    drain_events(pair.relay)
    for side in (pair.dialer, pair.relay):
        side.cut_off_all(Code.RELAY_DEADLINE)
        assert drain_events(side) == [CutOff(stream, Code.RELAY_DEADLINE, whole=False, lost=0)]
    pair.relay.accept(stream)
    pair.relay.drain()
    assert pair.relay.data_to_send(100) == b""
    assert (pair.dialer.room, pair.relay.opened) == (0, 0)


def test_it_counts_for_the_record(pair: MuxPair) -> None:
    pair.connect()
    for code in (Code.TARGET_REFUSED, Code.TARGET_TIMED_OUT):
        stream = pair.dialer.open(TARGET)
        pair.pass_on()
        pair.relay.refuse(stream, code)
    pair.relay.drain()
    pair.relay.drain()
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    assert drain_events(pair.dialer)[-1] == Declined(stream)
    assert (pair.relay.opened, pair.relay.refused, pair.relay.connections) == (1, 3, 1)


def test_rapid_reset_ends_the_session(relay: RelayMultiplexer) -> None:
    def give_up(streams: range, now: float) -> None:
        for stream in streams:
            relay.receive(request(stream) + frame(RST_STREAM, 0, stream, CANCEL), now)
            drain_events(relay)

    give_up(range(1, 513, 2), NOW)
    give_up(range(513, 577, 2), NOW + 1)
    with pytest.raises(RemoteProtocolError, match="rapid reset"):
        give_up(range(577, 579), NOW + 1)


def test_a_connection_that_was_open_may_be_reset_as_often_as_it_likes(pair: MuxPair) -> None:
    for _ in range(600):
        pair.dialer.reset(pair.connect(), Code.DIALER_RESET)
        pair.now += 0.01
    pair.pass_on()
    assert pair.relay.idle


def test_the_reserved_name_is_no_target_here(pair: MuxPair) -> None:
    pair.dialer.open(SHARED_TARGET)
    pair.pass_on()
    assert drain_events(pair.relay) == []


@pytest.mark.parametrize("together", [True, False])
def test_what_comes_behind_a_request_that_was_refused_is_ignored(
    together: bool, relay: RelayMultiplexer
) -> None:
    pieces = [request(1, b"no target"), frame(DATA, 0, 1, b"early") + frame(DATA, END_STREAM, 1)]
    for piece in [b"".join(pieces)] if together else pieces:
        relay.receive(piece, NOW)
    assert drain_events(relay) == []
    assert relay.connections == 0
