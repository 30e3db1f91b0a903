"""Bytes of a shared session's connections: whole, in order, and none in another's way."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.limits import MAX_STREAM_WINDOW, SEND_BUFFER, MuxLimits
from emissary_lib.protocol.session.events import Finished
from tests.helpers.memory_transport import Faults
from tests.helpers.patience import HANG, wait_until
from tests.helpers.shared_tunnels import Line, PlayedRelay, SharedPair
from tests.helpers.tunnels import read_to_end, send_all
from tests.helpers.ws_server import noise


def exchange(lines: list[Line], up: list[bytes], down: list[bytes]) -> None:
    """Send each user's and each target's bytes at once, and see that each arrives."""
    jobs = [(line.user, line.target, data) for line, data in zip(lines, up, strict=True)]
    jobs += [(line.target, line.user, data) for line, data in zip(lines, down, strict=True)]
    got: dict[int, bytes] = {}

    def read(number: int, sock: socket.socket) -> None:
        got[number] = read_to_end(sock)

    threads = [threading.Thread(target=send_all, args=(source, data)) for source, _, data in jobs]
    threads += [threading.Thread(target=read, args=(n, sink)) for n, (_, sink, _) in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert [got.get(number) == data for number, (_, _, data) in enumerate(jobs)] == [True] * len(jobs)


def test_bytes_cross_both_ways_on_many_connections_at_once() -> None:
    with SharedPair() as pair:
        lines = [pair.connect() for _ in range(12)]
        exchange(lines, [noise(90_000 + n) for n in range(12)], [noise(120_000 + n) for n in range(12)])
        for line in lines:
            assert line.dialed.ended.wait(HANG)
            assert line.requested.ended.wait(HANG)
            assert line.dialed.transferred() == line.requested.transferred()[::-1]
            assert (line.dialed.code, line.requested.code) == (0, 0)
        assert pair.dialer.tunnel.connections == pair.relay.tunnel.connections == 0
        assert pair.dialer.registered == pair.relay.registered == 0


@pytest.mark.parametrize("seed", range(3))
def test_bytes_survive_reordering_and_duplication(seed: int) -> None:
    with SharedPair(faults=Faults(duplication=0.2, delay=0.4), seed=seed) as pair:
        lines = [pair.connect() for _ in range(3)]
        exchange(lines, [noise(200_000)] * 3, [noise(150_000)] * 3)


def test_a_cut_in_the_middle_takes_nothing_from_any_connection() -> None:
    with SharedPair() as pair:
        lines = [pair.connect() for _ in range(6)]
        carried = threading.Event()

        def cut() -> None:
            for share in range(1, 5):
                enough = share * 800_000
                wait_until(
                    lambda: carried.is_set() or pair.relay_session.received >= enough,  # noqa: B023
                    "some bytes went through",
                )
                pair.bridge.cut()

        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            exchange(lines, [noise(400_000)] * 6, [noise(400_000)] * 6)
        finally:
            carried.set()
            cutter.join(HANG)
        assert pair.dialer_session.counters.resumes > 0
        assert pair.dialer.aborted is None
        assert pair.relay.aborted is None


def test_the_target_may_speak_first() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        near, target = pair.pair()
        target.sendall(b"220 ready")
        requested.accept(near)
        assert dialed.answered.wait(HANG)
        wait_until(lambda: pair.dialer_mux.buffered[1], "the greeting waits")
        ours, user = pair.pair()
        dialed.attach(ours)
        assert user.recv(100) == b"220 ready"


@pytest.mark.parametrize("first", ["user", "target"])
def test_each_direction_ends_on_its_own_whichever_is_first(first: str) -> None:
    with SharedPair() as pair:
        line = pair.connect()
        early, late = (line.user, line.target) if first == "user" else (line.target, line.user)
        send_all(early, b"question")
        assert read_to_end(late) == b"question"
        late.sendall(b"part of the answer")
        assert early.recv(100) == b"part of the answer"
        send_all(late, b" and its end")
        assert read_to_end(early) == b" and its end"
        assert line.dialed.ended.wait(HANG)
        assert line.requested.ended.wait(HANG)
        assert (line.dialed.code, line.dialed.lost, line.requested.code) == (0, 0, 0)


def test_both_may_end_without_a_byte() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        line.user.shutdown(socket.SHUT_WR)
        line.target.shutdown(socket.SHUT_WR)
        assert (read_to_end(line.user), read_to_end(line.target)) == (b"", b"")
        assert line.dialed.ended.wait(HANG)


def test_a_further_connection_needs_no_further_session() -> None:
    with SharedPair() as pair:
        for number in range(5):
            line = pair.connect()
            line.user.sendall(b"%d" % number)
            assert line.target.recv(10) == b"%d" % number
            line.user.close()
            line.target.close()
            assert line.dialed.ended.wait(HANG)
        assert pair.relay_mux.opened == 5
        assert not any(isinstance(event, Finished) for event in pair.dialer.events)


@pytest.mark.parametrize("stopped", ["user", "target"])
def test_a_reader_that_stops_blocks_its_own_connection_alone_and_memory_is_bounded(stopped: str) -> None:
    with SharedPair() as pair:
        slow, brisk = pair.connect(), pair.connect()
        reader, writer = (slow.user, slow.target) if stopped == "user" else (slow.target, slow.user)
        writer.setblocking(False)
        written = 0

        def blocked() -> bool:
            nonlocal written
            try:
                while True:
                    written += writer.send(bytes(65_536))
            except BlockingIOError:
                muxes = (pair.dialer_mux, pair.relay_mux)
                return all(mux.send_room(slow.dialed.stream) == 0 for mux in muxes[stopped == "user" :][:1])

        wait_until(blocked, "nothing more fits")
        for side in (pair.dialer, pair.relay):
            side.wait_until_it_rests()
        held = pair.dialer_mux.buffered, pair.relay_mux.buffered
        assert sum(map(sum, held)) <= SEND_BUFFER + MAX_STREAM_WINDOW + 3 * 65_536
        for _ in range(20):
            brisk.user.sendall(b"x" * 1000)
            assert len(brisk.target.recv(1000, socket.MSG_WAITALL)) == 1000
            brisk.target.sendall(b"y" * 1000)
            assert len(brisk.user.recv(1000, socket.MSG_WAITALL)) == 1000
        with contextlib.suppress(BlockingIOError):
            while True:
                written += writer.send(bytes(65_536))
        writer.setblocking(True)
        writer.settimeout(HANG)
        sender = threading.Thread(target=send_all, args=(writer, b"the end"))
        sender.start()
        assert len(read_to_end(reader)) == written + len(b"the end")
        sender.join(HANG)


@pytest.mark.parametrize("limits", [MuxLimits(send_buffer=1), MuxLimits(send_buffer=1000, window=100)])
def test_small_buffers_carry_everything_too(limits: MuxLimits) -> None:
    with SharedPair(dialer=limits, relay=limits) as pair:
        line = pair.connect()
        sender = threading.Thread(target=send_all, args=(line.user, noise(3000)))
        sender.start()
        assert len(read_to_end(line.target)) == 3000
        sender.join(HANG)


def test_an_idle_connection_and_a_half_closed_one_let_both_drivers_rest() -> None:
    with SharedPair() as pair:
        idle, half, waiting = pair.connect(), pair.connect(), pair.connect()
        send_all(half.user, b"x")
        assert read_to_end(half.target) == b"x"
        waiting.target.shutdown(socket.SHUT_WR)
        assert read_to_end(waiting.user) == b""
        for side in (pair.dialer, pair.relay):
            side.wait_until_it_rests()
        assert idle.dialed.idle


def test_a_session_is_busy_while_bytes_wait_for_the_way() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        assert not played.side.tunnel.busy
        assert dialed.loss_noticed_after > 0

        def write() -> None:
            with contextlib.suppress(ConnectionError):
                user.sendall(bytes(3_000_000))

        sender = threading.Thread(target=write)
        sender.start()

        def answered_until_busy() -> bool:
            played.take(ack=0)  # the window is opened, and nothing is acknowledged
            played.mux.consume(dialed.stream, len(played.mux.peek(dialed.stream, 1 << 20)))
            return played.side.tunnel.busy

        wait_until(answered_until_busy, "more is there than the way takes")
        dialed.abort(Code.DIALER_RESET)
        sender.join(HANG)
