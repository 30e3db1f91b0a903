"""The dialer's side of a shared session."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FrameError, LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import Closed, CutOff, Declined, Draining, Opened, Refused
from emissary_lib.protocol.mux.limits import BUSY_WAITING, MuxLimits
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
    answer,
    drain_events,
    frame,
    named,
    position,
    setting,
)  # fmt: skip


@pytest.fixture
def pair() -> MuxPair:
    return MuxPair()


@pytest.fixture
def dialer() -> DialerMultiplexer:
    """One whose relay has begun, with one request that is not answered."""
    dialer = DialerMultiplexer(MuxLimits(), NOW)
    dialer.open(TARGET)
    dialer.data_to_send(1 << 20)
    dialer.receive(frame(SETTINGS), NOW)
    dialer.data_to_send(1 << 20)
    return dialer


def test_what_begins_and_the_first_request_fit_into_the_sessions_first_message(pair: MuxPair) -> None:
    pair.dialer.open(TARGET)
    data = pair.dialer.data_to_send(1 << 20)
    assert data.startswith(PREFACE)
    assert len(data) < 200


def test_a_further_request_is_a_few_bytes(pair: MuxPair) -> None:
    pair.connect()
    pair.dialer.open(TARGET)
    assert len(pair.dialer.data_to_send(1 << 20)) <= 32


def test_an_accepted_request_is_a_connection(pair: MuxPair) -> None:
    first, second = pair.dialer.open(TARGET), pair.dialer.open(Target("::1", 5432))
    assert pair.dialer.send_data(first, b"x") == 0
    pair.pass_on()
    pair.relay.accept(second)
    pair.pass_on()
    assert drain_events(pair.dialer) == [Opened(second)]
    assert (pair.dialer.send_room(first), pair.dialer.send_room(second)) == (0, 131_072)


@pytest.mark.parametrize("code", [code for code in Code if code >= 32])
def test_a_refused_request_tells_why_and_is_over(code: Code, pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.relay.refuse(stream, code)
    pair.pass_on()
    assert drain_events(pair.dialer) == [Refused(stream, code)]
    assert pair.dialer.idle
    assert pair.relay.idle
    pair.connect()


def test_a_refusal_that_says_no_more_is_a_failure(dialer: DialerMultiplexer) -> None:
    dialer.receive(answer(1, b"418", flags=END_HEADERS | END_STREAM), NOW)
    assert drain_events(dialer) == [Refused(1, Code.TARGET_FAILED)]
    assert dialer.data_to_send(100) == frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big"))


def test_a_refusal_with_a_reset_in_one_piece_is_that_refusal(dialer: DialerMultiplexer) -> None:
    reset = frame(RST_STREAM, 0, 1, bytes(4))
    refusal = answer(1, b"403", named(b"emissary-code", b"32"), flags=END_HEADERS | END_STREAM)
    dialer.receive(refusal + reset, NOW)
    assert drain_events(dialer) == [Refused(1, Code.TARGET_NOT_ALLOWED)]
    assert dialer.idle


@pytest.mark.parametrize(
    "data",
    [
        answer(1, b"403", named(b"emissary-code", b"32")),
        answer(1, b"100"),
        frame(DATA, 0, 1, b"early"),
        frame(DATA, END_STREAM, 1),
        answer(1, b"200", flags=END_HEADERS | END_STREAM) + frame(DATA, 0, 1, b"x"),
        answer(2, b"200"),
        answer(3, b"200"),
        frame(HEADERS, END_HEADERS, 1, named(b"emissary-code", b"32")),
    ],
    ids=["no end", "informational", "data", "end", "behind the end", "pushed", "never asked", "no status"],
)
def test_what_is_no_answer_ends_the_session(data: bytes, dialer: DialerMultiplexer) -> None:
    with pytest.raises(RemoteProtocolError):
        dialer.receive(data, NOW)
    assert dialer.room == 0
    with pytest.raises(LocalProtocolError, match="no room"):
        dialer.open(TARGET)


def test_a_relay_that_takes_no_more_declines_and_lets_go_on_what_is_open(pair: MuxPair) -> None:
    stream = pair.connect()
    pair.relay.drain()
    crossing = pair.dialer.open(TARGET)
    pair.pass_on()
    assert drain_events(pair.dialer) == [Draining(), Declined(crossing)]
    assert (pair.dialer.room, pair.dialer.draining, pair.dialer.connections) == (0, True, 1)
    with pytest.raises(LocalProtocolError, match="no room"):
        pair.dialer.open(TARGET)
    pair.dialer.send_data(stream, b"goes on")
    pair.pass_on()
    assert pair.take(pair.relay, stream) == b"goes on"
    pair.dialer.receive(frame(SETTINGS, 0, 0, setting(3, 0)), NOW)
    assert drain_events(pair.dialer) == []


def test_the_relay_may_allow_fewer(pair: MuxPair) -> None:
    assert pair.dialer.room == 64
    pair.dialer.receive(frame(SETTINGS, 0, 0, setting(3, 2)), NOW)
    assert pair.dialer.room == 2
    pair.dialer.receive(frame(SETTINGS, 0, 0, setting(3, 1 << 31)), NOW)
    assert pair.dialer.room == 64
    assert DialerMultiplexer(MuxLimits(connections=3), NOW).room == 3


def test_a_relay_that_allows_fewer_than_there_are_gets_no_more(pair: MuxPair) -> None:
    pair.connect()
    pair.connect()
    pair.dialer.receive(frame(SETTINGS, 0, 0, setting(3, 1)), NOW)
    assert pair.dialer.room == 0


def test_a_declined_request_was_not_answered(dialer: DialerMultiplexer) -> None:
    dialer.receive(frame(RST_STREAM, 0, 1, (7).to_bytes(4, "big")), NOW)
    assert drain_events(dialer) == [Declined(1)]


def test_a_connection_that_is_open_is_not_declined(pair: MuxPair) -> None:
    stream = pair.connect()
    pair.dialer.receive(frame(RST_STREAM, 0, stream, (7).to_bytes(4, "big")), NOW)
    assert drain_events(pair.dialer) == [CutOff(stream, Code.PROTOCOL_ERROR, whole=False, lost=0)]


def test_a_request_may_be_cut_off_by_the_relay(pair: MuxPair) -> None:
    stream = pair.dialer.open(TARGET)
    pair.pass_on()
    pair.relay.reset(stream, Code.RELAY_DEADLINE)
    pair.pass_on()
    assert drain_events(pair.dialer) == [CutOff(stream, Code.RELAY_DEADLINE, whole=False, lost=0)]


def test_nothing_more_is_asked_for_while_nothing_is_taken(pair: MuxPair) -> None:
    host, opened = ".".join(["x" * 60] * 4), 0
    while room(pair) and opened < 1_000:
        pair.dialer.reset(pair.dialer.open(Target(f"{host}.n{opened}", 1)), Code.DIALER_RESET)
        pair.now += 0.1
        pair.dialer.receive(b"", pair.now)
        opened += 1
    assert BUSY_WAITING < pair.dialer.buffered[0] < BUSY_WAITING + 400
    pair.dialer.data_to_send(1 << 20)
    assert room(pair) == 64


def room(pair: MuxPair) -> int:
    """Asked anew each time, whatever a type checker has narrowed it to."""
    return pair.dialer.room


def test_a_dialer_gives_up_no_more_than_a_relay_bears(pair: MuxPair) -> None:
    """Whoever scans ports through a forward must not end the session that others use too."""
    dialer = pair.dialer
    for _ in range(128):
        dialer.reset(dialer.open(TARGET), Code.DIALER_RESET)
    assert room(pair) == 0
    dialer.receive(b"", NOW + 1)
    assert room(pair) == 16
    dialer.open(TARGET)
    assert room(pair) == 15  # it may be given up, too
    pair.pass_on()


def test_giving_up_all_the_time_never_ends_the_session(pair: MuxPair) -> None:
    for _ in range(300):
        while room(pair):
            pair.dialer.reset(pair.dialer.open(TARGET), Code.DIALER_RESET)
        pair.now += 0.4
        pair.pass_on()
        pair.dialer.receive(b"", pair.now)
    assert pair.relay.idle


def test_it_knows_how_far_its_bytes_have_got(pair: MuxPair) -> None:
    stream = pair.connect()
    dialer, relay = pair.dialer, pair.relay
    dialer.send_data(stream, b"bytes")
    seen = [dialer.progress(stream)]
    dialer.send_eof(stream)
    pair.pass_on()
    seen.append(dialer.progress(stream))
    assert not dialer.end_acked(stream)
    relay.consume(stream, 5)
    relay.report(stream)
    pair.pass_on()
    seen.append(dialer.progress(stream))
    assert not dialer.end_acked(stream)
    relay.release_end(stream)
    pair.pass_on()
    seen.append(dialer.progress(stream))
    assert seen == [0, 6, 11, 12]
    assert dialer.end_acked(stream)
    relay.send_eof(stream)
    pair.pass_on()
    assert drain_events(dialer)[-1] == Closed(stream)
    assert (dialer.progress(stream), dialer.end_acked(stream)) == (0, False)


def test_an_open_stream_has_no_end_that_could_have_arrived(pair: MuxPair) -> None:
    assert not pair.dialer.end_acked(pair.connect())


def test_a_reset_that_meets_a_stream_which_both_have_ended_meanwhile_is_told_all_the_same(
    pair: MuxPair,
) -> None:
    """Symptom: RST_STREAM is no news to HTTP/2 then, and the connection was never over."""
    stream = pair.connect()
    pair.relay.send_eof(stream)
    pair.pass_on()
    drain_events(pair.dialer)
    pair.dialer.receive(position(stream, 0, 0, Code.TARGET_RESET), NOW)
    assert drain_events(pair.dialer) == []
    pair.dialer.send_eof(stream)
    pair.dialer.data_to_send(1 << 20)
    assert drain_events(pair.dialer) == [CutOff(stream, Code.TARGET_RESET, whole=True, lost=0)]
    pair.dialer.receive(frame(RST_STREAM, 0, stream, bytes([0, 0, 0, 10])), NOW)
    assert (drain_events(pair.dialer), pair.dialer.idle) == ([], True)


def test_a_connection_counts_until_the_target_has_all(pair: MuxPair) -> None:
    stream = pair.connect()
    pair.dialer.send_eof(stream)
    pair.relay.send_eof(stream)
    pair.pass_on()
    assert pair.dialer.room == 63
    pair.dialer.receive(position(stream, 0, 1), NOW)
    assert pair.dialer.room == 64


def test_an_error_names_what_the_relay_did(dialer: DialerMultiplexer) -> None:
    with pytest.raises(FrameError, match="a refusal without END_STREAM"):
        dialer.receive(answer(1, b"403"), NOW)


def test_more_requests_than_the_relay_allows_are_declined_if_it_had_not_said_so() -> None:
    pair = MuxPair(relay=MuxLimits(connections=2))
    streams = [pair.dialer.open(TARGET) for _ in range(5)]
    pair.pass_on()
    assert drain_events(pair.dialer) == [Declined(stream) for stream in streams[2:]]
    assert pair.dialer.room == 0


def test_an_answer_to_a_dial_that_was_given_up_long_ago_is_no_error(dialer: DialerMultiplexer) -> None:
    dialer.reset(1, Code.DIALER_RESET)
    dialer.open(TARGET)  # now the library, too, has forgotten the first
    dialer.receive(answer(1, b"200"), NOW)
    assert drain_events(dialer) == []
