"""The relay as a whole: OPENED, bytes, end, with bridge and dialer played by hand."""

from __future__ import annotations

import queue
import threading

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.session.keepalive import ProbeTimes
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, FrameType
from emissary_lib.protocol.wire.payloads import Disconnected, Reset, Resumed
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import reset
from functions.common.errors import PeerBusyError, PeerGoneError
from functions.relay.connector import Connected
from tests.helpers.patience import HANG, wait_until
from tests.unit.functions.relay.harness import FakeTransport, RelayHarness, example_launch

#: RFC 1928 section 6: version 5, success, reserved, IPv4, 10.0.0.7, port 5432.
SUCCESS = bytes.fromhex("05 00 00 01 0a 00 00 07 15 38")


# -- OPENED -----------------------------------------------------------------------------------


def test_first_frame_is_opened_with_banner_answers_reply_and_parameters() -> None:
    with RelayHarness(remaining=200.0) as harness:
        frame, parameters, data = harness.wait_for_opened()
        assert frame.offset == 0
        assert frame.ack == harness.launch.client_offset
        assert data == harness.launch.server_bytes + SUCCESS
        assert parameters.code is Code.OK
        assert (
            100_000 < parameters.remaining <= 195_000
        )  # less the margin in which a session is ended in order
        assert parameters.resume_token == harness.launch.resume_token


def test_opened_is_repeated_as_opened_until_acknowledged() -> None:
    with RelayHarness() as harness:
        first, *_ = harness.wait_for_opened()
        harness.transport.deliver(b'{"message": "Internal server error"}')  # the bridge lost it: send again
        again, _parameters, data = harness.wait_for_opened()
        assert (again.type, again.offset) == (FrameType.OPENED, 0)
        assert data == harness.launch.server_bytes + SUCCESS
        harness.acknowledge(len(data))
        harness.target.sendall(b"rows")
        later = harness.next_post(FrameType.DATA, FrameType.OPENED)
        assert (later.type, later.offset, later.payload) == (FrameType.DATA, len(data), b"rows")
        assert first.generation == later.generation == 2


def test_opened_refused_by_the_carrier_is_sent_again() -> None:
    with RelayHarness() as harness:
        refusals = queue.SimpleQueue[Exception]()
        refusals.put(PeerBusyError("429"))
        harness.poster.raises = lambda: None if refusals.empty() else refusals.get()
        _frame, _parameters, data = harness.wait_for_opened()
        assert data == harness.launch.server_bytes + SUCCESS


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        (Code.TARGET_NOT_ALLOWED, 2),
        (Code.TARGET_UNREACHABLE, 3),
        (Code.NAME_NOT_FOUND, 4),
        (Code.TARGET_REFUSED, 5),
        (Code.TARGET_TIMED_OUT, 6),
        (Code.TARGET_FAILED, 1),
    ],
)
def test_failed_connect_is_told_in_the_reply_and_in_opened_and_ends_the_stream(
    code: Code, reply: int
) -> None:
    with RelayHarness(connect=lambda target, deadline: Connected(code)) as harness:
        frame, parameters, data = harness.wait_for_opened()
        assert parameters.code is code
        # RFC 1928 section 6, with the address 0.0.0.0:0.
        assert data == harness.launch.server_bytes + bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
        if not frame.flags & Flag.FIN:
            last = harness.next_fin()
            assert (last.offset, last.payload) == (len(data), b"")
        harness.hang_up(ack=len(data) + 1)
        assert harness.wait_for_end().sent == len(data) + 1
        assert harness.result() is Code.OK


def test_connector_that_fails_unexpectedly_is_told_as_a_failed_target() -> None:
    def broken(target: Target, deadline: Deadline) -> Connected:
        raise RuntimeError("a bug")

    with RelayHarness(connect=broken) as harness:
        _frame, parameters, _data = harness.wait_for_opened()
        assert parameters.code is Code.TARGET_FAILED


# -- bytes ------------------------------------------------------------------------------------


def test_early_bytes_reach_the_target_first() -> None:
    launch = replace(example_launch(), early=b"early ")
    with RelayHarness(launch=launch) as harness:
        frame, *_ = harness.wait_for_opened()
        assert frame.ack == launch.client_offset + len(b"early ")
        harness.say(FrameType.DATA, b"later", offset=frame.ack)
        got = b""
        while len(got) < 11:
            got += harness.target.recv(100)
        assert got == b"early later"


