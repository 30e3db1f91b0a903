"""Resets of one connection of a shared session: each behind all bytes that came before it."""

from __future__ import annotations

import select
import socket
import threading

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.shared_tunnels import PlayedRelay, SharedPair
from tests.helpers.tunnels import read_to_end, send_all
from tests.helpers.ws_server import noise


def read_to_a_reset(sock: socket.socket) -> bytes:
    got = bytearray()
    with pytest.raises(ConnectionResetError):
        read_until_it_raises(lambda: sock.recv(65_536), got)
    return bytes(got)


def test_a_target_s_reset_comes_behind_its_bytes_and_leaves_other_connections_alone() -> None:
    with SharedPair() as pair:
        line, other = pair.connect(), pair.connect()
        cut = threading.Event()
        line.dialed.watch_cut(cut.set)
        line.target.sendall(b"half an ans")
        reset(line.target)
        assert read_to_a_reset(line.user) == b"half an ans"
        assert cut.is_set(), "whoever meets the reset can ask why"
        assert line.dialed.ended.wait(HANG)
        assert (line.dialed.code, line.dialed.reason, line.dialed.lost) == (Code.TARGET_RESET, "", 0)
        assert line.requested.ended.wait(HANG)
        assert line.requested.code is Code.TARGET_RESET
        other.user.sendall(b"still here")
        assert other.target.recv(100) == b"still here"


def test_a_slow_reader_gets_all_before_the_reset() -> None:
    data = noise(300_000)
    with SharedPair() as pair:
        line = pair.connect()
        line.target.sendall(data)
        wait_until(lambda: line.requested.sent == len(data), "the relay has read all of it")
        reset(line.target)
        wait_until(lambda: line.dialed.code is Code.TARGET_RESET, "the dialer knows")
        pair.dialer.wait_until_it_rests()
        assert read_to_a_reset(line.user) == data


def test_a_socket_that_is_attached_after_the_cut_gets_what_came_before_and_the_reset() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        near, target = pair.pair()
        requested.accept(near)
        cut = threading.Event()
        dialed.watch_cut(cut.set)
        target.sendall(b"greeting")
        reset(target)
        assert cut.wait(HANG)
        assert not dialed.over
        ours, user = pair.pair()
        dialed.attach(ours)
        assert read_to_a_reset(user) == b"greeting"
        assert dialed.ended.wait(HANG)


def test_a_target_that_resets_with_the_program_s_bytes_unread_has_lost_them() -> None:
    with SharedPair() as pair:
        line = pair.connect(fill=True)
        line.user.sendall(b"x" * 1000)
        wait_until(lambda: line.dialed.acked == 1000, "the relay has them")
        reset(line.target)
        read_to_a_reset(line.user)
        assert line.dialed.ended.wait(HANG)
        assert (line.dialed.code, line.dialed.whole) == (Code.TARGET_RESET, False)
        assert line.dialed.lost in (0, 1000), "as far as the relay's kernel took them or not"


def test_a_target_that_took_all_and_resets_has_lost_nothing_but_the_end() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        send_all(line.user, b"goodbye")
        assert read_to_end(line.target) == b"goodbye"
        wait_until(lambda: line.dialed.idle, "the relay says that its target has it")
        reset(line.target)
        read_to_a_reset(line.user)
        assert line.dialed.ended.wait(HANG)
        assert (line.dialed.whole, line.dialed.lost, line.dialed.was_untaken) == (True, 0, False)


