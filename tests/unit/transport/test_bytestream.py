"""A non-blocking stream under two threads: deadlines, ends, and the kernel's own time-outs."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib.system import patience_options
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import reset, tcp_pair
from tests.helpers.patience import HANG

Pair = tuple[ByteStream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = tcp_pair()
    far.settimeout(HANG)
    stream = ByteStream(near)
    yield stream, far
    stream.close()
    far.close()


def test_a_read_gives_at_most_what_was_asked_and_keeps_the_rest(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"abcdef")
    assert stream.read(4, Deadline(HANG)) == b"abcd"
    assert stream.read(4, Deadline(HANG)) == b"ef"


def test_nothing_in_time_is_a_timeout_and_costs_nothing(pair: Pair) -> None:
    stream, far = pair
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.read(1, Deadline(0.05))
    assert time.monotonic() - began >= 0.05
    far.sendall(b"x")
    assert stream.read(1, Deadline(HANG)) == b"x"


def test_the_end_of_the_stream_is_empty_bytes_again_and_again(pair: Pair) -> None:
    stream, far = pair
    far.close()
    assert [stream.read(1, Deadline(HANG)) for _ in range(3)] == [b"", b"", b""]


def test_a_reset_is_an_error(pair: Pair) -> None:
    stream, far = pair
    reset(far)
    with pytest.raises(ConnectionResetError):
        stream.read(1, Deadline(HANG))


def test_a_peer_that_does_not_read_makes_a_write_run_into_its_deadline(pair: Pair) -> None:
    stream, _far = pair
    with pytest.raises(TimeoutError):
        stream.write(bytes(64 << 20), Deadline(0.1))


def test_both_directions_run_at_once(pair: Pair) -> None:
    stream, far = pair
    up, down = os.urandom(8 << 20), os.urandom(8 << 20)
    got = bytearray()

    def serve() -> None:
        sender = threading.Thread(target=far.sendall, args=(down,))
        sender.start()
        while len(got) < len(up):
            got.extend(far.recv(65_536))
        sender.join()

    server = threading.Thread(target=serve)
    writer = threading.Thread(target=stream.write, args=(up, Deadline(HANG)))
    server.start()
    writer.start()
    received = bytearray()
    while len(received) < len(down):
        received += stream.read(100_000, Deadline(HANG))
    writer.join(HANG)
    server.join(HANG)
    assert received == down
    assert got == up


def test_shutdown_wakes_a_reader(pair: Pair) -> None:
    stream, _far = pair
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(stream.read(1, Deadline(None))))
    reader.start()
    stream.shutdown()
    stream.shutdown()
    reader.join(HANG)
    assert got == [b""]


def test_after_a_shutdown_nothing_is_read_of_what_the_kernel_still_has(pair: Pair) -> None:
    stream, far = pair
    far.sendall(b"abc")
    assert stream.read(1, Deadline(HANG)) == b"a"
    far.sendall(bytes(100_000))
    stream.shutdown()
    assert [stream.read(1, Deadline(HANG)) for _ in range(2)] == [b"", b""]


def test_a_read_without_time_gives_what_is_there_and_waits_for_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each millisecond of waiting is one in which a drip can make it wait again."""
    stream, far = pair
    far.sendall(b"a")
    assert stream.read(1, Deadline(HANG)) == b"a"
    monkeypatch.delattr("emissary_lib.system.ShortSelector")  # what waits would fail
    with pytest.raises(TimeoutError):
        stream.read(1, Deadline(0.0))


class GivenUp(socket.socket):
    """A socket whose kernel has given up on the peer, as TCP_USER_TIMEOUT makes it."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def test_a_peer_that_the_kernel_gave_up_on_is_no_mere_timeout() -> None:
    near, far = tcp_pair()
    with far:
        stream = ByteStream(GivenUp(fileno=near.detach()))
        with pytest.raises(ConnectionError, match="timed out"):  # ETIMEDOUT alone would be a TimeoutError
            stream.read(1, Deadline(HANG))
        stream.close()


def test_what_is_there_is_read_without_waiting(pair: Pair) -> None:
    stream, far = pair
    assert stream.read_now(10) is None
    far.sendall(b"abcdef")
    selectors_wait(stream, selectors.EVENT_READ)
    assert stream.read_now(4) == b"abcd"
    assert stream.read_now(4) == b"ef"
    assert stream.read_now(4) is None
    far.shutdown(socket.SHUT_WR)
    selectors_wait(stream, selectors.EVENT_READ)
    assert stream.read_now(4) == b""


def test_as_much_is_written_as_is_taken_and_no_more(pair: Pair) -> None:
    stream, far = pair
    data, at = os.urandom(4_000_000), 0
    while count := stream.write_now(memoryview(data)[at:]):
        at += count
    assert 0 < at < len(data)
    assert stream.write_now(memoryview(data)[at:]) == 0
    far.setblocking(True)  # else it need not wait for all
    assert far.recv(at, socket.MSG_WAITALL) == data[:at]
    stream.shutdown()
    with pytest.raises(OSError, match="Broken pipe"):
        stream.write_now(memoryview(data))


def selectors_wait(stream: ByteStream, event: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, event)
        assert selector.select(HANG)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this kernel has no such limit")
def test_a_peer_that_takes_nothing_is_waited_for_where_that_is_wanted() -> None:
    near, far = tcp_pair()
    with near, far:
        for option in patience_options(silence=120.0, unanswered=30.0):
            near.setsockopt(*option)
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        stream = ByteStream(near)
        stream.wait_for_slow_peer()
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    stream.close()
    stream.wait_for_slow_peer()  # of a connection that is gone, nothing is wanted
