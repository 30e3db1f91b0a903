"""stream: bytes and their confirmation, the clock, and each way to end."""

from __future__ import annotations

import itertools
import struct

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.original.frames import Event, FrameReader, Payload, encode_frame
from emissary_lib.protocol.original.stream import (
    ABORT_WAIT,
    CLOSE_WAIT,
    CONFIRM_REPEAT,
    HALF_CLOSE_WAIT,
    MAX_MESSAGE,
    PING_INTERVAL,
    PONG_DEADLINE,
    TRANSITIONS,
    End,
    OriginalStream,
    StreamState,
    StreamStep,
    Times,
    step,
)
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.wire.websocket import Opcode
from tests.helpers.ws_server import BINARY, CLOSE, PING, PONG, TEXT, frame_bytes

NEVER = float("inf")
MASK = bytes(4)


def make(*early: Event) -> OriginalStream:
    return OriginalStream(FrameReader(), early, Counters(), now=0.0, draw_mask=lambda: MASK, times=Times())


def taken(stream: OriginalStream) -> bytes:
    """What goes to the server now; all of it is written."""
    with stream.data_to_send() as view:
        data = bytes(view)
    stream.data_sent(len(data))
    return data


def ping(count: int) -> bytes:
    return encode_frame(Opcode.PING, struct.pack(">Q", count), MASK)


def pong(count: int) -> bytes:
    return frame_bytes(PONG, struct.pack(">Q", count))


def data(payload: bytes) -> bytes:
    return encode_frame(Opcode.BINARY, payload, MASK)


def close(code: int, reason: bytes = b"") -> bytes:
    return frame_bytes(CLOSE, struct.pack(">H", code) + reason)


CLOSE_1000 = encode_frame(Opcode.CLOSE, b"\x03\xe8", MASK)
CLOSE_1001 = encode_frame(Opcode.CLOSE, b"\x03\xe9", MASK)
OWN_CLOSE = close(1000, b"encore")


def end_of(stream: OriginalStream) -> End | None:
    return stream.end


def code_of(stream: OriginalStream) -> Code | None:
    return stream.end.code if stream.end else None


def state_of(stream: OriginalStream) -> StreamState:
    return stream.state


def received(stream: OriginalStream, now: float = 0.0) -> bytes:
    with stream.peek() as view:
        got = bytes(view)
    stream.consume(len(got), now)
    return got


# -- bytes --------------------------------------------------------------------------------------------


def test_a_user_s_bytes_go_out_with_a_question_behind_them() -> None:
    stream = make()
    stream.send_data(b"SELECT 1", 0.0)
    assert taken(stream) == data(b"SELECT 1") + ping(8)
    assert (stream.sent, stream.confirmed, stream.complete) == (8, 0, False)
    stream.receive(pong(8), 0.1)
    assert (stream.confirmed, stream.complete) == (8, True)
    assert taken(stream) == b""


def test_one_question_is_out_at_a_time_and_the_next_follows_its_answer() -> None:
    stream = make()
    for each in (b"a", b"bc", b"d"):
        stream.send_data(each, 0.0)
    assert taken(stream) == data(b"a") + ping(1) + data(b"bc") + data(b"d")
    stream.receive(pong(1), 0.5)
    assert (stream.confirmed, taken(stream)) == (1, ping(4))
    stream.receive(pong(4), 0.6)
    assert stream.complete


def test_a_question_that_stays_unanswered_is_asked_again_after_a_second() -> None:
    stream = make()
    stream.send_data(b"ab", 0.0)
    taken(stream)
    stream.send_data(b"c", 0.5)
    assert taken(stream) == data(b"c")
    assert stream.next_timeout() == CONFIRM_REPEAT
    stream.handle_timeout(CONFIRM_REPEAT)
    assert taken(stream) == ping(3)
    stream.receive(pong(2), 1.1)  # of the first question, after all
    assert (stream.confirmed, taken(stream)) == (2, b"")
    stream.receive(pong(3), 1.2)
    assert stream.complete


