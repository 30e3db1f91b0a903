"""A soak that could not fail would prove nothing: what it calls a mismatch, and what a clear error."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emissary_lib.client.socket import TunnelSocket
from emissary_lib.protocol.stream.counters import Counters
from tests.helpers.servers import Server, unused_port
from tests.soak import exits, work
from tests.soak.pattern import pattern
from tests.soak.run import _judge_lost
from tests.soak.stats import MismatchError, Stats
from tests.soak.target import DONE, Target, Transfer
from tests.soak.work import Context


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
def context() -> Iterator[Context]:
    stats = Stats()
    dialer: Any = StraightDialer()
    postgres: Any = None
    with Target(stats) as target:
        yield Context(dialer, target.address, postgres, stats, threading.Event())


class OtherDialer(StraightDialer):
    """Takes note of its dials."""

    dials = 0

    def dial(self, address: tuple[str, int], timeout: float) -> TunnelSocket:
        self.dials += 1
        return super().dial(address, timeout)


def test_each_piece_of_work_takes_a_dialer_of_either_kind(context: Context) -> None:
    both: Any = [OtherDialer(), OtherDialer()]
    mixed = dataclasses.replace(context, dialers=both)
    chance = random.Random(1)
    assert all(work.attempt(mixed, "kind", short, chance) for _ in range(20))
    assert [each.dials > 0 for each in both] == [True, True]
    assert sum(each.dials for each in both) == 20
    sums = context.stats.sums()
    assert (sums["sessions"], sums["connections"]) == (1, 20), "the counters were the same"


def short(context: Context, chance: random.Random) -> None:
    work._transfer(context, chance, up=5, down=5)


@pytest.mark.parametrize("kind", [work.bulk_both, work.half_close, work.short_dial])
def test_honest_connection_does_the_work(
    context: Context, kind: Callable[[Context, random.Random], None]
) -> None:
    assert work.attempt(context, "kind", kind, random.Random(1))
    assert not context.stats.mismatches
    assert context.stats.sums()["bytes"] > 0


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(b"", "a clean end after 0"), (b"wrong" + DONE, "wrong byte at 0"), (b"!" * 9, "wrong byte")],
)
def test_wrong_or_missing_bytes_are_a_mismatch(context: Context, answer: bytes, complaint: str) -> None:
    def lie(sock: socket.socket) -> None:
        while sock.recv(1000):
            pass
        sock.sendall(answer)

    with Server(lie) as liar:
        lied_to = Context(context.dialer, liar, context.postgres, context.stats, context.stop)
        assert not work.attempt(lied_to, "kind", short, random.Random(1))
    assert complaint in context.stats.mismatches[0]


@pytest.mark.parametrize(
    ("status", "said", "wrong"),
    [(0, "", False), (9, "lost", False), (9, "", True), (0, "lost", True), (1, "Traceback", True)],
)
def test_words_and_status_of_a_program_s_command_agree(
    context: Context, status: int, said: str, wrong: bool
) -> None:
    with pytest.raises(MismatchError) if wrong else contextlib.nullcontext():
        exits.judge(context, Transfer(7, 5, 0, after=True), status, said)
        assert (7 in context.stats.unalarmed, 7 in context.stats.cut_off) == (not said, bool(said))


def test_a_loss_that_nobody_was_told_of_is_a_mismatch() -> None:
    stats = Stats()
    with Target(stats) as target:
        with socket.create_connection(target.address) as sock:
            sock.sendall(Transfer(1, 2, 0, after=True).header() + pattern(1, 0, 2))
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""  # it says nothing to who is not there
        stats.unalarmed |= {1, 2}
        _judge_lost(stats, target)
    assert stats.mismatches == ["transfer 2 did not come to the target, and nobody was told"]


def test_refused_connection_is_a_clear_error(context: Context) -> None:
    with unused_port() as address:
        nowhere = Context(context.dialer, address, context.postgres, context.stats, context.stop)
        assert not work.attempt(nowhere, "kind", short, random.Random(1))
    assert not context.stats.mismatches
    assert context.stats.errors == {"kind: ConnectionRefusedError": 1}


def test_wrong_byte_on_the_way_to_the_target_is_a_mismatch() -> None:
    stats = Stats()
    with Target(stats) as target, socket.create_connection(target.address) as sock:
        sock.sendall(Transfer(1, 5, 0).header() + b"wrong")
        with contextlib.suppress(ConnectionResetError):
            assert DONE not in sock.recv(10)
    assert "wrong byte at 0" in stats.mismatches[0]
