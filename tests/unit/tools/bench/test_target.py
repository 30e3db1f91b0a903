"""The bench's target, as the process it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.helpers.patience import HANG
from tools.bench.target import HEADER, receive_exactly, send_exactly, target_process


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with target_process() as target, socket.create_connection(target, HANG) as sock:
        yield sock


def test_a_source_sends_so_many_bytes_and_no_more(sock: socket.socket) -> None:
    sock.sendall(HEADER.pack(b"S", 1_000_003))
    receive_exactly(sock, 1_000_003)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""


def test_a_sink_answers_only_when_it_has_all(sock: socket.socket) -> None:
    sock.sendall(HEADER.pack(b"K", 300_000))
    send_exactly(sock, 299_999)
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(HANG)
    send_exactly(sock, 1)
    assert sock.recv(2) == b"."


def test_a_connection_carries_one_command_after_the_other(sock: socket.socket) -> None:
    for _ in range(2):
        sock.sendall(HEADER.pack(b"K", 10))
        send_exactly(sock, 10)
        assert sock.recv(2) == b"."
    sock.sendall(HEADER.pack(b"E", 0))
    sock.sendall(b"ping")
    assert sock.recv(10) == b"ping"


def test_a_stream_that_ends_early_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abc")
        theirs.close()
        with pytest.raises(ConnectionError, match="1 bytes early"):
            receive_exactly(ours, 4)
