"""Two sessions on a bad link: whatever it does, the bytes arrive, in order, within the memory promised."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import DEFAULT_CAPACITY, INITIAL_WINDOW
from emissary_lib.protocol.duplex import StreamConfig
from emissary_lib.protocol.events import Finished, RelayOpened
from emissary_lib.protocol.keepalive import KeepaliveTimes
from emissary_lib.protocol.states import Side
from tests.helpers.clock import Clock
from tests.helpers.link import Endpoint, Faults, LinkedSessions, User
from tests.helpers.pair import client_session, relay_session

#: Virtual seconds after which a session that is not over counts as stalled. A message that is lost again and
#: again is resent after 1, 2, 4 ... 60 seconds, so a few unlucky ones in a row take minutes.
LIMIT = 6 * 3600.0


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass(frozen=True)
class Plan:
    """One drawn run."""

    seed: int
    faults: Faults
    client: User
    relay: User
    capacity: int
    socks: int
    watched: bool

    def run(self) -> LinkedSessions:
        clock = Clock()
        streams = StreamConfig(capacity=self.capacity)
        relay_streams = StreamConfig(capacity=self.capacity, receive_start=self.socks)
        times = KeepaliveTimes() if self.watched else None
        start = clock.now
        client = client_session(start, streams=streams, keepalive=times)
        relay = relay_session(start, streams=relay_streams)
        linked = LinkedSessions(
            self.seed,
            self.faults,
            Endpoint(client, self.client, start, capacity=self.capacity),
            Endpoint(relay, self.relay, start, capacity=self.capacity),
            clock,
        )
        linked.run(LIMIT)
        return linked


def users(*, established: float = 0.0, least: int = 0) -> st.SearchStrategy[User]:
    sizes = st.one_of(st.integers(0, 50), st.integers(0, 5_000), st.integers(0, 200_000))
    writes = st.lists(st.tuples(st.floats(0, 20), sizes), max_size=8)

    def build(
        writes: list[tuple[float, int]], eof_at: float, chunk: int, pace: float, stop: tuple[float, float]
    ) -> User:
        wanted = sorted([(0.0, least), *writes])
        made = [(at, content(index, size)) for index, (at, size) in enumerate(wanted) if size]
        return User(made, eof_at, chunk, pace, (stop[0], stop[0] + stop[1]), established)

    return st.builds(
        build,
        writes,
        st.floats(0, 30),
        st.sampled_from([4_096, 65_536, 1 << 20]),
        st.sampled_from([0.0, 0.0, 0.001, 0.1]),
        st.tuples(st.floats(0, 10), st.sampled_from([0.0, 0.0, 5.0, 100.0, 600.0])),
    )


FAULTS = st.builds(
    Faults,
    drop=st.floats(0, 0.2),
    duplicate=st.floats(0, 0.3),
    error=st.floats(0, 0.1),
    delay=st.tuples(st.floats(0, 0.1), st.floats(0.1, 3.0)),
)
GENTLE = st.builds(Faults, duplicate=st.floats(0, 0.3), delay=st.tuples(st.just(0.001), st.floats(0.01, 0.9)))
CAPACITIES = st.sampled_from([INITIAL_WINDOW, INITIAL_WINDOW, 200_000, DEFAULT_CAPACITY])


def plans(faults: st.SearchStrategy[Faults], *, watched: bool) -> st.SearchStrategy[Plan]:
    return st.integers(0, 600).flatmap(
        lambda socks: st.builds(
            Plan,
            seed=st.integers(0, 2**32),
            faults=faults,
            client=st.floats(0, 5).flatmap(lambda at: users(established=at, least=socks)),
            relay=users(least=1),
            capacity=CAPACITIES,
            socks=st.just(socks),
            watched=st.just(watched),
        )
    )


def check_clean(plan: Plan, linked: LinkedSessions) -> None:
    client, relay = linked.ends[Side.CLIENT], linked.ends[Side.RELAY]
    for end in (client, relay):
        assert bytes(end.written) == b"".join(data for _at, data in end.user.writes)
        while view := end.session.peek():  # a reader that stopped beyond the end finds all of it
            end.received += view
            end.session.consume(len(view), linked.clock.now)
        assert end.session.receive_ended
        assert end.events[-1] == Finished(Code.OK)
        assert sum(isinstance(event, Finished) for event in end.events) == 1
    assert client.received == relay.written
    assert relay.received == client.written[plan.socks :]
    assert [type(event) for event in client.events] == [RelayOpened, Finished]
    assert [type(event) for event in relay.events] == [Finished]


@given(plan=plans(FAULTS, watched=False))
def test_bytes_arrive_in_order_and_both_ends_finish_clean_on_a_lossy_link(plan: Plan) -> None:
    check_clean(plan, plan.run())


@given(plan=plans(GENTLE, watched=True))
def test_a_link_that_only_reorders_and_repeats_loses_no_time_and_is_never_called_dead(plan: Plan) -> None:
    check_clean(plan, plan.run())
