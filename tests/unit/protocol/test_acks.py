"""When an acknowledgement is due (docs/protocol.md section 4.3)."""

from __future__ import annotations

from emissary_lib.protocol.acks import AckSchedule

CAPACITY = 400


def schedule() -> AckSchedule:
    return AckSchedule(CAPACITY, edge=CAPACITY, acked=0)


def due(acks: AckSchedule) -> float | None:
    return acks.due_at


def test_nothing_is_due_at_first() -> None:
    assert due(schedule()) is None


def test_new_bytes_wait_a_fifth_of_a_second_from_the_first_of_them() -> None:
    acks = schedule()
    acks.arrived(1.0, ack=10, new=True, fin=False)
    acks.arrived(1.1, ack=20, new=True, fin=False)
    assert due(acks) == 1.2
    acks.told(ack=20, edge=CAPACITY)
    assert due(acks) is None


def test_a_quarter_of_the_capacity_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.arrived(1.0, ack=99, new=True, fin=False)
    assert due(acks) == 1.2
    acks.arrived(1.1, ack=100, new=True, fin=False)
    assert due(acks) == 1.1
    acks.told(ack=100, edge=CAPACITY)
    acks.arrived(2.0, ack=199, new=True, fin=False)
    assert due(acks) == 2.2


def test_a_repetition_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.arrived(1.0, ack=10, new=False, fin=False)
    assert due(acks) == 1.0


def test_the_fin_that_completes_the_stream_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.arrived(1.0, ack=10, new=True, fin=True)
    assert due(acks) == 1.0


def test_a_demand_is_met_at_once_and_again_when_all_below_it_is_there() -> None:
    acks = schedule()
    acks.demanded(1.0, end=50, ack=20)
    assert due(acks) == 1.0
    acks.told(ack=20, edge=CAPACITY)
    acks.arrived(2.0, ack=30, new=True, fin=False)
    assert due(acks) == 2.2
    acks.arrived(2.1, ack=60, new=True, fin=False)
    assert due(acks) == 2.1
    acks.told(ack=60, edge=CAPACITY)
    acks.arrived(3.0, ack=70, new=True, fin=False)
    assert due(acks) == 3.2


def test_the_furthest_demand_counts() -> None:
    acks = schedule()
    acks.demanded(1.0, end=50, ack=20)
    acks.demanded(1.0, end=40, ack=20)
    acks.told(ack=20, edge=CAPACITY)
    acks.arrived(2.0, ack=45, new=True, fin=False)
    assert due(acks) == 2.2


def test_a_demand_that_is_met_already_is_not_met_twice() -> None:
    acks = schedule()
    acks.demanded(1.0, end=20, ack=20)
    acks.told(ack=20, edge=CAPACITY)
    acks.arrived(2.0, ack=30, new=True, fin=False)
    assert due(acks) == 2.2


def test_the_windows_edge_is_told_when_it_moved_by_a_quarter() -> None:
    acks = schedule()
    acks.consumed(1.0, edge=CAPACITY + 99)
    assert due(acks) is None
    acks.consumed(1.5, edge=CAPACITY + 100)
    assert due(acks) == 1.5
    acks.told(ack=0, edge=CAPACITY + 100)
    acks.consumed(2.0, edge=CAPACITY + 199)
    assert due(acks) is None
