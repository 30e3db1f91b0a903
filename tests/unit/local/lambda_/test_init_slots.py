"""Environments start a few at a time, in order."""

from __future__ import annotations

import asyncio

import pytest

from emissary_local.lambda_.init_slots import InitSlots
from tests.helpers.patience import HANG


async def _turns() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_only_so_many_at_once_and_the_rest_in_the_order_of_asking() -> None:
    async def body() -> None:
        starts, began = InitSlots(2), list[int]()

        async def start(number: int) -> None:
            await starts.turn()
            starts.began(number)
            began.append(number)

        tasks = [asyncio.ensure_future(start(number)) for number in range(5)]
        await _turns()
        assert began == [0, 1]
        starts.over(1)
        await _turns()
        assert began == [0, 1, 2]
        starts.over(1)  # has been told already
        await _turns()
        assert began == [0, 1, 2]
        starts.over(0)
        starts.over(2)
        await asyncio.gather(*tasks)
        assert began == [0, 1, 2, 3, 4]

    asyncio.run(body())


def test_place_that_nobody_started_in_goes_to_the_next() -> None:
    async def body() -> None:
        starts = InitSlots(1)
        await starts.turn()
        following = asyncio.ensure_future(starts.turn())
        await _turns()
        assert not following.done()
        starts.give_back()
        await following

    asyncio.run(body())


@pytest.mark.parametrize("given", [False, True])
def test_place_of_one_who_gave_up_waiting_is_not_lost(given: bool) -> None:
    async def body() -> None:
        starts = InitSlots(1)
        await starts.turn()
        gone, following = asyncio.ensure_future(starts.turn()), asyncio.ensure_future(starts.turn())
        await _turns()
        if given:
            starts.give_back()  # and it is cancelled before it hears of that
        gone.cancel()
        await _turns()
        if not given:
            starts.give_back()
        await asyncio.wait_for(following, HANG)
        assert gone.cancelled()

    asyncio.run(body())
