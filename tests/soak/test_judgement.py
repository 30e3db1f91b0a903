"""A soak that could not fail would prove nothing: what it calls a mismatch, and what a clear error."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emissary_lib.client.socket import TunnelSocket
from emissary_lib.protocol.stream.counters import Counters
from tests.helpers.servers import Server, unused_port
from tests.soak import work
from tests.soak.tally import Tally
from tests.soak.target import DONE, Target, Transfer
from tests.soak.work import World


class _Session:
    id = "5e55" * 16
    counters = Counters()
    error = None


class StraightDialer:
    """Dials without any tunnel."""

    def dial(self, address: tuple[str, int], timeout: float) -> TunnelSocket:
        session: Any = _Session()
        sock = TunnelSocket(fileno=socket.create_connection(address, timeout).detach())
        sock.session = session
        return sock


@pytest.fixture
def world() -> Iterator[World]:
    tally = Tally()
    dialer: Any = StraightDialer()
    postgres: Any = None
    with Target(tally) as target:
        yield World(dialer, target.address, postgres, tally, threading.Event())


def short(world: World, chance: random.Random) -> None:
    work._transfer(world, chance, up=5, down=5)


@pytest.mark.parametrize("kind", [work.bulk_both, work.half_close, work.short_dial])
def test_honest_connection_does_the_work(world: World, kind: Callable[[World, random.Random], None]) -> None:
    assert work.attempt(world, "kind", kind, random.Random(1))
    assert not world.tally.mismatches
    assert world.tally.sums()["bytes"] > 0


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(b"", "a clean end after 0"), (b"wrong" + DONE, "wrong byte at 0"), (b"!" * 9, "wrong byte")],
)
def test_wrong_or_missing_bytes_are_a_mismatch(world: World, answer: bytes, complaint: str) -> None:
    def lie(sock: socket.socket) -> None:
        while sock.recv(1000):
            pass
        sock.sendall(answer)

    with Server(lie) as liar:
        lied_to = World(world.dialer, liar, world.postgres, world.tally, world.stop)
        assert not work.attempt(lied_to, "kind", short, random.Random(1))
    assert complaint in world.tally.mismatches[0]


def test_refused_connection_is_a_clear_error(world: World) -> None:
    with unused_port() as address:
        nowhere = World(world.dialer, address, world.postgres, world.tally, world.stop)
        assert not work.attempt(nowhere, "kind", short, random.Random(1))
    assert not world.tally.mismatches
    assert world.tally.errors == {"kind: ConnectionRefusedError": 1}


def test_wrong_byte_on_the_way_to_the_target_is_a_mismatch() -> None:
    tally = Tally()
    with Target(tally) as target, socket.create_connection(target.address) as sock:
        sock.sendall(Transfer(1, 5, 0).header() + b"wrong")
        with contextlib.suppress(ConnectionResetError):
            assert DONE not in sock.recv(10)
    assert "wrong byte at 0" in tally.mismatches[0]