def test_nothing_is_asked_while_what_was_sent_before_waits() -> None:
    stream = make()
    stream.send_data(b"a", 0.0)
    assert stream.next_timeout() == NEVER
    for now in range(1, 200):
        stream.handle_timeout(float(now))
    assert taken(stream) == data(b"a") + ping(1)


@pytest.mark.parametrize("payload", [b"", b"1234567", struct.pack(">Q", 2), struct.pack(">Q", 1 << 63)])
def test_a_pong_that_answers_no_question_is_ignored(payload: bytes) -> None:
    stream = make()
    stream.receive(frame_bytes(PONG, payload), 0.0)
    stream.send_data(b"a", 0.0)
    stream.receive(frame_bytes(PONG, payload), 0.0)
    assert (stream.confirmed, end_of(stream)) == (0, None)


def test_a_pong_never_takes_a_confirmation_back() -> None:
    stream = make()
    stream.send_data(b"ab", 0.0)
    stream.receive(pong(2), 0.0)
    stream.send_data(b"c", 0.0)
    stream.receive(pong(1), 0.0)
    assert stream.confirmed == 2


def test_what_waits_to_be_sent_is_bounded() -> None:
    stream = make()
    assert stream.send_room == MAX_MESSAGE
    stream.send_data(bytes(MAX_MESSAGE), 0.0)
    assert stream.send_room == 0
    taken(stream)
    assert stream.send_room == MAX_MESSAGE


def test_the_target_s_bytes_are_handed_on_and_their_room_is_bounded() -> None:
    stream = make(Payload(b"220 ", False))
    stream.receive(frame_bytes(BINARY, b"hello"), 0.0)
    assert stream.received == 9
    assert received(stream) == b"220 hello"
    wanted = [stream.wants_data]
    stream.receive(frame_bytes(BINARY, bytes(MAX_MESSAGE)), 0.0)
    wanted.append(stream.wants_data)
    received(stream)
    wanted.append(stream.wants_data)
    assert wanted == [True, False, True]


def test_a_ping_is_answered_and_of_many_the_newest() -> None:
    stream = make()
    stream.receive(frame_bytes(PING, b"1") + frame_bytes(PING, b"2"), 0.0)
    assert taken(stream) == encode_frame(Opcode.PONG, b"2", MASK)
    assert taken(stream) == b""


def test_a_server_that_asks_and_never_reads_fills_nothing() -> None:
    stream = make()
    for _ in range(5000):
        stream.receive(frame_bytes(PING, bytes(125)), 0.0)
        with stream.data_to_send() as view:
            assert len(view) < MAX_MESSAGE + 131


# -- the clock ----------------------------------------------------------------------------------------


def test_silence_is_asked_about_and_then_given_up_on() -> None:
    stream = make()
    assert stream.next_timeout() == PING_INTERVAL
    stream.handle_timeout(PING_INTERVAL)
    assert taken(stream) == ping(0)
    dead_at = PING_INTERVAL + PONG_DEADLINE
    assert stream.next_timeout() == dead_at
    stream.handle_timeout(dead_at - 1)
    assert end_of(stream) is None
    stream.handle_timeout(dead_at)
    assert code_of(stream) is Code.LINK_DEAD
    assert stream.next_timeout() == NEVER


@pytest.mark.parametrize("heard", [pong(0), frame_bytes(PING), frame_bytes(BINARY, b"x")])
def test_whatever_the_server_says_it_is_there(heard: bytes) -> None:
    stream = make()
    stream.handle_timeout(30.0)
    taken(stream)
    stream.receive(heard, 49.0)
    stream.handle_timeout(50.0)
    assert end_of(stream) is None


def test_a_server_whose_target_takes_nothing_is_not_given_up() -> None:
    stream = make()
    stream.send_data(b"a", 0.0)
    for now in range(1, 500):
        taken(stream)
        stream.handle_timeout(float(now))
    assert end_of(stream) is None


def test_a_server_that_is_not_read_is_not_given_up() -> None:
    stream = make()
    stream.receive(frame_bytes(BINARY, bytes(MAX_MESSAGE)), 0.0)
    stream.handle_timeout(30.0)
    taken(stream)
    stream.handle_timeout(50.0)
    assert end_of(stream) is None
    assert stream.next_timeout() == 60.0


