"""Dials over the original's transport, against a server as its authors publish it."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from emissary_lib import Dialer
from emissary_lib.client.original import original_dial_error
from emissary_lib.exceptions import (
    AuthenticationError,
    ClockSkewError,
    DialError,
    DialTimeoutError,
    GatewayRefusedError,
    GatewayUnreachableError,
    LocalResourceError,
    NameNotFoundError,
    TargetNotAllowedError,
    TargetRefusedError,
    TargetTimedOutError,
    TargetUnreachableError,
    TunnelResetError,
)
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, Target
from tests.helpers.bridge import TARGET, Behaviour, Bridge
from tests.helpers.bridge import echo as echo_over_bridge
from tests.helpers.hostile import Script
from tests.helpers.original import KEY, OriginalServer
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.servers import Server, echo, greeter, resetter, sink, source, unused_port
from tests.helpers.ws_server import BINARY, PING, TEXT, Peer, WsServer, frame_bytes, refusal

BANNER = Banner("emissary-server", "devel", 1, bytes(range(1, 33))).encode_message()
ANSWERS = b"\x05\x02\x01\x00" + b"\x05\x00\x00\x01" + bytes(6)

Service = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(service: Service, **options: object) -> Iterator[tuple[OriginalServer, Dialer, tuple[str, int]]]:
    """A target, the server that reaches it, and a dialer."""
    with Server(service) as target, OriginalServer([target], **options) as server:  # type: ignore[arg-type]
        with Dialer(server.url, KEY) as dialer:
            yield server, dialer, target


def read_all(sock: socket.socket) -> bytes:
    got = bytearray()
    while data := sock.recv(65_536):
        got += data
    return bytes(got)


# -- dialling -----------------------------------------------------------------------------------------


def test_the_first_dial_finds_the_original_out_in_one_attempt_and_the_others_know() -> None:
    with serving(echo) as (server, dialer, target):
        for count in (1, 2, 3):
            with dialer.dial(target, HANG) as sock:
                sock.sendall(b"hello")
                assert sock.recv(10) == b"hello"
            assert len(server.requests) == count
        assert {each.headers["sec-websocket-protocol"] for each in server.requests} == {"emissary.v2"}
        assert all("x-emissary-mac" in each.headers for each in server.requests)
        assert not any("sec-websocket-extensions" in each.headers for each in server.requests)
        assert dialer.relays == ()


def test_the_first_meeting_is_said_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "emissary_lib.tunnel"), serving(echo) as (server, dialer, target):
        for _ in range(2):
            dialer.dial(target, HANG).close()
    told = [
        record.getMessage()
        for record in caplog.records
        if "original Emissary's transport" in record.getMessage()
    ]
    assert len(told) == 1
    assert server.url in told[0]


def test_what_is_known_of_a_connection() -> None:
    with serving(greeter(b"220 ready\r\n")) as (_server, dialer, target), dialer.dial(target, HANG) as sock:
        assert sock.recv(100) == b"220 ready\r\n"
        sock.sendall(b"EHLO")
        assert sock.recv(100) == b"EHLO"
        session = sock.session
        assert session
        assert (session.target, session.error, session.going_away) == (Target(*target), None, False)
        assert session.expires_at == math.inf
        assert session.transferred == (4, 15)
        assert session.counters.bytes_sent == 4
        assert len(session.id) == 64
        with dialer.dial(target, HANG) as other:
            assert other.session
            assert other.session.id != session.id


@pytest.mark.parametrize("key", [Key(7, b"another secret.."), Key(8, bytes(range(32)))], ids=["secret", "id"])
def test_a_wrong_key_is_told_as_that(key: Key) -> None:
    with Server(echo) as target, OriginalServer([target]) as server, Dialer(server.url, key) as dialer:
        for _ in range(2):  # the second knows the server
            with pytest.raises(
                AuthenticationError, match="did not accept the key; compare EMISSARY_AUTH_KEYS"
            ):
                dialer.dial(target, HANG)


def test_a_clock_that_is_off_is_told_as_that_where_the_server_tells_the_time() -> None:
    def skewed() -> float:
        return time.time() + 3600

    with serving(echo, clock=skewed) as (_server, dialer, target):
        with pytest.raises(AuthenticationError, match="and both clocks") as caught:
            dialer.dial(target, HANG)
        assert not isinstance(caught.value, ClockSkewError)
    dated = [f"Date: {http_date(skewed())}"]
    with serving(echo, clock=skewed, headers=dated) as (_server, dialer, target):
        with pytest.raises(ClockSkewError, match="behind the server's") as skew:
            dialer.dial(target, HANG)
        assert abs(skew.value.skew + 3600) < HANG


def test_targets_that_are_not_reached_are_told_apart_as_far_as_the_server_does() -> None:
    with serving(echo, names={"db.internal": "127.0.0.1"}) as (_server, dialer, target):
        with pytest.raises(TargetNotAllowedError, match="EMISSARY_ALLOWED_PROXY_TARGETS"):
            dialer.dial(("db.internal", 5432), HANG)
        with pytest.raises(TargetUnreachableError, match="or its name does not resolve there"):
            dialer.dial(("nowhere.internal", target[1]), HANG)
    with unused_port() as closed, OriginalServer([closed]) as server, Dialer(server.url, KEY) as dialer:
        with pytest.raises(TargetRefusedError, match="refused the connection"):
            dialer.dial(closed, HANG)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.NAME_NOT_FOUND, NameNotFoundError),
        (Code.TARGET_TIMED_OUT, TargetTimedOutError),
        (Code.TARGET_FAILED, DialError),
        (Code.COMMAND_NOT_SUPPORTED, DialError),
    ],
)
def test_each_refusal_has_its_error(code: Code, kind: type[DialError]) -> None:
    error = original_dial_error(Target("db.internal", 5432), code)
    assert type(error) is kind
    assert isinstance(error, DialError)
    assert (error.code, str(error.target)) == (code, "db.internal:5432")
    assert error.hint in str(error)


def test_the_reserved_name_is_refused_here() -> None:
    with serving(echo) as (server, dialer, target):
        dialer.dial(target, HANG).close()
        with pytest.raises(TargetNotAllowedError):
            dialer.dial((SHARED_TARGET.host, SHARED_TARGET.port), HANG)
        assert len(server.requests) == 1


def test_a_throttled_server_is_asked_again_and_a_refusal_is_raised_at_once() -> None:
    answers = [refusal(503), refusal(429)]
    with serving(echo, answer=lambda request: answers.pop() if answers else None) as (server, dialer, target):
        dialer.dial(target, HANG).close()
        assert len(server.requests) == 3
    with serving(echo, answer=lambda request: refusal(400)) as (server, dialer, target):
        with pytest.raises(GatewayRefusedError, match="400"):
            dialer.dial(target, HANG)
        assert len(server.requests) == 1  # not once more without the subprotocol


def test_a_connection_that_is_cut_while_it_opens_is_made_again() -> None:
    seen = []

    def serve(peer: Peer) -> None:
        seen.append(peer)
        peer.send_frame(BINARY, BANNER)
        peer.read_frame()
        if len(seen) == 1:
            return
        peer.send_frame(BINARY, ANSWERS + b"hi")
        peer.read_frame()  # the end of it

    with WsServer(serve, subprotocol=None) as server, Dialer(server.url, KEY) as dialer:
        with dialer.dial(TARGET, HANG) as sock:
            assert sock.recv(2) == b"hi"
    assert len(seen) == 2


def test_what_follows_the_reply_in_the_same_piece_is_the_target_s_its_end_included() -> None:
    def serve(peer: Peer) -> None:
        peer.send_frame(BINARY, BANNER)
        peer.read_frame()
        close = frame_bytes(0x8, struct.pack(">H", 1000) + b"encore")
        peer.send_raw(
            frame_bytes(BINARY, ANSWERS + b"ab") + frame_bytes(PING) + frame_bytes(BINARY, b"cd") + close
        )
        peer.read_frame()

    with WsServer(serve, subprotocol=None) as server, Dialer(server.url, KEY) as dialer:
        with dialer.dial(TARGET, HANG) as sock:
            assert read_all(sock) == b"abcd"


def test_without_a_descriptor_for_its_bytes_a_dial_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoWakeup:
        def __init__(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    with serving(echo) as (server, dialer, target):
        monkeypatch.setattr("emissary_lib.tunnel.original.Wakeup", NoWakeup)
        with pytest.raises(LocalResourceError):
            dialer.dial(target, HANG)
        wait_until(lambda: server.open == 0, "its WebSocket is closed")


# -- who is none --------------------------------------------------------------------------------------


def says(data: bytes) -> Callable[[Peer], None]:
    def serve(peer: Peer) -> None:
        peer.send_raw(data)
        with contextlib.suppress(OSError):
            while True:
                peer.read_frame()

    return serve


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (frame_bytes(TEXT, b'{"message": "hello"}'), RemoteProtocolError, "text message"),
        (frame_bytes(BINARY, b"\x0a\x05mysql"), RemoteProtocolError, "calls itself 'mysql'"),
        (frame_bytes(BINARY, bytes(600)), RemoteProtocolError, "check the URL"),
        (frame_bytes(BINARY, BANNER.replace(b"\x18\x01", b"\x18\x02")), UnsupportedVersionError, "version 2"),
        (frame_bytes(BINARY, BANNER) + frame_bytes(BINARY, b"HTTP"), RemoteProtocolError, "SOCKS version"),
        (frame_bytes(0x8, b"\x03\xf0no"), GatewayUnreachableError, "1008 .no.; check the URL"),
    ],
)
def test_who_is_no_server_of_the_original_s_is_told_at_once(
    data: bytes, kind: type[Exception], said: str
) -> None:
    with WsServer(says(data), subprotocol=None) as server, Dialer(server.url, KEY) as dialer:
        with pytest.raises(kind, match=said):
            dialer.dial(TARGET, HANG)
        assert len(server.requests) == 1


def test_who_accepts_anything_and_hangs_up_is_told_at_once() -> None:
    with WsServer(subprotocol=None) as server, Dialer(server.url, KEY) as dialer:
        with pytest.raises(
            GatewayUnreachableError, match=r"does not speak emissary\.v2, and ended .*check the URL"
        ):
            dialer.dial(TARGET, HANG)
        assert len(server.requests) == 1


FLOODS = {
    "silence": Script(),
    "pings": Script(again=frame_bytes(PING)),
    "pings of one who reads nothing": Script(again=frame_bytes(PING, bytes(125))),
    "empty fragments": Script(again=frame_bytes(0x0, fin=False), start=frame_bytes(BINARY, fin=False)),
    "a banner, and then empty messages": Script(frame_bytes(BINARY, BANNER), frame_bytes(BINARY)),
    "a banner, and then half an answer": Script(frame_bytes(BINARY, BANNER) + frame_bytes(BINARY, b"\x05")),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_dial_ends_at_its_deadline_whatever_the_server_says(name: str) -> None:
    script = FLOODS[name]

    def serve(peer: Peer) -> None:
        peer.send_raw(script.start)
        while script.again:
            peer.send_raw(script.again * 100)
        server.wait_closing()

    with WsServer(serve, subprotocol=None) as server, Dialer(server.url, KEY) as dialer:
        with pytest.raises(DialTimeoutError, match="original Emissary"):
            dialer.dial(TARGET, 0.5)


def test_a_server_that_has_proved_itself_is_taken_for_no_original_later() -> None:
    with Bridge(Behaviour(script=echo_over_bridge)) as bridge, Dialer(bridge.url, KEY) as dialer:
        dialer.dial(TARGET, HANG).close()
        with OriginalServer() as server, Dialer(server.url, KEY) as moved:
            moved._learned = dialer._learned
            with pytest.raises(GatewayUnreachableError, match=r"does not speak emissary\.v2; check the URL"):
                moved.dial(TARGET, HANG)
            wait_until(lambda: server.open == 0, "its WebSocket is closed")


def test_a_server_that_was_replaced_by_ours_is_found_out_too() -> None:
    with serving(echo) as (_server, dialer, target):
        dialer.dial(target, HANG).close()
        with Bridge(Behaviour(script=echo_over_bridge)) as bridge, Dialer(bridge.url, KEY) as moved:
            moved._learned = dialer._learned
            for _ in range(2):
                with moved.dial(TARGET, HANG) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
            assert not moved._learned.original


# -- the end ------------------------------------------------------------------------------------------


def test_the_target_s_end_is_the_end() -> None:
    with serving(source(b"all of it")) as (_server, dialer, target), dialer.dial(target, HANG) as sock:
        assert read_all(sock) == b"all of it"
        assert sock.session
        assert sock.session.error is None


def test_a_target_that_answers_at_once_and_closes_ends_clean() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"200")

    with serving(answer) as (_server, dialer, target):
        for _ in range(30):
            with dialer.dial(target, HANG) as sock:
                sock.sendall(b"GET /")
                assert read_all(sock) == b"200"


def test_a_close_with_another_status_cuts_off_and_says_why() -> None:
    with serving(echo) as (server, dialer, target), dialer.dial(target, HANG) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        server.close_all(1001, "moving")
        with pytest.raises(TunnelResetError, match=r"1001 \(moving\)") as caught:
            sock.recv(1)
        assert caught.value.code is Code.DIALER_GONE


def test_a_cut_in_the_middle_is_an_error_behind_what_came_before() -> None:
    go = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"half a row")
        go.wait(HANG)

    with serving(serve) as (server, dialer, target):
        with dialer.dial(target, HANG) as sock:
            got = bytearray()
            wait_until(lambda: sock.session and sock.session.transferred[1] == 10, "it came")
            server.cut()
            with pytest.raises(TunnelResetError, match="without a Close frame"):
                read_until_it_raises(lambda: sock.recv(3), got)
            assert bytes(got) == b"half a row"
        go.set()


def test_what_is_no_websocket_any_more_cuts_off() -> None:
    def serve(peer: Peer) -> None:
        peer.send_frame(BINARY, BANNER)
        peer.read_frame()
        peer.send_frame(BINARY, ANSWERS)
        peer.read_frame()
        peer.send_frame(TEXT, b"oops")
        with contextlib.suppress(OSError):
            peer.read_frame()

    with WsServer(serve, subprotocol=None) as server, Dialer(server.url, KEY) as dialer:
        with dialer.dial(TARGET, HANG) as sock:
            sock.sendall(b"x")
            with pytest.raises(TunnelResetError, match="text message") as caught:
                sock.recv(1)
        assert caught.value.code is Code.PROTOCOL_ERROR


def test_a_target_that_stops_taking_bytes_and_resets_is_no_clean_end() -> None:
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        stop.wait(HANG)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(serve) as (_server, dialer, target), dialer.dial(target, HANG) as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            repeat_until_it_raises(lambda: sock.send(bytes(65_536)))
        stop.set()
        sock.settimeout(HANG)
        with pytest.raises(TunnelResetError) as caught:
            sock.recv(1)
        assert caught.value.code in (Code.INCOMPLETE, Code.DIALER_GONE)


def test_an_answer_to_the_end_of_the_stream_that_needs_no_end_still_comes() -> None:
    ask = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        ask.wait(HANG)
        connection.sendall(b"answer")

    with serving(serve) as (_server, dialer, target), dialer.dial(target, HANG) as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        ask.set()
        assert read_all(sock) == b"answer"


def test_a_program_that_resets_its_connection_ends_the_target_s() -> None:
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        sink(connection)
        ended.set()

    with serving(serve) as (server, dialer, target):
        sock = dialer.dial(target, HANG)
        sock.sendall(b"x")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        assert ended.wait(HANG)
        wait_until(lambda: server.open == 0, "it is closed")


def test_a_program_that_has_gone_is_noticed_when_the_target_speaks() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(1000))

    with serving(serve) as (server, dialer, target):
        sock = dialer.dial(target, HANG)
        sock.sendall(b"x")
        sock.close()
        wait_until(lambda: server.open == 0, "it is closed")


def test_closing_the_dialer_waits_for_what_was_written() -> None:
    got = bytearray()

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            got.extend(data)

    data = os.urandom(3_000_000)
    with serving(serve) as (_server, dialer, target):
        sock = dialer.dial(target, HANG)
        sock.sendall(data)
        dialer.close()
        wait_until(lambda: len(got) == len(data), "the target's thread has read it")
        assert bytes(got) == data
        sock.close()


def test_a_dial_that_is_given_up_leaves_nothing_open() -> None:
    never = threading.Event()

    def connect(_address: tuple[str, int]) -> socket.socket:
        never.wait(HANG)
        raise TimeoutError

    with OriginalServer(
        [("db.internal", 5432)], names={"db.internal": "127.0.0.1"}, connect=connect
    ) as server:
        with Dialer(server.url, KEY) as dialer:
            with pytest.raises(
                DialTimeoutError, match="original Emissary's server to reach the target"
            ) as caught:
                dialer.dial(TARGET, 0.5)
            assert "server" in caught.value.timings
        never.set()


def test_a_target_s_reset_with_nothing_missing_looks_like_an_end() -> None:
    """What the wire does not tell nobody can: docs/protocol.md section 12.5."""
    with serving(resetter(1)) as (_server, dialer, target), dialer.dial(target, HANG) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b""
