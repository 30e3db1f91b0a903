"""The driver of a connection over the original's transport, with a server's end that the test plays."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib.exceptions import LocalResourceError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.original.frames import Close, Event, FrameReader, Payload
from emissary_lib.protocol.original.stream import End, OriginalStream, Times
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.tunnel.loopback import reset, tcp_pair
from emissary_lib.tunnel.original import HALF_CLOSED, OriginalTunnel
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.ws_server import BINARY, CLOSE, PING, PONG, Peer, RawFrame, Request

OWN_CLOSE = struct.pack(">H", 1000) + b"encore"


class Running:
    """A tunnel in a thread of its own, between a user and a server that the test plays.

    Attributes:
        user: The user's socket.
        server: The server's end of the WebSocket.
        ends: How it ended, as it was told.
    """

    def __init__(self, times: Times | None = None, *early: Event, written: bytes = b"") -> None:
        near, far = tcp_pair()
        ours, self.user = tcp_pair()
        self.user.sendall(written)
        self.user.settimeout(HANG)
        self.server = Peer(far, Request("/"))
        self.ends: list[End] = []
        self.stream = OriginalStream(
            FrameReader(),
            early,
            Counters(),
            now=time.monotonic(),
            draw_mask=lambda: os.urandom(4),
            times=times or Times(),
        )
        self.tunnel = OriginalTunnel(self.stream, ByteStream(near), ours, on_end=self.ends.append)
        self.thread = threading.Thread(target=self.tunnel.run, daemon=True)
        self.thread.start()

    def frame(self, *kinds: int) -> RawFrame:
        """The next frame of one of these kinds."""
        while (frame := self.server.read_frame()).opcode not in kinds:
            pass
        return frame

    def answer_pings(self, size: int) -> bytes:
        """Read so many bytes of the user's, as a server does that takes them."""
        got = b""
        while len(got) < size:
            frame = self.server.read_frame()
            if frame.opcode == PING:
                self.server.send_frame(PONG, frame.payload)
            else:
                assert frame.opcode == BINARY
                got += frame.payload
        self.server.send_frame(PONG, self.frame(PING).payload) if not self.stream.complete else None
        return got

    def join(self) -> End:
        self.thread.join(HANG)
        assert not self.thread.is_alive()
        (end,) = self.ends
        return end

    def close(self) -> None:
        self.user.close()
        self.server.sock.close()
        self.thread.join(HANG)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()


def test_bytes_cross_both_ways_and_are_confirmed(running: Running) -> None:
    running.user.sendall(b"SELECT 1")
    frame = running.server.read_frame()
    assert (frame.opcode, frame.fin, frame.masked, frame.payload) == (BINARY, True, True, b"SELECT 1")
    assert running.tunnel.undelivered_bytes == 8
    assert not running.tunnel.idle
    ping = running.frame(PING)
    assert ping.payload == struct.pack(">Q", 8)
    running.server.send_frame(PONG, ping.payload)
    wait_until(lambda: running.tunnel.acked == 8, "it is confirmed")
    wait_until(lambda: running.tunnel.idle, "nothing more is there")
    assert (running.tunnel.undelivered_bytes, running.tunnel.written, running.tunnel.untaken) == (0, 8, False)
    running.server.send_frame(BINARY, b"1 row")
    assert running.user.recv(100) == b"1 row"


def test_a_user_that_does_not_read_stops_the_server_and_loses_nothing(running: Running) -> None:
    data = os.urandom(30_000_000)
    sent: list[int] = []
    running.server.sock.settimeout(0.5)
    frames = [data[at : at + 30_000] for at in range(0, len(data), 30_000)]

    def send() -> None:
        for frame in frames:
            running.server.send_frame(BINARY, frame)
            sent.append(len(frame))
        running.server.send_frame(CLOSE, OWN_CLOSE)

    sender = threading.Thread(target=send)
    sender.start()
    before = -1
    while before != len(sent):
        before = len(sent)
        threading.Event().wait(0.2)
    assert sum(sent) < len(data)
    with running.stream.peek() as view:
        assert len(view) <= 2 * 65_536
    got = bytearray()
    while piece := running.user.recv(1 << 20):
        got += piece
    sender.join(HANG)
    assert bytes(got) == data
    assert running.join().code is Code.OK


