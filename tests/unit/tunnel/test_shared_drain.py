"""What a shared connection says of its bytes: nothing is missing only if the relay's target has it."""

from __future__ import annotations

import functools
import socket
import threading

import pytest

from emissary_lib import system
from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset
from emissary_lib.tunnel.shared import SharedConnection
from tests.helpers.patience import HANG, wait_until
from tests.helpers.shared_tunnels import PlayedRelay, SharedPair
from tests.helpers.tunnels import read_to_end, send_all
from tests.helpers.ws_server import noise

tells = pytest.mark.skipif(not system.TELLS_UNSENT, reason="what a relay does; this kernel does not tell")


def has_all(dialed: SharedConnection) -> bool:
    """Whether the relay has all that the user has written and ended."""
    return dialed.eof_queued and not dialed.undelivered_bytes


def test_a_connection_on_which_nothing_was_written_is_idle() -> None:
    with SharedPair() as pair:
        dialed = pair.connect().dialed
        wait_until(lambda: dialed.idle, "its socket is taken")
        assert (dialed.undelivered_bytes, dialed.untaken) == (0, False)
        assert (dialed.written, dialed.acked) == (0, 0)


def test_bytes_count_as_missing_until_the_relay_acknowledges_them() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        before = played.came
        user.sendall(b"x" * 5000)
        wait_until(lambda: played.came > before + 5000, "they are sent")
        figures = (dialed.written, dialed.undelivered_bytes, dialed.acked, dialed.idle, dialed.untaken)
        assert figures == (5000, 5000, 0, False, False)
        progress = dialed.progress
        played.take(ack=before)
        assert (dialed.undelivered_bytes, dialed.progress) == (5000, progress)
        played.take()
        wait_until(lambda: dialed.undelivered_bytes == 0, "all is acknowledged")
        assert dialed.acked == 5000
        assert dialed.progress > progress
        wait_until(lambda: dialed.idle, "nothing more comes")


def test_another_connection_s_bytes_do_not_count() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        other, bystander = played.connect()
        before = played.came
        other.sendall(b"y" * 2000)
        wait_until(lambda: played.came > before + 2000, "they are sent")
        played.take()
        wait_until(lambda: bystander.acked == 2000, "and acknowledged")
        between = played.came
        user.sendall(b"x" * 700)
        wait_until(lambda: played.came > between + 700, "the others are sent")
        assert (dialed.acked, dialed.undelivered_bytes) == (0, 700)
        assert (bystander.acked, bystander.undelivered_bytes) == (2000, 0)
        wait_until(lambda: bystander.idle, "nothing more comes")


def test_what_the_kernel_holds_for_a_tunnel_that_does_not_read_is_missing() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        size = 400_000
        sender = threading.Thread(target=user.sendall, args=(bytes(size),))
        sender.start()
        wait_until(lambda: dialed.paused, "the tunnel takes no more")
        sender.join(0.0 if not sender.is_alive() else HANG)
        wait_until(lambda: dialed.undelivered_bytes == dialed.written > 131_072, "what is there counts")
        reset(user)
        wait_until(lambda: dialed.leaving, "the reset is noticed")
        assert dialed.undelivered_bytes > 131_072
        played.side.tunnel.abort(Code.KILLED, "enough")
        assert dialed.ended.wait(HANG)
        assert dialed.lost == dialed.undelivered_bytes > 131_072


@tells
def test_the_end_has_arrived_once_the_target_s_kernel_has_all() -> None:
    with SharedPair() as pair:
        line = pair.connect(fill=True)
        dialed = line.dialed
        send_all(line.user, b"question")
        wait_until(lambda: dialed.untaken, "the relay has all bytes")
        assert (dialed.undelivered_bytes, dialed.idle, dialed.acked) == (0, False, 8)
        assert read_to_end(line.target).endswith(b"question")
        wait_until(lambda: dialed.idle, "and now its target does")
        assert (dialed.undelivered_bytes, dialed.untaken, dialed.acked) == (0, False, 9)
        line.target.close()
        assert dialed.ended.wait(HANG)
        assert (dialed.idle, dialed.undelivered_bytes, dialed.untaken, dialed.lost) == (True, 0, False, 0)


@tells
def test_whoever_waits_for_the_end_sees_that_a_slow_target_takes_bytes() -> None:
    """Symptom: a target with more to take than a kernel holds looked stuck, and its bytes were given up."""
    data = noise(60_000)
    with SharedPair() as pair:
        taken = len(data)
        while taken == len(data):  # a kernel that was full may find room for all of it
            line = pair.connect(fill=True)
            send_all(line.user, data)
            wait_until(functools.partial(has_all, line.dialed), "the relay has all")
            progress, taken = line.dialed.progress, line.requested.received
        while line.requested.received == taken:
            line.target.recv(4096)
        wait_until(lambda: line.dialed.progress > progress, "it is told that some was taken")


def test_leaving_passes_on_what_was_written_and_then_the_end_of_the_stream() -> None:
    data = noise(300_000)
    with SharedPair() as pair:
        line = pair.connect()
        sent = threading.Thread(target=line.user.sendall, args=(data,))
        sent.start()
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_to_end(line.target)))
        reader.start()
        sent.join(HANG)
        line.dialed.begin_drain()
        reader.join(HANG)
        assert got == [data]
        wait_until(lambda: line.dialed.idle, "the target has it")
        assert not line.dialed.program_ended
        pair.dialer.wait_until_it_rests()


def test_the_end_is_missing_from_the_moment_on_that_leaving_begins() -> None:
    """Symptom: a program that exited right then did not wait for its end, so that the relay was not told."""
    with SharedPair() as pair:
        dialed = pair.connect().dialed
        tunnel = pair.dialer.tunnel
        wait_until(lambda: dialed.idle, "nothing is under way")
        with tunnel._lock:  # the driver has not had its turn
            dialed.begin_drain()
            assert not tunnel.is_idle(dialed, tunnel._clock())
        wait_until(lambda: dialed.idle, "the target has the end")


def test_leaving_before_there_is_a_socket_ends_the_stream_behind_what_it_holds() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        dialed.begin_drain()
        near, target = pair.pair()
        requested.accept(near)
        assert dialed.answered.wait(HANG)
        ours, user = pair.pair()
        user.sendall(b"words")
        user.shutdown(socket.SHUT_WR)
        dialed.attach(ours)
        assert read_to_end(target) == b"words"


def test_a_connection_that_was_cut_off_is_never_idle_before_it_is_over() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        near, target = pair.pair()
        requested.accept(near)
        cut = threading.Event()
        dialed.watch_cut(cut.set)
        reset(target)
        assert cut.wait(HANG)
        assert not dialed.idle
        ours, user = pair.pair()
        dialed.attach(ours)
        with pytest.raises(ConnectionResetError):
            user.recv(1)
        assert dialed.ended.wait(HANG)
        assert dialed.idle


def test_the_program_s_end_is_known() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        assert not line.dialed.program_ended
        line.user.shutdown(socket.SHUT_WR)
        wait_until(lambda: line.dialed.program_ended, "its end is read")
