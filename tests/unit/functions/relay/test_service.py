"""The relay as a whole: OPENED, bytes, end, with bridge and dialer played by hand."""

from __future__ import annotations

import dataclasses
import queue
import threading

import pytest

from emissary_lib.bridge.launch import Launch
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.keepalive import ProbeTimes
from emissary_lib.protocol.wire.frames import Flag, FrameType
from emissary_lib.protocol.wire.payloads import Disconnected, Reset, Resumed
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import reset
from functions.common.errors import PeerBusyError, PeerGoneError
from functions.relay.connector import Connected
from tests.helpers.patience import HANG, wait_until
from tests.unit.functions.relay.world import FakeTransport, World, example_launch

#: RFC 1928 section 6: version 5, success, reserved, IPv4, 10.0.0.7, port 5432.
SUCCESS = bytes.fromhex("05 00 00 01 0a 00 00 07 15 38")


# -- OPENED -----------------------------------------------------------------------------------


def test_first_frame_is_opened_with_banner_answers_reply_and_parameters() -> None:
    with World(remaining=200.0) as world:
        frame, parameters, data = world.opened()
        assert frame.offset == 0
        assert frame.ack == world.launch.client_offset
        assert data == world.launch.server_bytes + SUCCESS
        assert parameters.code is Code.OK
        assert (
            100_000 < parameters.remaining <= 195_000
        )  # less the margin in which a session is ended in order
        assert parameters.resume_token == world.launch.resume_token


def test_opened_is_repeated_as_opened_until_acknowledged() -> None:
    with World() as world:
        first, *_ = world.opened()
        world.transport.deliver('{"message": "Internal server error"}')  # the bridge lost it: send again
        again, _parameters, data = world.opened()
        assert (again.type, again.offset) == (FrameType.OPENED, 0)
        assert data == world.launch.server_bytes + SUCCESS
        world.acknowledge(len(data))
        world.target.sendall(b"rows")
        later = world.posted(FrameType.DATA, FrameType.OPENED)
        assert (later.type, later.offset, later.payload) == (FrameType.DATA, len(data), b"rows")
        assert first.generation == later.generation == 2


def test_opened_refused_by_the_carrier_is_sent_again() -> None:
    with World() as world:
        refusals = queue.SimpleQueue[Exception]()
        refusals.put(PeerBusyError("429"))
        world.poster.raises = lambda: None if refusals.empty() else refusals.get()
        _frame, _parameters, data = world.opened()
        assert data == world.launch.server_bytes + SUCCESS


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
    with World(connect=lambda launch, deadline: Connected(code)) as world:
        frame, parameters, data = world.opened()
        assert parameters.code is code
        # RFC 1928 section 6, with the address 0.0.0.0:0.
        assert data == world.launch.server_bytes + bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
        if not frame.flags & Flag.FIN:
            last = world.posted_fin()
            assert (last.offset, last.payload) == (len(data), b"")
        world.hang_up(ack=len(data) + 1)
        assert world.reported().sent == len(data) + 1
        assert world.result() is Code.OK


def test_connector_that_fails_unexpectedly_is_told_as_a_failed_target() -> None:
    def broken(launch: Launch, deadline: Deadline) -> Connected:
        raise RuntimeError("a bug")

    with World(connect=broken) as world:
        _frame, parameters, _data = world.opened()
        assert parameters.code is Code.TARGET_FAILED


# -- bytes ------------------------------------------------------------------------------------


def test_early_bytes_reach_the_target_first() -> None:
    launch = dataclasses.replace(example_launch(), early=b"early ")
    with World(launch=launch) as world:
        frame, *_ = world.opened()
        assert frame.ack == launch.client_offset + len(b"early ")
        world.say(FrameType.DATA, b"later", offset=frame.ack)
        got = b""
        while len(got) < 11:
            got += world.target.recv(100)
        assert got == b"early later"


def test_what_the_target_says_first_follows_the_reply() -> None:
    world = World()
    world.target.sendall(b"220 ready\r\n")
    with world:
        start = len(world.launch.server_bytes)
        assert world.stream(start + 21) == world.launch.server_bytes + SUCCESS + b"220 ready\r\n"


def test_opening_messages_in_open_are_read_as_data() -> None:
    with World() as world:
        world.opened()
        opening = b"\x05\x01\x02" + bytes(world.launch.client_offset - 3) + b"user"
        world.say(FrameType.OPENING, opening, offset=0)
        assert world.target.recv(100) == b"user"


def test_half_close_of_the_dialer_lets_the_target_answer() -> None:
    with World() as world:
        _frame, _parameters, data = world.opened()
        world.say(
            FrameType.DATA, b"bye", offset=world.launch.client_offset, ack=len(data), flags=int(Flag.FIN)
        )
        assert world.target.recv(3) == b"bye"
        assert world.target.recv(1) == b""
        world.target.sendall(b"result")
        assert world.stream(6, start=len(data)) == b"result"
        world.target_closes()
        world.posted_fin()
        world.acknowledge(len(data) + 7)
        assert world.reported().code is Code.OK
        assert world.result() is Code.OK


# -- the end ----------------------------------------------------------------------------------


