"""faults: decisions follow from the seed alone, and a held message is overtaken but never lost."""

from __future__ import annotations

import asyncio
import functools

import pytest

from emissary_local.errors import SettingsError
from emissary_local.faults import MAX_OVERTAKERS, Decision, DecisionStream, FaultEngine, Faults, Hop, Site
from tests.helpers.virtual_time import run_ahead


def decisions(
    faults: Faults, site: Site = Site.MESSAGE_IN, instance: int = 0, count: int = 200
) -> list[Decision]:
    stream = DecisionStream(FaultEngine(faults), site, instance)
    return [stream.next() for _ in range(count)]


def test_the_same_seed_gives_the_same_decisions() -> None:
    assert decisions(Faults(7, 0.3)) == decisions(Faults(7, 0.3))


@pytest.mark.parametrize(
    "other",
    [
        decisions(Faults(8, 0.3)),
        decisions(Faults(7, 0.3), Site.POST_OUT),
        decisions(Faults(7, 0.3), Site.MESSAGE_IN, 1),
    ],
    ids=["seed", "site", "connection"],
)
def test_another_seed_site_or_connection_decides_independently(other: list[Decision]) -> None:
    assert decisions(Faults(7, 0.3)) != other


def test_decisions_are_fixed_across_python_versions() -> None:
    """A seed in a bug report must reproduce on another machine."""
    assert [d.overtakers for d in decisions(Faults(7, 0.5), count=8)] == [0, 0, 0, 3, 1, 0, 0, 3]


def test_the_probability_is_the_share_of_messages_held() -> None:
    held = sum(1 for d in decisions(Faults(1, 0.3), count=10_000) if d.overtakers)
    assert 2_800 < held < 3_200


@pytest.mark.parametrize("reorder", [-0.1, 1.1])
def test_a_probability_outside_zero_to_one_is_refused(reorder: float) -> None:
    with pytest.raises(SettingsError, match=r"Faults\.reorder is a probability"):
        Faults(reorder=reorder)


def travel(faults: Faults, count: int) -> list[int]:
    """Numbers sent through one hop, in the order in which they came out."""

    async def run() -> list[int]:
        arrived: list[int] = []
        done = asyncio.Event()

        def deliver(number: int) -> None:
            arrived.append(number)
            if len(arrived) == count:
                done.set()

        hop = Hop(DecisionStream(FaultEngine(faults), Site.MESSAGE_IN, 0), asyncio.get_running_loop())
        for number in range(count):
            hop.send(functools.partial(deliver, number))
        await done.wait()
        return arrived

    return run_ahead(run())


def test_without_faults_the_order_is_kept() -> None:
    assert travel(Faults(), 50) == list(range(50))


def test_reordered_messages_all_arrive_and_are_overtaken_by_a_few() -> None:
    arrived = travel(Faults(seed=3, reorder=0.3), 300)
    assert arrived != sorted(arrived)
    assert sorted(arrived) == list(range(300))
    # A neighbour may be held as well, so the bound is on those that passed, not on the distance.
    for place, number in enumerate(arrived):
        later = sum(1 for other in arrived[:place] if other > number)
        assert later <= 2 * MAX_OVERTAKERS + 1


def test_a_lone_message_is_held_only_for_the_bound() -> None:
    assert travel(Faults(seed=3, reorder=1.0), 1) == [0]


def copies(faults: Faults, count: int, expected: int) -> list[int]:
    """Numbers sent through one hop, in the order in which they came out, until ``expected`` have."""

    async def run() -> list[int]:
        arrived: list[int] = []
        done = asyncio.Event()

        def deliver(number: int) -> None:
            arrived.append(number)
            if len(arrived) == expected:
                done.set()

        hop = Hop(DecisionStream(FaultEngine(faults), Site.POST_OUT, 0), asyncio.get_running_loop())
        for number in range(count):
            hop.send(functools.partial(deliver, number))
        await done.wait()
        return arrived

    return run_ahead(run())


def test_a_duplicated_message_arrives_at_once_and_again() -> None:
    arrived = copies(Faults(duplicate=1.0), 20, 40)
    assert arrived[:20] == list(range(20))
    assert sorted(arrived[20:]) == list(range(20))


def test_dropped_messages_are_those_that_the_seed_says_and_the_rest_keep_their_order() -> None:
    faults = Faults(seed=4, drop=0.5)
    lost = [number for number, each in enumerate(decisions(faults, Site.POST_OUT)) if each.dropped]
    kept = [number for number in range(200) if number not in lost]
    assert 70 < len(lost) < 130
    assert copies(faults, 200, len(kept)) == kept


def test_a_delayed_message_arrives_within_its_bound_and_later_ones_do_not_wait() -> None:
    faults = Faults(seed=4, delay=0.5, delay_seconds=0.05)
    delays = [each.delay for each in decisions(faults, Site.POST_OUT, count=40)]
    assert all(delay <= 0.05 for delay in delays)
    arrived = copies(faults, 40, 40)
    prompt = [number for number, delay in enumerate(delays) if not delay]
    assert arrived[: len(prompt)] == prompt
    assert sorted(arrived) == list(range(40))


def test_every_decision_is_counted() -> None:
    engine = FaultEngine(Faults(seed=2, reorder=0.2, duplicate=0.2, drop=0.2, delay=0.2))
    stream = DecisionStream(engine, Site.MESSAGE_IN, 0)
    made = [stream.next() for _ in range(200)]
    assert engine.counts == {
        "reorder": sum(each.overtakers > 0 for each in made),
        "duplicate": sum(each.again > 0 for each in made),
        "drop": sum(each.dropped for each in made),
        "delay": sum(each.delay > 0 for each in made),
    }