# -- the end ------------------------------------------------------------------------------------------


def test_the_server_s_close_is_the_end_of_the_target_s_stream() -> None:
    stream = make()
    stream.send_data(b"X", 0.0)
    taken(stream)
    stream.receive(pong(1) + frame_bytes(BINARY, b"bye") + OWN_CLOSE, 0.1)
    assert state_of(stream) is StreamState.ENDED
    assert (code_of(stream), stream.end_confirmed, stream.closed_here) == (Code.OK, False, False)
    assert taken(stream) == CLOSE_1000
    assert received(stream) == b"bye"
    assert (stream.send_room, stream.wants_data) == (0, False)


def test_a_close_that_overtakes_the_answer_is_a_clean_end_too() -> None:
    """A target that answers at once and closes: the server's Close was there before its Pong."""
    stream = make()
    stream.send_data(b"GET /", 0.0)
    taken(stream)
    stream.receive(frame_bytes(BINARY, b"200") + OWN_CLOSE, 0.9)
    assert code_of(stream) is Code.OK


@pytest.mark.parametrize("repeated", [False, True])
def test_a_close_while_the_target_takes_no_bytes_is_no_clean_end(repeated: bool) -> None:
    stream = make()
    stream.send_data(b"GET /", 0.0)
    taken(stream)
    if repeated:
        stream.handle_timeout(0.99)
        stream.handle_timeout(1.0)
        taken(stream)
    stream.receive(OWN_CLOSE, 1.0)
    assert code_of(stream) is Code.INCOMPLETE
    assert "5 bytes" in str(end_of(stream))


def test_a_close_while_bytes_wait_to_be_sent_is_no_clean_end() -> None:
    stream = make()
    stream.send_data(b"GET /", 0.0)
    stream.receive(OWN_CLOSE, 0.0)
    assert code_of(stream) is Code.INCOMPLETE
    assert taken(stream) == CLOSE_1000


def test_progress_of_the_target_counts_as_taking_bytes() -> None:
    stream = make()
    stream.send_data(b"a", 0.0)
    taken(stream)
    stream.send_data(b"b", 0.0)
    stream.receive(pong(1), 0.9)
    taken(stream)
    stream.receive(OWN_CLOSE, 1.5)
    assert code_of(stream) is Code.OK


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (close(1001, b"restart"), "1001 (restart)"),
        (close(1011), "1011 (no reason)"),
        (frame_bytes(CLOSE), "no status (no reason)"),
    ],
)
def test_any_other_close_cuts_off(frame: bytes, said: str) -> None:
    stream = make()
    stream.receive(frame, 0.0)
    assert (code_of(stream), said in str(end_of(stream))) == (Code.DIALER_GONE, True)


def test_an_end_without_a_close_cuts_off() -> None:
    stream = make()
    stream.receive(frame_bytes(BINARY, b"half a row"), 0.0)
    stream.receive(b"", 0.0)
    assert code_of(stream) is Code.DIALER_GONE
    assert received(stream) == b"half a row"


def test_what_is_no_frame_cuts_off() -> None:
    stream = make()
    stream.receive(frame_bytes(BINARY, b"row") + frame_bytes(TEXT, b"{}"), 0.0)
    assert code_of(stream) is Code.PROTOCOL_ERROR
    assert received(stream) == b"row"


def test_nothing_counts_behind_the_end() -> None:
    stream = make()
    stream.receive(OWN_CLOSE, 0.0)
    end = stream.end
    stream.receive(b"", 0.0)
    stream.cut(Code.LINK_DEAD, "late")
    stream.close(0.0)
    stream.abort(0.0)
    stream.handle_timeout(1e9)
    assert stream.end is end
    assert stream.next_timeout() == NEVER