def test_what_the_target_says_first_follows_the_reply() -> None:
    harness = RelayHarness()
    harness.target.sendall(b"220 ready\r\n")
    with harness:
        start = len(harness.launch.server_bytes)
        assert harness.stream(start + 21) == harness.launch.server_bytes + SUCCESS + b"220 ready\r\n"


def test_opening_messages_in_open_are_read_as_data() -> None:
    with RelayHarness() as harness:
        harness.wait_for_opened()
        opening = b"\x05\x01\x02" + bytes(harness.launch.client_offset - 3) + b"user"
        harness.say(FrameType.OPENING, opening, offset=0)
        assert harness.target.recv(100) == b"user"


def test_half_close_of_the_dialer_lets_the_target_answer() -> None:
    with RelayHarness() as harness:
        _frame, _parameters, data = harness.wait_for_opened()
        harness.say(
            FrameType.DATA, b"bye", offset=harness.launch.client_offset, ack=len(data), flags=int(Flag.FIN)
        )
        assert harness.target.recv(3) == b"bye"
        assert harness.target.recv(1) == b""
        harness.target.sendall(b"result")
        assert harness.stream(6, start=len(data)) == b"result"
        harness.target_closes()
        harness.next_fin()
        harness.acknowledge(len(data) + 7)
        assert harness.wait_for_end().code is Code.OK
        assert harness.result() is Code.OK


# -- the end ----------------------------------------------------------------------------------


def test_reset_of_the_target_is_passed_on_and_reported() -> None:
    with RelayHarness() as harness:
        harness.wait_for_opened()
        reset(harness.target)
        told = Reset.decode(harness.next_post(FrameType.RESET).payload)
        assert told.code is Code.TARGET_RESET
        assert harness.wait_for_end().code is Code.TARGET_RESET
        assert harness.result() is Code.TARGET_RESET


def test_time_limit_resets_and_ends_the_session() -> None:
    with RelayHarness(remaining=2.0) as harness:
        told = Reset.decode(harness.next_post(FrameType.RESET).payload)
        assert told.code is Code.RELAY_DEADLINE
        assert harness.wait_for_end().code is Code.RELAY_DEADLINE
        assert harness.result() is Code.RELAY_DEADLINE


def test_reset_of_the_dialer_resets_the_target() -> None:
    with RelayHarness() as harness:
        harness.wait_for_opened()
        harness.say(FrameType.RESET, Reset(Code.DIALER_RESET, "").encode())
        assert harness.wait_for_end().code is Code.DIALER_RESET
        assert harness.result() is Code.DIALER_RESET
        with pytest.raises(ConnectionResetError):
            harness.target.recv(1)


def test_dialer_that_is_gone_ends_the_session_after_the_grace() -> None:
    with RelayHarness(grace=0.3) as harness:
        harness.wait_for_opened()
        harness.say(FrameType.DISCONNECTED, Disconnected(1, 1).encode())
        assert harness.wait_for_end().code is Code.DIALER_GONE
        assert harness.result() is Code.DIALER_GONE


def test_dialer_that_is_not_known_any_more_is_asked_for_and_waited_for() -> None:
    with RelayHarness(grace=0.3) as harness:
        harness.wait_for_opened()
        harness.poster.raises = lambda: PeerGoneError("410")
        harness.target.sendall(b"for nobody")
        assert harness.transport.sent.get(timeout=HANG).type is FrameType.RESUME
        harness.say(FrameType.RESUMED, Resumed(1, 1, None, "relay=").encode())
        assert harness.wait_for_end().code is Code.DIALER_GONE
        assert harness.result() is Code.DIALER_GONE


def test_relay_that_is_quicker_than_its_dialers_connection_waits_for_it() -> None:
    answers: list[Exception] = [PeerGoneError("410")] * 4
    harness = RelayHarness()
    harness.poster.raises = lambda: answers.pop() if answers else None
    with harness:
        _frame, parameters, _data = harness.wait_for_opened()
        assert parameters.code is Code.OK
        assert answers == []
        harness.target_closes()
        harness.hang_up(harness.next_fin().offset)


def test_relay_whose_dialer_never_comes_ends_by_itself_and_says_goodbye() -> None:
    """The dialer hung up before its 101, so that nobody else tells of its end."""
    harness = RelayHarness()
    harness.poster.raises = lambda: PeerGoneError("410")
    with harness:
        end = harness.wait_for_end()
        assert end.code is Code.DIALER_GONE
        assert harness.result() is Code.DIALER_GONE
        assert harness.transport.closed


