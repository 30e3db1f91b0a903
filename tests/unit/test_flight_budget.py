"""The shared budget: nobody gets more than there is, nobody starves, nothing is lost."""

from __future__ import annotations

import threading

import pytest

from emissary_lib.flight_budget import FlightBudget, FlightPlaces
from tests.helpers.patience import HANG


def member(budget: FlightBudget, woken: list[FlightPlaces] | None = None) -> FlightPlaces:
    places = budget.member()
    if woken is not None:
        places.wake = lambda: woken.append(places)
    return places


def test_there_are_as_many_places_as_were_asked_for() -> None:
    budget = FlightBudget(3)
    here, there = member(budget), member(budget)
    assert [here.take(), there.take(), here.take(), there.take()] == [True, True, True, False]
    assert (here.held, there.held, budget.free) == (2, 1, 0)


def test_a_place_given_back_wakes_the_one_who_waits_and_is_kept_for_it() -> None:
    woken: list[FlightPlaces] = []
    budget = FlightBudget(1)
    busy, waiting = member(budget), member(budget, woken)
    assert busy.take()
    assert not waiting.take()
    busy.give(1)
    assert woken == [waiting]
    assert not busy.take()  # however quickly it asks
    assert waiting.take()


def test_those_who_wait_are_served_in_turn() -> None:
    woken: list[FlightPlaces] = []
    budget = FlightBudget(1)
    members = [member(budget, woken) for _ in range(4)]
    assert [each.take() for each in members] == [True, False, False, False]
    served = [members[0]]
    for _ in range(8):
        holder = served[-1]
        holder.give(1)
        assert not holder.take()
        assert woken[-1].take()
        served.append(woken[-1])
    assert served == (members * 3)[: len(served)]


def test_a_place_kept_for_one_who_does_not_want_it_goes_on() -> None:
    woken: list[FlightPlaces] = []
    budget = FlightBudget(1)
    busy, first, second = (member(budget, woken) for _ in range(3))
    assert busy.take()
    assert not first.take()
    assert not second.take()
    busy.give(1)
    first.decline()
    assert woken == [first, second]
    assert second.take()
    second.give(1)
    assert busy.take()


def test_declining_without_an_offer_changes_nothing() -> None:
    budget = FlightBudget(1)
    busy, waiting = member(budget), member(budget)
    assert busy.take()
    assert not waiting.take()
    waiting.decline()
    busy.give(1)
    assert waiting.take()


def test_leaving_gives_back_what_is_held_and_passes_on_what_was_kept() -> None:
    woken: list[FlightPlaces] = []
    budget = FlightBudget(2)
    holder, kept, waiting = (member(budget, woken) for _ in range(3))
    assert holder.take()
    assert holder.take()
    assert not kept.take()
    assert not waiting.take()
    holder.give(1)
    kept.leave()
    assert woken == [kept, waiting]
    holder.leave()
    holder.leave()
    assert waiting.take()
    waiting.give(1)
    assert budget.free == 2


def test_giving_back_after_leaving_makes_no_place_out_of_nothing() -> None:
    budget = FlightBudget(2)
    places = member(budget)
    assert places.take()
    places.leave()
    places.give(1)
    assert budget.free == 2


def test_one_who_left_is_not_woken() -> None:
    woken: list[FlightPlaces] = []
    budget = FlightBudget(1)
    busy, gone, waiting = (member(budget, woken) for _ in range(3))
    assert busy.take()
    assert not gone.take()
    assert not waiting.take()
    gone.leave()
    busy.give(1)
    assert woken == [waiting]


def test_many_threads_never_exceed_it_and_the_count_comes_back() -> None:
    budget = FlightBudget(5)
    inside, most = 0, 0
    lock = threading.Lock()
    done = [0] * 8

    def work(index: int) -> None:
        nonlocal inside, most
        woken = threading.Event()
        places = budget.member()
        places.wake = woken.set
        while done[index] < 300:
            if not places.take():
                assert woken.wait(HANG), "a wake-up was lost"
                woken.clear()
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            places.give(1)
            done[index] += 1
        places.leave()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert done == [300] * 8
    assert most <= 5 and budget.free == 5


@pytest.mark.parametrize("places", [0, -1])
def test_a_budget_that_could_never_send_is_refused(places: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FlightBudget(places)
