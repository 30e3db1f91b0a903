"""A pair of loopback sockets, and resets that lose nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib import system
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import KERNEL_BUFFER, UNTOLD, reset, reset_after_drain, tcp_pair
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises


def test_a_pair_is_connected_with_no_delay_and_blocking() -> None:
    near, far = tcp_pair()
    with near, far:
        near.sendall(b"there")
        far.sendall(b"back")
        assert (far.recv(10), near.recv(10)) == (b"there", b"back")
        for sock in (near, far):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # Linux doubles what it is asked for
                assert sock.getsockopt(socket.SOL_SOCKET, option) in (KERNEL_BUFFER, 2 * KERNEL_BUFFER)
            assert sock.gettimeout() is None
            assert sock.getsockname()[0] == sock.getpeername()[0] == "127.0.0.1"


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Connections that stand in the queue of every listener, before its owner can connect."""
    came: list[socket.socket] = []
    listen = socket.socket.listen

    def crowded(listener: socket.socket, backlog: int) -> None:
        listen(listener, backlog)
        for _ in range(2 * backlog + 4):
            stranger = socket.socket()
            stranger.setblocking(False)
            stranger.connect_ex(listener.getsockname())
            came.append(stranger)

    monkeypatch.setattr(socket.socket, "listen", crowded)
    yield came
    for each in came:
        each.close()


def test_strangers_that_fill_the_queue_are_turned_away_and_keep_nobody_out(
    strangers: list[socket.socket],
) -> None:
    near, far = tcp_pair(Deadline(HANG))
    with near, far:
        assert near.getsockname() == far.getpeername()
        assert near.getpeername() == far.getsockname()
        near.sendall(b"there")
        assert far.recv(10) == b"there"
    assert len(strangers) > 8


def test_strangers_that_never_stop_are_waited_for_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def stranger(_listener: socket.socket) -> tuple[socket.socket, object]:
        return socket.socket(), ("127.0.0.1", 1)

    monkeypatch.setattr(socket.socket, "accept", stranger)
    with pytest.raises(TimeoutError):
        tcp_pair(Deadline(0.05))


def test_a_loopback_that_refuses_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "listen", lambda listener, backlog: None)
    with pytest.raises(ConnectionRefusedError):
        tcp_pair(Deadline(HANG))


def test_reset_is_seen_as_one_and_never_raises() -> None:
    near, far = tcp_pair()
    with far:
        reset(near)
        reset(near)
        with pytest.raises(ConnectionResetError):
            far.recv(1)


def test_a_reset_when_taken_loses_no_byte() -> None:
    near, far = tcp_pair()
    near.settimeout(0.2)
    sent: list[int] = []
    with pytest.raises(TimeoutError):
        repeat_until_it_raises(lambda: sent.append(near.send(bytes(65_536))))
    thread = threading.Thread(target=reset_after_drain, args=(near, Deadline(HANG)))
    thread.start()
    received = bytearray()
    with far, pytest.raises(ConnectionResetError):
        read_until_it_raises(lambda: far.recv(65_536), received)
    thread.join(HANG)
    assert len(received) == sum(sent)


@pytest.mark.parametrize("closed", [False, True])
def test_it_waits_for_a_reader_no_longer_than_the_deadline_or_the_readers_life(closed: bool) -> None:
    near, far = tcp_pair()
    near.settimeout(0.1)
    with pytest.raises(TimeoutError):
        repeat_until_it_raises(lambda: near.send(bytes(65_536)))
    if closed:
        far.close()
    deadline = Deadline(HANG if closed else 0.2)
    reset_after_drain(near, deadline)
    assert deadline.passed() is not closed
    far.close()


def test_where_the_kernel_does_not_tell_what_is_left_a_reader_that_stopped_has_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(system, "TELLS_UNSENT", False)
    near, far = tcp_pair()
    with far:
        near.sendall(b"the last words")
        began = time.monotonic()
        reset_after_drain(near, Deadline(HANG))
        assert time.monotonic() - began >= UNTOLD
        assert far.recv(100) == b"the last words"  # Windows would have thrown it away by now
        with pytest.raises(ConnectionResetError):
            far.recv(1)
