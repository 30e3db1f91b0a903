"""Two sessions on a bad link: whatever it does, the bytes arrive, in order, within the memory promised."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import DEFAULT_CAPACITY, INITIAL_WINDOW, MAX_MESSAGE
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import (
    Aborted,
    Event,
    Finished,
    GoingAway,
    MessagesShortened,
    RelayOpened,
)
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from tests.helpers.clock import Clock
from tests.helpers.link import GATEWAY_ERROR, Endpoint, Faults, LinkedSessions, User
from tests.helpers.pair import PARAMETERS, client_session, events, relay_session

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

    def build(self) -> LinkedSessions:
        clock = Clock()
        streams = StreamConfig(capacity=self.capacity)
        relay_streams = StreamConfig(capacity=self.capacity, receive_start=self.socks)
        times = KeepaliveTimes() if self.watched else None
        start = clock.now
        client = client_session(start, streams=streams, keepalive=times)
        relay = relay_session(start, streams=relay_streams)
        return LinkedSessions(
            self.seed,
            self.faults,
            Endpoint(client, self.client, start, capacity=self.capacity),
            Endpoint(relay, self.relay, start, capacity=self.capacity),
            clock,
        )

    def run(self) -> LinkedSessions:
        linked = self.build()
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
    client, relay = linked.ends[Role.DIALER], linked.ends[Role.RELAY]
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
    told = [
        [type(event) for event in end.events if not isinstance(event, MessagesShortened)]
        for end in (client, relay)
    ]
    assert told == [[RelayOpened, Finished], [Finished]]


@given(plan=plans(FAULTS, watched=False))
def test_bytes_arrive_in_order_and_both_ends_finish_clean_on_a_lossy_link(plan: Plan) -> None:
    check_clean(plan, plan.run())


@pytest.mark.slow
@settings(max_examples=1_000)  # in every profile: this is what the protocol is for
@given(plan=plans(FAULTS, watched=False))
def test_bytes_arrive_in_order_on_a_lossy_link_in_a_thousand_cases(plan: Plan) -> None:
    check_clean(plan, plan.run())


@given(plan=plans(GENTLE, watched=True))
def test_a_link_that_only_reorders_and_repeats_loses_no_time_and_is_never_called_dead(plan: Plan) -> None:
    check_clean(plan, plan.run())


SAFE_EVENTS = (RelayOpened, GoingAway, MessagesShortened, Aborted, Finished)
WILD_FRAMES = st.builds(
    Frame,
    type=st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    generation=st.integers(0, 65_535),
    window=st.sampled_from([0, 1, 65_536, 2**32 - 1]),
    offset=st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1)),
    ack=st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1)),
    payload=st.one_of(st.binary(max_size=60), st.just(PARAMETERS.encode() + b"x")),
).map(encode)
WILD_TEXTS = st.one_of(WILD_FRAMES, WILD_FRAMES, st.just(GATEWAY_ERROR), st.text(max_size=60))
ACTIONS = st.one_of(
    st.tuples(st.just("receive"), WILD_TEXTS),
    st.tuples(st.just("send"), st.integers(0, 100_000)),
    st.tuples(st.sampled_from(["eof", "established", "refused", "gone", "wait", "read"]), st.just(0)),
    st.tuples(st.sampled_from(["abort", "lost"]), st.just(0)),
)


@given(role=st.sampled_from(Role), actions=st.lists(ACTIONS, max_size=30))
def test_whatever_comes_a_session_goes_on_or_ends_and_raises_nothing(
    role: Role, actions: list[tuple[str, str | int]]
) -> None:
    clock = Clock()
    streams = StreamConfig(capacity=INITIAL_WINDOW)
    make = client_session if role is Role.DIALER else relay_session
    session = make(clock.now, streams=streams)
    told: list[Event] = []
    for action, value in actions:
        match action:
            case "receive":
                session.receive_message(str(value).encode(), clock.now)
            case "send" if not session.send_ended:
                session.send_data(bytes(int(value)))
            case "eof":
                session.send_eof()
            case "established":
                session.finish_opening()
            case "refused":
                session.message_refused(clock.now)
            case "gone":
                session.peer_unknown(clock.now)
            case "abort":
                session.abort(Code.TARGET_RESET, "here", clock.now)
            case "lost":
                session.link_lost(Code.DIALER_GONE, "lost", clock.now)
            case "read":
                session.consume(len(session.peek()), clock.now)
            case "wait":
                timeout = session.next_timeout()
                clock.advance_to(timeout if timeout is not None else clock.now + 1)
                session.handle_timeout(clock.now)
        for message in session.messages_to_send(clock.now):
            assert len(message.data) <= MAX_MESSAGE
            decode(message.data)
        told += events(session)
        assert max(session.buffered) <= INITIAL_WINDOW
        timeout = session.next_timeout()
        if session.state is State.ENDED:
            assert (timeout, told[-1].__class__) == (None, Finished)
        elif session.buffered[0] or not session.alive:
            assert timeout is not None, "it waits for something, and no timer runs"
    assert sum(isinstance(event, Aborted) for event in told) <= 1
    assert sum(isinstance(event, Finished) for event in told) <= 1
    assert all(isinstance(event, SAFE_EVENTS) for event in told)
    if any(isinstance(event, Aborted) for event in told):
        assert Finished(Code.OK) not in told


@given(plan=plans(FAULTS, watched=False), at=st.floats(0, 10), role=st.sampled_from(Role))
def test_an_abort_at_any_moment_ends_both_sides_and_gives_no_wrong_byte(
    plan: Plan, at: float, role: Role
) -> None:
    linked = plan.build()
    linked.at(at, lambda: linked.ends[role].session.abort(Code.TARGET_RESET, "cut", linked.clock.now))
    linked.run(LIMIT)
    client, relay = linked.ends[Role.DIALER], linked.ends[Role.RELAY]
    assert bytes(relay.written).startswith(client.received)
    assert bytes(client.written)[plan.socks :].startswith(relay.received)
    for end in (client, relay):
        assert isinstance(end.events[-1], Finished)
        if Finished(Code.OK) in end.events:
            assert end.session.receive_ended or end.session.peek()