@pytest.mark.parametrize("by", ["reset", "close with unread bytes"])
@pytest.mark.parametrize("size", [10, 300_000])
def test_what_a_program_wrote_before_it_reset_its_socket_arrives_and_then_the_reset(
    by: str, size: int
) -> None:
    words = noise(size)
    with SharedPair() as pair:
        line = pair.connect()
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_to_a_reset(line.target)))
        reader.start()
        if by == "reset":
            line.user.sendall(words)
            wait_until(lambda: line.dialed.sent == size, "the tunnel has read all of it")
            reset(line.user)
        else:
            line.target.sendall(b"unread")
            select.select([line.user], [], [], HANG)
            line.user.sendall(words)
            wait_until(lambda: line.dialed.sent == size, "the tunnel has read all of it")
            line.user.close()
        reader.join(HANG)
        assert got == [words]
        assert line.dialed.ended.wait(HANG)
        assert (line.dialed.code, line.dialed.lost) == (Code.DIALER_RESET, 0)
        assert line.requested.ended.wait(HANG)
        assert line.requested.code is Code.DIALER_RESET


def test_a_program_that_closes_and_is_written_to_afterwards_is_lost_as_one_that_resets() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        line.user.sendall(b"goodbye")
        line.user.close()
        assert read_to_end(line.target) == b"goodbye"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            repeat_until_it_raises(lambda: line.target.sendall(bytes(65_536)))
        assert line.dialed.ended.wait(HANG)
        assert line.dialed.code is Code.DIALER_RESET


def test_a_lost_program_s_connection_is_over_only_once_the_relay_has_its_words() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        before = played.came
        user.sendall(b"last words")
        wait_until(lambda: dialed.sent == 10, "they are read")
        reset(user)
        wait_until(lambda: dialed.leaving and played.came > before + 10, "the reset follows them")
        assert not dialed.over
        assert (dialed.undelivered_bytes, dialed.idle, dialed.untaken) == (10, False, False)
        played.take()
        assert dialed.ended.wait(HANG)
        assert (dialed.undelivered_bytes, dialed.lost) == (0, 0)


def test_what_of_a_lost_program_s_words_has_not_arrived_when_the_session_ends_is_lost() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        before = played.came
        user.sendall(b"last words")
        wait_until(lambda: dialed.sent == 10, "they are read")
        reset(user)
        wait_until(lambda: dialed.leaving and played.came > before + 10, "the reset follows them")
        played.side.tunnel.abort(Code.KILLED, "enough")
        assert dialed.ended.wait(HANG)
        assert (dialed.code, dialed.lost) == (Code.DIALER_RESET, 10)


def test_a_program_that_resets_is_noticed_though_nothing_more_fits() -> None:
    with SharedPair() as pair:
        line = pair.connect(fill=True)
        line.user.setblocking(False)

        def full() -> bool:
            try:
                while True:
                    line.user.send(bytes(65_536))
            except BlockingIOError:
                return line.dialed.paused

        wait_until(full, "nothing more fits")
        reset(line.user)
        wait_until(lambda: line.dialed.leaving, "the reset is noticed")
        line.target.close()
        assert line.dialed.ended.wait(HANG)


def test_a_target_that_takes_nothing_is_let_go_of_some_seconds_after_the_dialer_s_reset() -> None:
    """Symptom: it held its place until the session's end."""
    with SharedPair() as pair:
        line = pair.connect(fill=True)
        line.user.sendall(noise(200_000))
        wait_until(
            lambda: line.requested.socket and line.requested.socket.blocked, "the target takes no more"
        )
        line.dialed.abort(Code.DIALER_RESET)
        assert line.requested.ended.wait(HANG)
        assert pair.relay.tunnel.connections == 0
        assert pair.relay.aborted is None


def test_the_session_ends_cleanly_though_a_target_has_not_taken_what_came_before_a_reset() -> None:
    """Symptom: the dialer's end met connections of the relay's that were over but for their targets."""
    with SharedPair() as pair:
        line = pair.connect(fill=True)
        line.user.sendall(noise(200_000))
        wait_until(
            lambda: line.requested.socket and line.requested.socket.blocked, "the target takes no more"
        )
        line.dialed.abort(Code.DIALER_RESET)
        pair.dialer.tunnel.end()
        pair.dialer.join()
        assert pair.dialer.aborted is None
        assert pair.relay.aborted is None
