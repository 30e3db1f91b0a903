"""WebSockets break: a cut within the grace costs nobody a byte, one beyond it is a definite end for both."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import INITIAL_WINDOW
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.stream.duplex import StreamConfig
from tests.helpers.clock import Clock
from tests.helpers.link import Endpoint, Faults, LinkedSessions, User
from tests.helpers.pair import client_session, relay_session

#: The relay's life; long, so that it is never the reason.
LIFE = 6 * 3600.0

#: Of an outage that a session must survive, in seconds: below the grace, less what the last attempt and the
#: first RESUMED may take.
SURVIVED = 40.0


@dataclass(frozen=True)
class Cut:
    """One fault: when, whose WebSocket, for how long the gateway is out of reach, noticed or not."""

    at: float
    role: Role
    outage: float
    silent: bool = False


@dataclass(frozen=True)
class Plan:
    """One drawn run."""

    seed: int
    faults: Faults
    client: User
    relay: User
    cuts: list[Cut]
    epochs: tuple[int, int] = (1, 1)

    def build(self) -> LinkedSessions:
        clock = Clock()
        start, streams = clock.now, StreamConfig(capacity=INITIAL_WINDOW)
        client = client_session(start, streams=streams, keepalive=KeepaliveTimes(), epochs=self.epochs)
        client.finish_opening()
        relay = relay_session(start, streams=streams, probing=ProbeTimes(), life=LIFE, epochs=self.epochs)
        linked = LinkedSessions(
            self.seed,
            self.faults,
            Endpoint(client, self.client, start, capacity=INITIAL_WINDOW),
            Endpoint(relay, self.relay, start, capacity=INITIAL_WINDOW),
            clock,
            epochs=self.epochs,
        )
        for cut in self.cuts:
            fault = linked.carrier.silence if cut.silent else linked.carrier.cut
            linked.at(cut.at, lambda cut=cut, fault=fault: fault(cut.role, cut.outage))  # type: ignore[misc]
        return linked


def users() -> st.SearchStrategy[User]:
    sizes = st.one_of(st.integers(1, 50), st.integers(1, 5_000), st.integers(1, 150_000))
    writes = st.lists(st.tuples(st.floats(0, 60), sizes), max_size=6)

    def build(writes: list[tuple[float, int]], eof_at: float, pace: float) -> User:
        made = [(at, random.Random(index).randbytes(size)) for index, (at, size) in enumerate(sorted(writes))]
        return User(made, eof_at, 65_536, pace)

    return st.builds(build, writes, st.floats(0, 120), st.sampled_from([0.0, 0.0, 0.5]))


def cuts(
    *, most: int, outages: st.SearchStrategy[float], silent: st.SearchStrategy[bool]
) -> st.SearchStrategy[list[Cut]]:
    drawn = st.builds(Cut, st.floats(0, 100), st.sampled_from(Role), outages, silent)
    return st.lists(drawn, min_size=1, max_size=most)


def plans(faults: st.SearchStrategy[Faults], drawn: st.SearchStrategy[list[Cut]]) -> st.SearchStrategy[Plan]:
    near_wrap = st.tuples(st.integers(65_530, 65_537), st.integers(1, 3))
    epochs = st.one_of(st.just((1, 1)), near_wrap, near_wrap.map(lambda both: both[::-1]))
    return st.builds(Plan, st.integers(0, 2**32), faults, users(), users(), drawn, epochs)


FAST = st.tuples(st.just(0.001), st.floats(0.002, 0.3))
FAIR = st.builds(
    Faults,
    duplicate=st.floats(0, 0.2),
    delay=FAST,
    attempt=st.sampled_from([0.0, 0.3]),
    unheard=st.sampled_from([0.0, 0.3]),
    disconnect=st.sampled_from([0.0, 0.5, 1.0]),
    notice=st.tuples(st.just(0.0), st.sampled_from([0.1, 5.0, 50.0])),
)
FOUL = st.builds(
    Faults,
    drop=st.floats(0, 0.2),
    duplicate=st.floats(0, 0.2),
    error=st.floats(0, 0.1),
    delay=FAST,
    attempt=st.floats(0, 0.5),
    unheard=st.floats(0, 0.3),
    disconnect=st.floats(0, 1),
    notice=st.tuples(st.just(0.0), st.sampled_from([0.1, 5.0, 50.0])),
)


def drain(linked: LinkedSessions) -> None:
    for end in linked.ends.values():
        while view := end.session.peek():
            end.received += view
            end.session.consume(len(view), linked.clock.now)


def check_prefix(linked: LinkedSessions) -> None:
    """No wrong byte, nowhere; and who was told of a clean end has everything."""
    client, relay = linked.ends[Role.DIALER], linked.ends[Role.RELAY]
    for end, peer in ((client, relay), (relay, client)):
        assert bytes(peer.written).startswith(end.received)
        finished = [event for event in end.events if isinstance(event, Finished)]
        assert len(finished) == 1
        assert end.events[-1] == finished[0]
        aborted = [event for event in end.events if isinstance(event, Aborted)]
        assert len(aborted) == (finished[0].code is not Code.OK)
        if finished[0].code is Code.OK:
            assert (bytes(peer.written), end.session.receive_ended) == (bytes(end.received), True)


def check_whole(plan: Plan, linked: LinkedSessions) -> None:
    """Everything arrived, and nobody heard of an error: who was cut off at the end hears when back."""
    client, relay = linked.ends[Role.DIALER], linked.ends[Role.RELAY]
    assert [end.events[-1] for end in (client, relay)] == [Finished(Code.OK)] * 2, linked.describe()
    for end, peer in ((client, relay), (relay, client)):
        assert bytes(end.written) == b"".join(data for _at, data in end.user.writes)
        assert end.received == peer.written


@given(
    plan=plans(FAIR, cuts(most=5, outages=st.floats(0, SURVIVED / 5), silent=st.just(False))),
)
def test_cuts_within_the_grace_cost_nobody_a_byte(plan: Plan) -> None:
    linked = plan.build()
    linked.run(LIFE)
    drain(linked)
    check_prefix(linked)
    check_whole(plan, linked)


@given(plan=plans(FOUL, cuts(most=6, outages=st.floats(0, 120), silent=st.booleans())))
def test_whatever_breaks_both_sides_end_and_neither_sees_a_wrong_byte(plan: Plan) -> None:
    linked = plan.build()
    linked.run(LIFE)
    drain(linked)
    check_prefix(linked)


TALK = User([(at / 4, random.Random(at).randbytes(3_000 + at)) for at in range(20)], eof_at=6.0)
ANSWER = User([(0.1 + at / 4, random.Random(at).randbytes(2_000 + at)) for at in range(20)], eof_at=6.5)
SLOW = Faults(delay=(0.02, 0.02), notice=(0.05, 0.05))


@pytest.mark.parametrize("sides", [[Role.DIALER], [Role.RELAY], list(Role)], ids=["dialer", "relay", "both"])
def test_a_cut_at_every_moment_of_a_conversation(sides: list[Role]) -> None:
    for tick in range(0, 700, 7):
        drawn = [Cut(tick / 100, role, 0.0) for role in sides]
        plan = Plan(tick, SLOW, TALK, ANSWER, drawn)
        linked = plan.build()
        linked.run(LIFE)
        drain(linked)
        check_prefix(linked)
        check_whole(plan, linked)
        assert linked.messages < 200


@pytest.mark.parametrize("sides", [[Role.DIALER], [Role.RELAY], list(Role)], ids=["dialer", "relay", "both"])
def test_a_cut_at_every_moment_of_the_end(sides: list[Role]) -> None:
    """Symptom: a side that was cut while ENDED was under way saw UNKNOWN_SESSION, though all had come."""
    # Who half-closes last is the last to know that all has arrived.
    client, relay = (ANSWER, TALK) if sides == [Role.DIALER] else (TALK, ANSWER)
    whole = Plan(1, SLOW, client, relay, []).build()
    began = whole.clock.now
    whole.run(LIFE)
    over = whole.clock.now - began
    told_late = 0
    for tick in range(100):
        plan = Plan(1, SLOW, client, relay, [Cut(over - tick / 400, role, 0.0) for role in sides])
        linked = plan.build()
        linked.run(LIFE)
        drain(linked)
        check_prefix(linked)
        check_whole(plan, linked)
        told_late += linked.carrier.visits
    assert told_late > 0, "no cut fell into the moment that this is about"


@pytest.mark.parametrize("silent", [False, True], ids=["noticed", "silent"])
@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_side_that_is_gone_for_good_ends_both_in_bounded_time_and_names_who_went(
    role: Role, silent: bool, busy: bool
) -> None:
    written = [(at, b"x") for at in range(0, 1000, 5)] if busy else []
    user = User(list(written), eof_at=5000.0)
    linked = Plan(1, SLOW, user, user, [Cut(3.0, role, 1e9, silent)]).build()
    began = linked.clock.now
    linked.run(LIFE)
    code = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
    assert {end.events[-1] for end in linked.ends.values()} == {Finished(code)}
    # Noticed: the grace. Not noticed: before it the dialer's PING and its deadline, then the relay's PROBE's.
    # Then last words.
    assert linked.clock.now - began <= 3 + (330 if silent else 60) + 6 + 5 * busy
    assert linked.messages < 250