def test_silence_of_the_dialer_counts_from_the_claim_not_from_the_targets_connection() -> None:
    # docs/protocol.md section 5.5: interval + deadline + grace, and not the seconds of connecting on top.
    orphan, connecting = 0.2, 1.5
    worlds: list[RelayHarness] = []

    def slow(target: Target, deadline: Deadline) -> Connected:
        wait_until(lambda: worlds[0].claims, "the claim")
        threading.Event().wait(connecting)
        return Connected(Code.OK, worlds[0].near)

    harness = RelayHarness(connect=slow, probing=ProbeTimes(orphan / 2, 60.0, 60.0, orphan))
    worlds.append(harness)
    with harness:
        assert harness.wait_for_end().code is Code.DIALER_GONE
        assert harness.result() is Code.DIALER_GONE
        asked = [harness.poster.posted.get() for _ in range(harness.poster.posted.qsize())]
        assert FrameType.PING not in [frame.type for _connection, frame in asked], "it was waited for again"


def test_dialer_that_came_back_elsewhere_gets_what_it_missed_there() -> None:
    with RelayHarness() as harness:
        _frame, _parameters, data = harness.wait_for_opened()
        harness.poster.raises = lambda: PeerGoneError("410")
        harness.target.sendall(b"for the one who comes back")
        assert harness.transport.sent.get(timeout=HANG).type is FrameType.RESUME
        harness.poster.raises = lambda: None
        harness.launch = replace(harness.launch, dialer_connection="elsewhere=")
        harness.say(FrameType.RESUMED, Resumed(2, 1, "elsewhere=", "relay=").encode())
        assert harness.stream(len(data) + 26).endswith(b"for the one who comes back")


def test_relay_dials_back_when_its_own_websocket_is_lost_and_carries_on() -> None:
    second = FakeTransport()
    with RelayHarness() as harness:
        harness.wait_for_opened()
        harness.again = second
        harness.transport.close()
        assert second.sent.get(timeout=HANG).type is FrameType.RESUME
        assert [claim["X-Emissary-Epoch"] for claim in harness.claims] == ["1", "2"]
        assert len({claim["X-Emissary-Instance"] for claim in harness.claims}) == 1
        harness.transport = second
        harness.say(FrameType.RESUMED, Resumed(1, 2, harness.launch.dialer_connection, "relay=").encode())
        harness.target.sendall(b"still here")
        while not harness.next_post(FrameType.DATA).payload.endswith(b"still here"):
            pass


def test_relay_that_is_not_let_in_again_resets_the_target() -> None:
    with RelayHarness() as harness:
        harness.wait_for_opened()
        harness.transport.close()
        assert harness.result() is Code.UNKNOWN_SESSION
        with pytest.raises(ConnectionResetError):
            harness.target.recv(1)


def test_nothing_is_left_when_serve_returns() -> None:
    before = set(threading.enumerate())
    with RelayHarness() as harness:
        _frame, _parameters, data = harness.wait_for_opened()
        harness.target_closes()
        harness.next_fin()
        harness.hang_up(ack=len(data) + 1)
        harness.wait_for_end()
        assert harness.result() is Code.OK
        assert set(threading.enumerate()) == before
        assert harness.transport.released
        assert harness.near.fileno() == -1


def test_the_relay_logs_what_it_has_counted_itself(caplog: pytest.LogCaptureFixture) -> None:
    """The audit record may have only what the dialer says of it."""
    caplog.set_level("INFO", logger="emissary")
    with RelayHarness() as harness:
        _frame, _parameters, data = harness.wait_for_opened()
        harness.target_closes()
        harness.next_fin()
        harness.hang_up(ack=len(data) + 1)
        end = harness.wait_for_end()
        assert harness.result() is Code.OK
    (line,) = [each.__dict__ for each in caplog.records if each.getMessage() == "session ended"]
    assert (line["session"], line["code"]) == (harness.launch.session, "OK")
    assert (line["dialer_bytes"], line["relay_bytes"]) == (end.received, end.sent)
    assert end.sent == len(data) + 1
    assert line["dialer_messages"] >= end.messages_received > 0
    assert line["relay_messages"] >= end.messages_sent > 0


def test_tokens_are_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with RelayHarness() as harness:
        harness.wait_for_opened()
        claim = harness.claims[0]["X-Emissary-Relay-Token"]
        harness.transport.close()
        harness.result()
    assert "claimed" in caplog.text
    logged = "".join(str(record.__dict__) for record in caplog.records)
    for secret in (harness.launch.relay_token, harness.launch.resume_token):
        assert secret.hex() not in logged
        assert repr(secret) not in logged
        assert repr(secret) not in repr(harness.launch)
    assert claim not in logged
