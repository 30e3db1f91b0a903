"""All that have something to send, in turn."""

from __future__ import annotations

from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.scheduler import RoundRobin
from tests.helpers.mux_pair import TARGET


def test_each_has_its_turn_as_long_as_it_has_more() -> None:
    queue = RoundRobin()
    for stream in (1, 3, 5):
        queue.add(Connection(stream, TARGET))
    order = []
    for again in (True, False, True, True):
        assert queue.head
        order.append(queue.head.stream)
        queue.served(again=again)
    assert order == [1, 3, 5, 1]
    assert queue.head
    assert queue.head.stream == 5


def test_none_stands_in_it_twice_or_after_it_was_removed() -> None:
    queue, connection = RoundRobin(), Connection(1, TARGET)
    queue.remove(connection)
    queue.add(connection)
    queue.add(connection)
    queue.remove(connection)
    assert queue.head is None
    assert not connection.scheduled
