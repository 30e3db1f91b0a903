"""When an acknowledgement is due (docs/protocol.md section 4.3)."""

from __future__ import annotations

from emissary_lib.protocol.stream.acks import AckSchedule

CAPACITY = 400


def schedule() -> AckSchedule:
    return AckSchedule(CAPACITY, edge=CAPACITY, acked=0)


def due(acks: AckSchedule) -> float | None:
    return acks.due_at


def test_nothing_is_due_at_first() -> None:
    assert due(schedule()) is None


def test_new_bytes_wait_a_fifth_of_a_second_from_the_first_of_them() -> None:
    acks = schedule()
    acks.on_arrival(1.0, ack=10, new=True, fin=False)
    acks.on_arrival(1.1, ack=20, new=True, fin=False)
    assert due(acks) == 1.2
    acks.on_sent(1.1, ack=20, edge=CAPACITY)
    assert due(acks) is None


def test_a_quarter_of_the_capacity_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.on_arrival(1.0, ack=99, new=True, fin=False)
    assert due(acks) == 1.2
    acks.on_arrival(1.1, ack=100, new=True, fin=False)
    assert due(acks) == 1.1
    acks.on_sent(1.1, ack=100, edge=CAPACITY)
    acks.on_arrival(2.0, ack=199, new=True, fin=False)
    assert due(acks) == 2.2


def test_a_repetition_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.on_arrival(1.0, ack=10, new=False, fin=False)
    assert due(acks) == 1.0
    acks.on_sent(1.0, ack=10, edge=CAPACITY)
    acks.on_arrival(1.06, ack=10, new=False, fin=False)
    assert due(acks) == 1.06


def test_of_a_volley_of_repetitions_one_each_50_ms_is_acknowledged_and_the_last_always() -> None:
    """Symptom: 18 frames sent again after RESUMED drew 18 bare ACKs within 30 ms."""
    acks, sent = schedule(), []
    for tick in range(64):  # 2 ms apart; then silence
        now = 1.0 + tick / 512
        acks.on_arrival(now, ack=10, new=False, fin=False)
        if (at := due(acks)) is not None and at <= now:
            sent.append(now)
            acks.on_sent(now, ack=10, edge=CAPACITY)
    left = due(acks)
    assert [round(at - 1.0, 2) for at in sent] == [0.0, 0.05, 0.1]
    assert left == sent[-1] + 0.05


def test_a_repetition_brings_a_delayed_acknowledgement_forward_and_never_back() -> None:
    acks = schedule()
    acks.on_sent(1.0, ack=10, edge=CAPACITY)
    acks.on_arrival(1.01, ack=20, new=True, fin=False)
    assert due(acks) == 1.21
    acks.on_arrival(1.02, ack=20, new=False, fin=False)
    assert due(acks) == 1.05
    acks.on_demand(1.03, end=20, ack=20)
    acks.on_arrival(1.04, ack=20, new=False, fin=False)
    assert due(acks) == 1.03


def test_a_repetition_that_asks_for_it_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.on_sent(1.0, ack=10, edge=CAPACITY)
    acks.on_arrival(1.01, ack=10, new=False, fin=False)
    acks.on_demand(1.01, end=10, ack=10)
    assert due(acks) == 1.01


def test_the_fin_that_completes_the_stream_is_acknowledged_at_once() -> None:
    acks = schedule()
    acks.on_arrival(1.0, ack=10, new=True, fin=True)
    assert due(acks) == 1.0


def test_a_demand_is_met_at_once_and_again_when_all_below_it_is_there() -> None:
    acks = schedule()
    acks.on_demand(1.0, end=50, ack=20)
    assert due(acks) == 1.0
    acks.on_sent(1.0, ack=20, edge=CAPACITY)
    acks.on_arrival(2.0, ack=30, new=True, fin=False)
    assert due(acks) == 2.2
    acks.on_arrival(2.1, ack=60, new=True, fin=False)
    assert due(acks) == 2.1
    acks.on_sent(2.1, ack=60, edge=CAPACITY)
    acks.on_arrival(3.0, ack=70, new=True, fin=False)
    assert due(acks) == 3.2


def test_the_furthest_demand_counts() -> None:
    acks = schedule()
    acks.on_demand(1.0, end=50, ack=20)
    acks.on_demand(1.0, end=40, ack=20)
    acks.on_sent(1.0, ack=20, edge=CAPACITY)
    acks.on_arrival(2.0, ack=45, new=True, fin=False)
    assert due(acks) == 2.2


def test_a_demand_that_is_met_already_is_not_met_twice() -> None:
    acks = schedule()
    acks.on_demand(1.0, end=20, ack=20)
    acks.on_sent(1.0, ack=20, edge=CAPACITY)
    acks.on_arrival(2.0, ack=30, new=True, fin=False)
    assert due(acks) == 2.2


def test_the_windows_edge_is_told_when_it_moved_by_a_quarter() -> None:
    acks = schedule()
    acks.on_consume(1.0, edge=CAPACITY + 99)
    assert due(acks) is None
    acks.on_consume(1.5, edge=CAPACITY + 100)
    assert due(acks) == 1.5
    acks.on_sent(1.5, ack=0, edge=CAPACITY + 100)
    acks.on_consume(2.0, edge=CAPACITY + 199)
    assert due(acks) is None