def test_a_server_that_does_not_read_stops_the_user_and_loses_nothing(running: Running) -> None:
    running.user.settimeout(0.2)
    pieces: list[int] = []
    data = os.urandom(65_536)
    with pytest.raises(TimeoutError):
        repeat_until_it_raises(lambda: pieces.append(running.user.send(data)))
    assert running.tunnel.written >= sum(pieces) - 2 * 131_072 * 2
    before = time.process_time()
    threading.Event().wait(0.3)
    assert time.process_time() - before < 0.15, "a blocked tunnel burns the processor"
    got = running.answer_pings(sum(pieces))
    assert got == b"".join(data[:count] for count in pieces)
    wait_until(lambda: running.tunnel.acked == len(got), "all is confirmed")


def test_the_server_s_close_ends_the_user_s_stream_and_is_answered(running: Running) -> None:
    running.server.send_frame(BINARY, b"bye")
    running.server.send_frame(CLOSE, OWN_CLOSE)
    assert running.user.recv(100) == b"bye"
    assert running.user.recv(100) == b""
    assert running.frame(CLOSE).payload == struct.pack(">H", 1000)
    assert running.join() == End(Code.OK)
    assert running.tunnel.idle


def test_bytes_that_were_not_sent_at_the_server_s_close_are_a_loss(running: Running) -> None:
    running.user.settimeout(0.2)
    with pytest.raises(TimeoutError):
        repeat_until_it_raises(lambda: running.user.send(bytes(65_536)))
    running.server.send_frame(BINARY, b"last words")
    running.server.send_frame(CLOSE, OWN_CLOSE)
    running.user.settimeout(HANG)
    got = bytearray()
    with pytest.raises(ConnectionResetError):
        read_until_it_raises(lambda: running.user.recv(100), got)
    assert bytes(got) == b"last words"
    assert running.join().code is Code.INCOMPLETE
    assert running.tunnel.undelivered_bytes > 0
    assert not running.tunnel.idle


def test_bytes_that_were_not_even_read_at_the_server_s_close_are_a_loss_too() -> None:
    running = Running(None, Payload(b"bye", True), Close(1000, "encore"), written=b"one more")
    assert running.user.recv(100) == b"bye"
    with pytest.raises(ConnectionResetError):
        running.user.recv(100)
    end = running.join()
    assert end.code is Code.INCOMPLETE
    assert "8 bytes" in end.reason
    running.close()


@pytest.mark.parametrize("kind", ["end", "reset"])
def test_a_connection_that_is_cut_resets_the_user_behind_what_came(running: Running, kind: str) -> None:
    running.server.send_frame(BINARY, b"half a row")
    assert running.user.recv(4) == b"half"
    if kind == "end":
        running.server.sock.close()
    else:
        reset(running.server.sock)
    got = bytearray()
    with pytest.raises(ConnectionResetError):
        read_until_it_raises(lambda: running.user.recv(100), got)
    assert bytes(got) == b" a row"
    assert running.join().code is Code.DIALER_GONE


def test_who_hears_of_the_end_hears_it_before_the_user_meets_it() -> None:
    """Symptom: a program asked why its connection was reset, and nobody knew yet."""
    running = Running()
    told, go = threading.Event(), threading.Event()

    def on_end(end: End) -> None:
        told.set()
        go.wait(HANG)
        running.ends.append(end)

    running.tunnel._on_end = on_end
    running.server.sock.close()
    assert told.wait(HANG)
    running.user.setblocking(False)
    with pytest.raises(BlockingIOError):
        running.user.recv(1)
    go.set()
    running.user.settimeout(HANG)
    with pytest.raises(ConnectionResetError):
        running.user.recv(1)
    running.close()


