"""The original's transport under any cut, any bytes and any order of what happens."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.original.frames import Event, FrameReader, Payload
from emissary_lib.protocol.original.opening import OriginalOpening
from emissary_lib.protocol.original.stream import MAX_MESSAGE, OriginalStream, StreamState, Times
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.ws_server import BINARY, CLOSE, CONT, PING, PONG, frame_bytes

CUTS = st.lists(st.integers(0, 1500), max_size=12)
NONCE = bytes(range(1, 33))
BANNER = Banner("emissary-server", "devel", 1, NONCE).encode_message()
ANSWERS = b"\x05\x02\x01\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x01\x15\x38"


def messages(payloads: list[bytes]) -> bytes:
    """One message in fragments, with control frames in between."""
    frames = [
        frame_bytes(CONT if at else BINARY, payload, fin=at == len(payloads) - 1)
        + frame_bytes(PING, payload[:9])
        for at, payload in enumerate(payloads)
    ]
    return b"".join(frames)


STREAMS = st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4).map(messages), max_size=4).map(
    b"".join
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[low:high] for low, high in itertools.pairwise(edges)]


def read(stream: list[bytes]) -> tuple[bytes, list[Event], str]:
    """The bytes of all messages, the other events, and what was wrong in the end."""
    reader, payload, others = FrameReader(), b"", list[Event]()
    try:
        for piece in stream:
            for event in reader.receive(piece):
                if isinstance(event, Payload):
                    payload += event.data
                else:
                    others.append(event)
    except RemoteProtocolError as exc:
        return payload, others, str(exc)
    return payload, others, ""


@given(STREAMS, CUTS)
def test_any_cut_of_a_server_s_frames_reads_as_the_whole(stream: bytes, cuts: list[int]) -> None:
    whole = read([stream])
    assert read(pieces(stream, cuts)) == whole
    assert whole[2] == ""


@given(st.one_of(st.binary(max_size=80), st.tuples(STREAMS, st.binary(max_size=20)).map(b"".join)), CUTS)
def test_any_bytes_are_frames_or_refused_however_they_are_cut(stream: bytes, cuts: list[int]) -> None:
    assert read(pieces(stream, cuts)) == read([stream])


@given(st.binary(max_size=40), CUTS, st.booleans())
def test_any_answers_open_refuse_or_break_an_opening_however_they_are_cut(
    tail: bytes, cuts: list[int], good: bool
) -> None:
    def outcome(stream: list[bytes]) -> tuple[str, bytes]:
        opening = OriginalOpening(Key(7, bytes(16)), "Sun, 22 Nov 2026 12:00:00 GMT", Target("a", 1))
        opening.receive(Payload(BANNER, True))
        rest = b""
        try:
            for piece in stream:
                if opening.done:
                    rest += piece
                else:
                    opening.receive(Payload(piece, True))
                    rest += opening.rest
        except RemoteProtocolError as exc:
            return str(exc), b""
        return f"{opening.state} {opening.code}", rest

    stream = (ANSWERS if good else b"") + tail
    assert outcome(pieces(stream, cuts)) == outcome([stream])
    if good:
        assert outcome([stream])[1] == tail


@given(st.binary(max_size=600), CUTS)
def test_any_first_message_is_a_banner_or_refused(message: bytes, cuts: list[int]) -> None:
    opening = OriginalOpening(Key(7, bytes(16)), "Sun, 22 Nov 2026 12:00:00 GMT", Target("a", 1))
    try:
        for piece in pieces(message, cuts):
            opening.receive(Payload(piece, False))
        opening.receive(Payload(b"", True))
    except RemoteProtocolError:
        assert opening.data_to_send() == b""


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 5000)),
    st.tuples(st.just("eof"), st.just(0)),
    st.tuples(st.just("close"), st.just(0)),
    st.tuples(st.just("abort"), st.just(0)),
    st.tuples(st.just("take"), st.integers(0, 9000)),
    st.tuples(st.just("read"), st.integers(0, 9000)),
    st.tuples(st.just("wait"), st.integers(0, 40)),
    st.tuples(st.just("pong"), st.integers(0, 9000)),
    st.tuples(st.just("data"), st.integers(0, 5000)),
    st.tuples(st.just("ping"), st.integers(0, 125)),
    st.tuples(st.just("their close"), st.sampled_from([1000, 1001, 1011])),
    st.tuples(st.just("garbage"), st.integers(0, 255)),
    st.tuples(st.just("end"), st.just(0)),
)


@given(st.lists(ACTIONS, max_size=60))
def test_whatever_happens_bytes_are_counted_memory_is_bounded_and_the_end_is_one(
    actions: list[tuple[str, int]],
) -> None:
    now, given_out, came = 0.0, 0, 0
    stream = OriginalStream(FrameReader(), (), Counters(), now=now, draw_mask=lambda: bytes(4), times=Times())
    ends = set()
    for what, amount in actions:
        before = stream.confirmed
        match what:
            case "send" if stream.send_room:
                stream.send_data(bytes(min(amount, stream.send_room)), now)
            case "eof" if stream.state is StreamState.OPEN:
                stream.send_eof(now)
            case "close":
                stream.close(now)
            case "abort":
                stream.abort(now)
            case "take":
                with stream.data_to_send() as view:
                    amount = min(amount, len(view))
                stream.data_sent(amount)
            case "read":
                with stream.peek() as view:
                    amount = min(amount, len(view))
                stream.consume(amount, now)
                given_out += amount
            case "wait":
                now += amount
                stream.handle_timeout(now)
                assert stream.next_timeout() > now or stream.end
            case "pong":
                stream.receive(frame_bytes(PONG, struct.pack(">Q", amount)), now)
            case "data" if stream.wants_data:
                came += amount
                stream.receive(frame_bytes(BINARY, bytes(amount)), now)
            case "ping":
                stream.receive(frame_bytes(PING, bytes(amount)), now)
            case "their close":
                stream.receive(frame_bytes(CLOSE, struct.pack(">H", amount)), now)
            case "garbage":
                stream.receive(bytes([amount]), now)
            case "end":
                stream.receive(b"", now)
        assert before <= stream.confirmed <= stream.sent
        with stream.peek() as came_in, stream.data_to_send() as going_out:
            assert len(came_in) == stream.received - given_out <= 2 * MAX_MESSAGE
            assert len(going_out) <= 2 * MAX_MESSAGE + 1000
        assert stream.received <= came
        assert (stream.end is None) is (stream.state is not StreamState.ENDED)
        ends.add(stream.end)
    assert len(ends - {None}) <= 1
