"""The shared budget: nobody gets more than there is, nobody starves, nothing is lost."""

from __future__ import annotations

import threading

import pytest

from emissary_lib.client.in_flight import InFlightLimiter, InFlightSlots
from tests.helpers.patience import HANG


def member(budget: InFlightLimiter, woken: list[InFlightSlots] | None = None) -> InFlightSlots:
    places = budget.member(lambda: None if woken is None else woken.append(places))
    return places


def test_there_are_as_many_places_as_were_asked_for() -> None:
    budget = InFlightLimiter(3)
    here, there = member(budget), member(budget)
    assert [here.acquire(), there.acquire(), here.acquire(), there.acquire()] == [True, True, True, False]
    assert (here.held, there.held, budget.free) == (2, 1, 0)


def test_a_place_given_back_wakes_the_one_who_waits_and_is_kept_for_it() -> None:
    woken: list[InFlightSlots] = []
    budget = InFlightLimiter(1)
    busy, waiting = member(budget), member(budget, woken)
    assert busy.acquire()
    assert not waiting.acquire()
    busy.release(1)
    assert woken == [waiting]
    assert not busy.acquire()  # however quickly it asks
    assert waiting.acquire()


def test_those_who_wait_are_served_in_turn() -> None:
    woken: list[InFlightSlots] = []
    budget = InFlightLimiter(1)
    members = [member(budget, woken) for _ in range(4)]
    assert [each.acquire() for each in members] == [True, False, False, False]
    served = [members[0]]
    for _ in range(8):
        holder = served[-1]
        holder.release(1)
        assert not holder.acquire()
        assert woken[-1].acquire()
        served.append(woken[-1])
    assert served == (members * 3)[: len(served)]


def test_a_place_kept_for_one_who_does_not_want_it_goes_on() -> None:
    woken: list[InFlightSlots] = []
    budget = InFlightLimiter(1)
    busy, first, second = (member(budget, woken) for _ in range(3))
    assert busy.acquire()
    assert not first.acquire()
    assert not second.acquire()
    busy.release(1)
    first.decline()
    assert woken == [first, second]
    assert second.acquire()
    second.release(1)
    assert busy.acquire()


def test_declining_without_an_offer_changes_nothing() -> None:
    budget = InFlightLimiter(1)
    busy, waiting = member(budget), member(budget)
    assert busy.acquire()
    assert not waiting.acquire()
    waiting.decline()
    busy.release(1)
    assert waiting.acquire()


def test_leaving_gives_back_what_is_held_and_passes_on_what_was_kept() -> None:
    woken: list[InFlightSlots] = []
    budget = InFlightLimiter(2)
    holder, kept, waiting = (member(budget, woken) for _ in range(3))
    assert holder.acquire()
    assert holder.acquire()
    assert not kept.acquire()
    assert not waiting.acquire()
    holder.release(1)
    kept.close()
    assert woken == [kept, waiting]
    holder.close()
    holder.close()
    assert waiting.acquire()
    waiting.release(1)
    assert budget.free == 2


def test_giving_back_after_leaving_makes_no_place_out_of_nothing() -> None:
    budget = InFlightLimiter(2)
    places = member(budget)
    assert places.acquire()
    places.close()
    places.release(1)
    assert budget.free == 2


def test_one_who_left_is_not_woken() -> None:
    woken: list[InFlightSlots] = []
    budget = InFlightLimiter(1)
    busy, gone, waiting = (member(budget, woken) for _ in range(3))
    assert busy.acquire()
    assert not gone.acquire()
    assert not waiting.acquire()
    gone.close()
    busy.release(1)
    assert woken == [waiting]


def test_many_threads_never_exceed_it_and_the_count_comes_back() -> None:
    budget = InFlightLimiter(5)
    inside, most = 0, 0
    lock = threading.Lock()
    done = [0] * 8

    def work(index: int) -> None:
        nonlocal inside, most
        woken = threading.Event()
        places = budget.member(woken.set)
        while done[index] < 300:
            if not places.acquire():
                assert woken.wait(HANG), "a wake-up was lost"
                woken.clear()
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            places.release(1)
            done[index] += 1
        places.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert done == [300] * 8
    assert most <= 5
    assert budget.free == 5


@pytest.mark.parametrize("places", [0, -1])
def test_a_budget_that_could_never_send_is_refused(places: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        InFlightLimiter(places)


def test_who_is_next_is_decided_only_with_the_lock_held() -> None:
    budget = InFlightLimiter(1)
    with pytest.raises(AssertionError):
        budget._keep_for_waiting()
    with budget._lock:
        assert budget._keep_for_waiting() == []
