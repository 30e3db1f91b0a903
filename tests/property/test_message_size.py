"""Long messages do not pass, from the beginning or later on: both sides find out, and lose nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_FRAGMENT
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Finished, MessagesShortened, PeerMoved, RelayOpened
from tests.helpers.clock import Clock
from tests.helpers.link import Endpoint, Faults, LinkedSessions, User
from tests.helpers.pair import client_session, relay_session

#: Virtual seconds after which a session that is not over counts as stalled.
LIMIT = 3_600.0
WAYS = ["vanish", "error", "refused", "receiver"]


def linked(
    seed: int, faults: Faults, client: list[tuple[float, bytes]], relay: list[tuple[float, bytes]]
) -> LinkedSessions:
    clock = Clock()
    start = clock.now
    ends = (
        Endpoint(client_session(start), User(client), start),
        Endpoint(relay_session(start), User(relay), start),
    )
    return LinkedSessions(seed, faults, *ends, clock)


def check_whole(world: LinkedSessions) -> None:
    client, relay = world.ends[Role.DIALER], world.ends[Role.RELAY]
    assert client.received == relay.written
    assert relay.received == client.written
    assert client.events[-1] == relay.events[-1] == Finished(Code.OK)
    harmless = RelayOpened | PeerMoved | MessagesShortened | Finished
    assert all(isinstance(each, harmless) for each in client.events + relay.events)


@given(
    seed=st.integers(0, 2**32),
    way=st.sampled_from(WAYS),
    at=st.floats(0, 3),
    longest=st.sampled_from([MAX_FRAGMENT, 62_000, 100_000]),
    drop=st.sampled_from([0.0, 0.0, 0.1]),
    delay=st.sampled_from([(0.01, 0.02), (0.001, 0.3)]),
    sizes=st.tuples(st.integers(0, 4_000_000), st.integers(0, 4_000_000)),
)
def test_no_byte_is_lost_whenever_long_messages_stop_to_pass(
    seed: int,
    way: str,
    at: float,
    longest: int,
    drop: float,
    delay: tuple[float, float],
    sizes: tuple[int, int],
) -> None:
    faults = Faults(drop=drop, delay=delay)
    chance = random.Random(seed)
    world = linked(seed, faults, [(0.0, chance.randbytes(sizes[0]))], [(0.0, chance.randbytes(sizes[1]))])
    worse = replace(faults, longest=longest, too_long=way)
    world.at(at, lambda: world.carrier.change(worse))
    world.run(LIMIT)
    check_whole(world)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", Role)
def test_both_sides_fall_back_within_seconds(way: str, role: Role) -> None:
    data = random.Random(1).randbytes(3_000_000)
    writes = [(0.0, data), (30.0, b"the end")]
    sides = (writes, []) if role is Role.DIALER else ([], writes)
    faults = Faults(delay=(0.01, 0.02), longest=MAX_FRAGMENT, too_long=way)
    world = linked(3, faults, *sides)
    while len(world.ends[Role.RELAY if role is Role.DIALER else Role.DIALER].received) < len(data):
        assert world.clock.now < world.started + 20, world.describe()
        world.step(world.clock.now + 1.0)
    assert all(end.session.short for end in world.ends.values())
    world.run(LIMIT)
    check_whole(world)


def test_an_outage_of_everything_is_not_taken_for_a_matter_of_length() -> None:
    data = random.Random(2).randbytes(40_000_000)
    world = linked(4, Faults(delay=(0.01, 0.02)), [(0.0, data)], [(0.0, data)])
    world.at(0.5, lambda: world.carrier.change(Faults(drop=1.0)))
    world.at(20.0, lambda: world.carrier.change(Faults(delay=(0.01, 0.02))))
    world.run(LIMIT)
    check_whole(world)
    assert not any(end.session.short for end in world.ends.values())