def test_the_end_of_the_user_s_stream_is_passed_on_after_a_silence() -> None:
    stream = make()
    stream.send_eof(0.0)
    assert (stream.send_room, taken(stream)) == (0, b"")
    stream.receive(frame_bytes(BINARY, b"an answer"), 5.0)
    stream.handle_timeout(5.0 + HALF_CLOSE_WAIT + 1)
    assert state_of(stream) is StreamState.USER_ENDED  # its user has not taken the answer yet
    assert received(stream, 17.0) == b"an answer"
    assert stream.next_timeout() == 17.0 + HALF_CLOSE_WAIT
    stream.handle_timeout(26.9)
    assert state_of(stream) is StreamState.USER_ENDED
    stream.handle_timeout(27.0)
    assert state_of(stream) is StreamState.CLOSING
    assert taken(stream) == CLOSE_1000
    stream.receive(close(1000), 27.1)
    assert (code_of(stream), stream.end_confirmed, stream.closed_here) == (Code.OK, True, True)
    assert taken(stream) == b""


def test_the_end_of_the_user_s_stream_waits_for_its_bytes_to_be_taken() -> None:
    stream = make()
    stream.send_data(b"a", 0.0)
    stream.send_eof(0.0)
    for now in range(1, 30):
        taken(stream)
        stream.handle_timeout(float(now))
    assert state_of(stream) is StreamState.USER_ENDED
    stream.receive(pong(1), 30.0)
    assert stream.next_timeout() == 30.0 + HALF_CLOSE_WAIT


def test_an_answer_to_our_close_confirms_everything() -> None:
    stream = make()
    stream.send_data(b"abc", 0.0)
    stream.close(0.0)
    stream.close(0.0)
    assert taken(stream) == data(b"abc") + ping(3) + CLOSE_1000
    stream.receive(frame_bytes(PING, b"?") + frame_bytes(BINARY, b"late") + close(1000), 5.0)
    assert (stream.confirmed, stream.end_confirmed) == (3, True)
    assert code_of(stream) is Code.OK
    assert received(stream) == b"late"
    assert taken(stream) == b""  # nothing follows a Close


def test_a_close_of_the_server_s_own_that_crosses_ours_confirms_nothing() -> None:
    stream = make()
    stream.send_data(b"abc", 0.0)
    stream.close(0.0)
    taken(stream)
    stream.receive(OWN_CLOSE, 0.1)
    assert (stream.confirmed, stream.end_confirmed) == (0, False)
    assert code_of(stream) is Code.OK
    assert taken(stream) == b""


def test_a_close_that_is_not_answered_is_waited_for_in_bounds() -> None:
    stream = make()
    stream.close(1.0)
    assert stream.next_timeout() == 1.0 + CLOSE_WAIT
    stream.handle_timeout(CLOSE_WAIT)
    assert end_of(stream) is None
    stream.handle_timeout(1.0 + CLOSE_WAIT)
    assert code_of(stream) is Code.INCOMPLETE


def test_a_user_that_is_gone_ends_the_connection_behind_its_bytes() -> None:
    stream = make()
    stream.send_data(b"abc", 0.0)
    stream.abort(1.0)
    assert taken(stream) == data(b"abc") + ping(3) + CLOSE_1001
    assert stream.next_timeout() == 1.0 + ABORT_WAIT
    stream.receive(close(1001), 2.0)
    assert (code_of(stream), stream.complete) == (Code.OK, True)


def test_a_user_that_is_gone_while_a_close_is_awaited_is_waited_for_no_longer() -> None:
    stream = make()
    stream.close(0.0)
    stream.abort(1.0)
    assert taken(stream) == CLOSE_1000
    assert stream.next_timeout() == 1.0 + ABORT_WAIT
    stream.abort(3.0)
    assert stream.next_timeout() == 1.0 + ABORT_WAIT


@pytest.mark.parametrize(("state", "what"), [*itertools.product(StreamState, StreamStep)])
def test_no_step_is_possible_but_those_of_the_table(state: StreamState, what: StreamStep) -> None:
    if (state, what) in TRANSITIONS:
        assert step(state, what) is TRANSITIONS[state, what]
    else:
        with pytest.raises(LocalProtocolError, match="cannot happen in state"):
            step(state, what)