def test_reset_of_the_target_is_passed_on_and_reported() -> None:
    with World() as world:
        world.opened()
        reset(world.target)
        told = Reset.decode(world.posted(FrameType.RESET).payload)
        assert told.code is Code.TARGET_RESET
        assert world.reported().code is Code.TARGET_RESET
        assert world.result() is Code.TARGET_RESET


def test_time_limit_resets_and_ends_the_session() -> None:
    with World(remaining=2.0) as world:
        told = Reset.decode(world.posted(FrameType.RESET).payload)
        assert told.code is Code.RELAY_DEADLINE
        assert world.reported().code is Code.RELAY_DEADLINE
        assert world.result() is Code.RELAY_DEADLINE


def test_reset_of_the_dialer_resets_the_target() -> None:
    with World() as world:
        world.opened()
        world.say(FrameType.RESET, Reset(Code.DIALER_RESET, "").encode())
        assert world.reported().code is Code.DIALER_RESET
        assert world.result() is Code.DIALER_RESET
        with pytest.raises(ConnectionResetError):
            world.target.recv(1)


def test_dialer_that_is_gone_ends_the_session_after_the_grace() -> None:
    with World(grace=0.3) as world:
        world.opened()
        world.say(FrameType.DISCONNECTED, Disconnected(1, 1).encode())
        assert world.reported().code is Code.DIALER_GONE
        assert world.result() is Code.DIALER_GONE


def test_dialer_that_is_not_known_any_more_is_asked_for_and_waited_for() -> None:
    with World(grace=0.3) as world:
        world.opened()
        world.poster.raises = lambda: PeerGoneError("410")
        world.target.sendall(b"for nobody")
        assert world.transport.sent.get(timeout=HANG).type is FrameType.RESUME
        world.say(FrameType.RESUMED, Resumed(1, 1, None, "relay=").encode())
        assert world.reported().code is Code.DIALER_GONE
        assert world.result() is Code.DIALER_GONE


def test_silence_of_the_dialer_counts_from_the_claim_not_from_the_targets_connection() -> None:
    # docs/protocol.md section 5.5: interval + deadline + grace, and not the seconds of connecting on top.
    orphan, connecting = 0.2, 1.5
    worlds: list[World] = []

    def slow(launch: Launch, deadline: Deadline) -> Connected:
        wait_until(lambda: worlds[0].claims, "the claim")
        threading.Event().wait(connecting)
        return Connected(Code.OK, worlds[0].near)

    world = World(connect=slow, probing=ProbeTimes(orphan / 2, 60.0, 60.0, orphan))
    worlds.append(world)
    with world:
        assert world.reported().code is Code.DIALER_GONE
        assert world.result() is Code.DIALER_GONE
        asked = [world.poster.posted.get() for _ in range(world.poster.posted.qsize())]
        assert FrameType.PING not in [frame.type for _connection, frame in asked], "it was waited for again"


def test_dialer_that_came_back_elsewhere_gets_what_it_missed_there() -> None:
    with World() as world:
        _frame, _parameters, data = world.opened()
        world.poster.raises = lambda: PeerGoneError("410")
        world.target.sendall(b"for the one who comes back")
        assert world.transport.sent.get(timeout=HANG).type is FrameType.RESUME
        world.poster.raises = lambda: None
        world.launch = dataclasses.replace(world.launch, dialer_connection="elsewhere=")
        world.say(FrameType.RESUMED, Resumed(2, 1, "elsewhere=", "relay=").encode())
        assert world.stream(len(data) + 26).endswith(b"for the one who comes back")


def test_relay_dials_back_when_its_own_websocket_is_lost_and_carries_on() -> None:
    second = FakeTransport()
    with World() as world:
        world.opened()
        world.again = second
        world.transport.close()
        assert second.sent.get(timeout=HANG).type is FrameType.RESUME
        assert [claim["X-Emissary-Epoch"] for claim in world.claims] == ["1", "2"]
        assert len({claim["X-Emissary-Instance"] for claim in world.claims}) == 1
        world.transport = second
        world.say(FrameType.RESUMED, Resumed(1, 2, world.launch.dialer_connection, "relay=").encode())
        world.target.sendall(b"still here")
        while not world.posted(FrameType.DATA).payload.endswith(b"still here"):
            pass


def test_relay_that_is_not_let_in_again_resets_the_target() -> None:
    with World() as world:
        world.opened()
        world.transport.close()
        assert world.result() is Code.UNKNOWN_SESSION
        with pytest.raises(ConnectionResetError):
            world.target.recv(1)


def test_nothing_is_left_when_serve_returns() -> None:
    before = set(threading.enumerate())
    with World() as world:
        _frame, _parameters, data = world.opened()
        world.target_closes()
        world.posted_fin()
        world.hang_up(ack=len(data) + 1)
        world.reported()
        assert world.result() is Code.OK
        assert set(threading.enumerate()) == before
        assert world.transport.released
        assert world.near.fileno() == -1


def test_tokens_are_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with World() as world:
        world.opened()
        claim = world.claims[0]["X-Emissary-Relay-Token"]
        world.transport.close()
        world.result()
    assert "claimed" in caplog.text
    logged = "".join(str(record.__dict__) for record in caplog.records)
    for secret in (world.launch.relay_token, world.launch.resume_token):
        assert secret.hex() not in logged
        assert repr(secret) not in logged
        assert repr(secret) not in repr(world.launch)
    assert claim not in logged
