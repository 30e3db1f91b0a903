"""Who may send how much: each connection its share for certain, the rest to those that use it."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.limits import MuxLimits
from emissary_lib.protocol.mux.windows import WindowPool
from tests.helpers.mux_pair import NOW, TARGET

#: Two connections with 100 bytes each for certain, and 1,000 for those that need more.
LIMITS = MuxLimits(connections=2, window=100, most_window=800, receive_memory=1_200)


def admitted(pool: WindowPool) -> Connection:
    connection = Connection(1, TARGET)
    pool.admit(connection, NOW)
    return connection


def arrive(connection: Connection, count: int) -> None:
    connection.credit -= count
    connection.received += bytes(count)


def read(pool: WindowPool, connection: Connection, count: int, now: float) -> int:
    del connection.received[:count]
    return pool.grant(connection, now)


def test_credit_comes_back_when_half_of_the_window_was_used() -> None:
    pool = WindowPool(LIMITS)
    connection = admitted(pool)
    arrive(connection, 100)
    assert read(pool, connection, 49, NOW + 5) == 0
    assert read(pool, connection, 1, NOW + 5) == 50
    assert (connection.credit, connection.window) == (50, 100)


def test_what_is_dropped_is_given_back_in_the_window_that_each_has_for_certain() -> None:
    pool = WindowPool(LIMITS)
    connection = admitted(pool)
    for _ in range(2):
        arrive(connection, connection.credit)
        read(pool, connection, len(connection.received), NOW)
    assert (connection.window, connection.credit, pool._free) == (400, 400, 700)
    seen = []
    for size in (250, 50, 1, 30, 19, 70):
        connection.credit -= size
        seen.append((pool.give_back(connection), connection.window, pool._free))
    assert seen == [
        (0, 150, 950), (0, 100, 1_000), (0, 100, 1_000), (0, 100, 1_000), (50, 100, 1_000), (70, 100, 1_000)
    ]  # fmt: skip


def test_a_window_grows_while_its_user_keeps_up_and_shrinks_when_it_is_not_needed() -> None:
    pool = WindowPool(LIMITS)
    connection = admitted(pool)
    sizes = []
    for _ in range(5):
        arrive(connection, connection.credit)
        read(pool, connection, len(connection.received), NOW)
        sizes.append(connection.window)
    assert sizes == [
        200,
        400,
        750,
        800,
        800,
    ]  # never more than half of what the pool has left, nor than the most
    arrive(connection, 500)
    assert read(pool, connection, 500, NOW + 11) == 0
    assert (connection.window, connection.credit) == (300, 300)
    arrive(connection, 300)
    assert read(pool, connection, 300, NOW + 22) == 100
    assert connection.window == 100


def test_a_window_grows_though_what_comes_is_taken_in_pieces() -> None:
    """Symptom: with messages of 94,476 bytes, taken 65,536 at a time, a window stayed at 131,070 for good."""
    pool = WindowPool(MuxLimits())
    connection = admitted(pool)
    for _ in range(100):
        arrive(connection, min(connection.credit, 94_476))
        while connection.received:
            read(pool, connection, 65_536, NOW)
    assert connection.window == MuxLimits().most_window


@pytest.mark.parametrize("waiting", [0, 25])
def test_a_slow_users_window_does_not_grow(waiting: int) -> None:
    pool = WindowPool(LIMITS)
    connection = admitted(pool)
    arrive(connection, 100)
    assert read(pool, connection, 100 - waiting, NOW + (0 if waiting else 5)) == 100 - waiting
    assert connection.window == 100


def test_an_end_gives_back_what_cannot_be_used_any_more() -> None:
    pool = WindowPool(LIMITS)
    first = admitted(pool)
    for _ in range(5):
        arrive(first, first.credit)
        read(pool, first, len(first.received), NOW)
    arrive(first, 500)
    pool.end(first)
    assert (first.window, first.credit) == (500, 0)
    del first.received[:450]
    pool.end(first)
    assert first.window == 100
    pool.release(first)
    second = admitted(pool)
    arrive(second, 100)
    assert read(pool, second, 100, NOW) == 200