def test_the_end_of_the_user_s_stream_is_passed_on_after_a_silence_and_the_user_is_reset() -> None:
    running = Running(Times(half_close=0.05))
    running.user.sendall(b"question")
    running.user.shutdown(socket.SHUT_WR)
    assert running.answer_pings(8) == b"question"
    assert running.frame(CLOSE).payload == struct.pack(">H", 1000)
    assert running.tunnel.program_ended
    running.server.send_frame(CLOSE, struct.pack(">H", 1000))
    with pytest.raises(ConnectionResetError):
        running.user.recv(1)
    assert running.join() is HALF_CLOSED
    assert running.tunnel.undelivered_bytes == 0
    running.close()


def test_an_answer_behind_the_end_of_the_user_s_stream_arrives(running: Running) -> None:
    running.user.sendall(b"question")
    running.user.shutdown(socket.SHUT_WR)
    assert running.answer_pings(8) == b"question"
    wait_until(lambda: running.tunnel.idle, "all of it is confirmed")
    running.server.send_frame(BINARY, b"answer")
    running.server.send_frame(CLOSE, OWN_CLOSE)
    assert running.user.recv(100) == b"answer"
    assert running.user.recv(100) == b""
    assert running.join() == End(Code.OK)


def test_a_user_that_resets_its_connection_ends_it_behind_what_it_wrote(running: Running) -> None:
    running.user.sendall(b"COMMIT")
    wait_until(lambda: running.stream.sent == 6, "it was read")
    reset(running.user)
    assert running.answer_pings(6) == b"COMMIT"
    assert running.frame(CLOSE).payload == struct.pack(">H", 1001)
    running.server.send_frame(CLOSE, struct.pack(">H", 1001))
    end = running.join()
    assert end.code is Code.DIALER_RESET
    assert running.tunnel.undelivered_bytes == 0
    assert running.tunnel.user_gone


def test_a_user_that_has_gone_is_noticed_though_nothing_is_read_from_it(running: Running) -> None:
    running.user.sendall(b"x")
    running.user.shutdown(socket.SHUT_WR)
    assert running.answer_pings(1) == b"x"
    reset(running.user)
    assert running.frame(CLOSE).payload == struct.pack(">H", 1001)


def test_what_comes_for_a_user_that_has_gone_is_dropped_and_holds_nobody_up(running: Running) -> None:
    """Symptom: the server could not read our Close, because it waited for us to read its bytes."""
    reset(running.user)
    with contextlib.suppress(OSError):  # who comes too late finds it closed
        for _ in range(50):
            running.server.send_frame(BINARY, bytes(60_000))
        running.frame(CLOSE)
        running.server.send_frame(CLOSE, struct.pack(">H", 1001))
    assert running.stream.received > 1_000_000
    assert running.join().code is Code.DIALER_RESET


def test_a_program_that_exits_has_the_target_s_stream_ended_behind_what_it_wrote(running: Running) -> None:
    running.user.sendall(b"the last insert")
    running.tunnel.begin_drain()
    got = b""
    while (frame := running.server.read_frame()).opcode != CLOSE:
        got += frame.payload if frame.opcode == BINARY else b""
    assert (got, frame.payload) == (b"the last insert", struct.pack(">H", 1000))
    idle = [running.tunnel.idle]
    running.server.send_frame(CLOSE, struct.pack(">H", 1000))
    assert running.join().code is Code.OK
    idle.append(running.tunnel.idle)
    assert idle == [False, True]
    assert running.tunnel.acked == 16  # with the end


def test_a_tunnel_that_is_given_up_ends(running: Running) -> None:
    running.tunnel.abort()
    assert running.frame(CLOSE).payload == struct.pack(">H", 1001)
    running.server.send_frame(CLOSE, struct.pack(">H", 1001))
    assert running.join().code is Code.DIALER_RESET
    with pytest.raises(ConnectionResetError):
        running.user.recv(1)


def test_without_a_thread_everything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = tcp_pair()
    ours, user = tcp_pair()
    stream = OriginalStream(FrameReader(), (), Counters(), now=0.0, draw_mask=lambda: bytes(4), times=Times())
    tunnel = OriginalTunnel(stream, ByteStream(near), ours)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LocalResourceError):
            tunnel.run_in_thread(tunnel.run)
    with user, far:
        with pytest.raises(ConnectionResetError):
            user.recv(1)
        assert far.recv(1) == b""
