"""Connections that begin, end and break at any moment, over a link that does too: none hangs or lies."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset, tcp_pair
from emissary_lib.tunnel.shared_relay import RequestedConnection
from tests.helpers.memory_transport import Faults
from tests.helpers.patience import HANG, wait_until
from tests.helpers.shared_tunnels import SharedPair
from tests.helpers.ws_server import noise

DATA = noise(1 << 20)


def refuses(requested: RequestedConnection, luck: random.Random) -> bool:
    """Sometimes a target is not reached."""
    if luck.random() < 0.1:
        requested.refuse(Code.TARGET_REFUSED)
    elif luck.random() < 0.05:
        requested.decline()
    else:
        return False
    return True


class Program:
    """One end of a connection, that writes, reads, ends and breaks as chance has it.

    Attributes:
        wrote: How much it has written.
        got: How much it has read.
        whole: Whether what it has read is what the other end writes.
        stuck: Whether it has waited in vain.
        broke: Whether its connection broke.
    """

    def __init__(self, sock: socket.socket, seed: int) -> None:
        self._sock = sock
        self._luck = random.Random(seed)
        self.wrote = self.got = 0
        self.whole = True
        self.stuck = False
        self.read_end = self.broke = False

    @property
    def ended(self) -> bool:
        """Whether it has read the end of the stream."""
        return self.read_end and not self.broke

    def run(self) -> None:
        self._sock.settimeout(HANG)
        reader = threading.Thread(target=self._read)
        reader.start()
        with self._failing():
            self._write()
        reader.join(2 * HANG)
        if self.broke:
            reset(self._sock)
        self._sock.close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """A connection may break at any moment, but never hang."""
        try:
            yield
        except TimeoutError:
            self.stuck = True
        except OSError:
            self.broke = True  # told once: whoever reads then finds an end

    def _write(self) -> None:
        for size in self._sizes():
            self._sock.sendall(DATA[self.wrote : self.wrote + size])
            self.wrote += size
        if self._luck.random() < 0.15:
            self.broke = True
            self._sock.shutdown(socket.SHUT_RD)  # wakes the reader; the reset follows
        else:
            self._sock.shutdown(socket.SHUT_WR)

    def _sizes(self) -> Iterator[int]:
        for _ in range(self._luck.randint(0, 6)):
            yield self._luck.choice((1, 100, 5000, 90_000))

    def _read(self) -> None:
        with self._failing():
            while not self.broke and (data := self._sock.recv(self._luck.choice((10, 70_000, 70_000)))):
                self.whole = self.whole and DATA[self.got : self.got + len(data)] == data
                self.got += len(data)
            self.read_end = True


@pytest.mark.parametrize("seed", range(6))
def test_every_connection_ends_and_none_has_what_was_not_written(seed: int) -> None:
    luck = random.Random(seed)
    programs: dict[int, Program] = {}
    threads: list[threading.Thread] = []
    started = threading.Lock()

    def run(stream: int, sock: socket.socket, program_seed: int) -> None:
        program = Program(sock, program_seed)
        thread = threading.Thread(target=program.run)
        with started:
            programs[stream] = program
            threads.append(thread)
        thread.start()

    def serve(requested: RequestedConnection) -> None:
        def connect() -> None:
            mine = random.Random(1000 * seed + requested.stream)
            if refuses(requested, mine):
                return
            near, far = tcp_pair()
            if requested.accept(near):
                run(-requested.stream, far, mine.randrange(1 << 30))
            else:
                far.close()

        thread = threading.Thread(target=connect)
        with started:
            threads.append(thread)
        thread.start()

    faults = Faults(duplication=0.1, delay=0.2) if seed % 2 else None
    with SharedPair(faults=faults, seed=seed, on_request=serve) as pair:
        lines = []
        for number in range(40):
            dialed = pair.open()
            if dialed is None:
                wait_until(lambda: pair.dialer.tunnel.room, "there is room again")
                continue
            lines.append(dialed)
            if luck.random() < 0.1:
                dialed.abort(Code.DIALER_RESET)
                continue
            assert dialed.answered.wait(HANG)
            if dialed.opened:
                ours, user = tcp_pair()
                dialed.attach(ours)
                run(dialed.stream, user, luck.randrange(1 << 30))
                if luck.random() < 0.05:
                    dialed.abort(Code.DIALER_RESET)
            if number % 13 == 5:
                pair.bridge.cut()
        for dialed in lines:
            assert dialed.ended.wait(2 * HANG), "a connection does not end"
        pair.dialer.tunnel.end()
        pair.dialer.join()
        pair.relay.join()
        assert (pair.dialer.aborted, pair.relay.aborted) == (None, None)
        for thread in threads:
            thread.join(HANG)
        assert not any(program.stuck or not program.whole for program in programs.values())
        for dialed in lines:
            user_side, target_side = programs.get(dialed.stream), programs.get(-dialed.stream)
            if user_side is None or target_side is None:
                continue
            assert user_side.got <= target_side.wrote
            assert target_side.got <= user_side.wrote
            if user_side.ended:
                assert user_side.got == target_side.wrote
            if target_side.ended:
                assert target_side.got == user_side.wrote
            if dialed.code is Code.OK:
                assert user_side.ended
                assert target_side.ended
