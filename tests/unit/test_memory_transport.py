"""The linked pair in memory: its faults are real, repeatable, and never lose what they should not."""

from __future__ import annotations

import threading

import pytest

from emissary_lib.exceptions import LinkClosedError, TransportError
from emissary_lib.transport.base import MessageTransport
from tests.helpers.memory_transport import Faults, MemoryTransport, linked_pair
from tests.helpers.patience import HANG, repeat_until_it_raises


def drain(transport: MemoryTransport) -> list[bytes]:
    """Everything up to the close."""
    found: list[bytes] = []
    with pytest.raises(LinkClosedError):
        repeat_until_it_raises(lambda: found.append(transport.recv(HANG)))
    return found


def carried(seed: int, faults: Faults, count: int = 300) -> list[bytes]:
    here, there = linked_pair(seed, faults)
    for number in range(count):
        here.send(b"%d" % number)
    here.close()
    return drain(there)


def test_it_is_a_message_transport() -> None:
    transport: MessageTransport = linked_pair()[0]
    transport.release()


def test_a_link_without_fault_keeps_order_both_ways() -> None:
    here, there = linked_pair()
    for number in range(100):
        here.send(b"out %d" % number)
        there.send(b"back %d" % number)
    assert [there.recv(0) for _ in range(100)] == [b"out %d" % number for number in range(100)]
    assert [here.recv(0) for _ in range(100)] == [b"back %d" % number for number in range(100)]


def test_loss_loses_about_its_share_and_nothing_else() -> None:
    arrived = carried(1, Faults(loss=0.3))
    assert 150 < len(arrived) < 270
    assert arrived == sorted(arrived, key=int)


def test_duplication_doubles_and_loses_nothing() -> None:
    arrived = carried(2, Faults(duplication=0.3))
    assert {*arrived} == {b"%d" % number for number in range(300)}
    assert 330 < len(arrived) < 450


def test_delay_reorders_and_loses_nothing() -> None:
    arrived = carried(3, Faults(delay=0.3))
    assert arrived != sorted(arrived, key=int)
    assert sorted(arrived, key=int) == [b"%d" % number for number in range(300)]


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    bad = Faults(loss=0.2, duplication=0.2, delay=0.2)
    assert carried(4, bad) == carried(4, bad) != carried(5, bad)


def test_a_message_held_back_arrives_though_nothing_follows() -> None:
    here, there = linked_pair(0, Faults(delay=1.0))
    here.send(b"alone")
    assert there.recv(HANG) == b"alone"


def test_no_message_in_time_is_a_timeout_and_loses_nothing() -> None:
    here, there = linked_pair()
    with pytest.raises(TimeoutError):
        there.recv(0.01)
    here.send(b"late")
    assert there.recv(0) == b"late"


@pytest.mark.parametrize(("end", "code"), [("close", 1000), ("abort", 1006)])
def test_both_ends_meet_the_end_and_its_code(end: str, code: int) -> None:
    here, there = linked_pair()
    getattr(here, end)()
    getattr(here, end)()
    for transport in (here, there):
        with pytest.raises(LinkClosedError) as caught:
            transport.recv(HANG)
        assert caught.value.close_code == code
        with pytest.raises(TransportError):
            transport.send(b"too late")


def test_what_was_sent_before_a_close_still_arrives() -> None:
    here, there = linked_pair()
    here.send(b"last words")
    here.close()
    assert drain(there) == [b"last words"]


def test_an_end_wakes_a_thread_that_waits() -> None:
    here, there = linked_pair()
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(LinkClosedError):
            there.recv(None)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    here.abort()
    thread.join(HANG)
    assert ended.is_set()


def test_sent_messages_are_on_record_lost_ones_too() -> None:
    here, _there = linked_pair(0, Faults(loss=1.0))
    here.send(b"into the void")
    assert here.sent == [b"into the void"]


@pytest.mark.parametrize("faults", [{"loss": 1.1}, {"duplication": -0.1}, {"delay": 2}, {"overtaking": 0}])
def test_impossible_faults_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(faults))):
        Faults(**faults)  # type: ignore[arg-type]
