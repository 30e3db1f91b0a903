"""A model check: whatever order of writes, cuts, losses, reconnects and deadlines is drawn, the rules hold.

Two real cores, the bridge's rules, a lossy link and virtual time (tests/helpers/link.py, carrier.py). After
each rule the invariants are checked; at the end the link heals, and then both sides have to finish.
"""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import INITIAL_WINDOW, STEADY_AFTER
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.duplex import StreamConfig
from tests.helpers.clock import Clock
from tests.helpers.link import Endpoint, Faults, LinkedSessions, User
from tests.helpers.pair import PARAMETERS, client_session, relay_session

#: The relay's life, where it is not to be the reason for the end.
LONG = 6 * 3600.0

#: How long a healed link may take to deliver everything, or to end both sides, in seconds: the longest
#: retransmission timer, or a grace and last words after another grace.
HEALED = 200.0

#: The dialer's grace, in seconds: what the relay tells it; its own is longer.
SHORTEST_GRACE = PARAMETERS.grace / 1000

#: Time in which a connection is there again and has held, once the gateway can be reached, in seconds: a
#: few attempts on the slowest link, and then long enough to be of use.
TO_HOLD = 15.0 + STEADY_AFTER

#: The same after a silent death: first the watches have to find it (docs/protocol.md sections 4.7 and 5.5).
FOUND = HEALED + 330.0

SIDES = st.sampled_from(Role)
CHOICES = [[Role.DIALER], [Role.RELAY], list(Role)]
CHOSEN_SIDES = st.sampled_from(CHOICES)
SIZES = st.one_of(st.integers(1, 50), st.integers(1, 5_000), st.integers(60_000, 150_000))
SHORT = st.floats(0, 5)

#: Seconds that pass after what a rule does. In the rule itself, because hypothesis leaves out some of the
#: rules in each run: in each run there has to be something to lose, and time to lose it.
PAUSES: st.SearchStrategy[float] = st.sampled_from([0.0, 0.0, 0.005, 0.02, 0.1, 0.5, 3.0])

#: Seconds between something sent and a cut: within a few times the delay of one message.
MOMENTS = st.sampled_from([each / 200 for each in range(17)])


class Model(RuleBasedStateMachine):
    """Two sessions and everything that can happen to them.

    Attributes:
        gentle: Nothing was lost, and no outage came near the grace: both sides have to end clean.
        swift: Beside that, news travels fast: whatever a cut has lost is sent again for RESUMED, and never
            for a retransmission timer.
        life: The relay's.
        silent: A WebSocket has died without notice.
        lets_in: Whoever comes back when the outage is over is let in, and hears of it.
        restless: Since when cuts have followed each other sooner than a connection can hold, and how long the
            newest of them lasts.
        told: Why a user cut the session off; ``None`` if none did.
    """

    @initialize(
        seed=st.integers(0, 2**32),
        epochs=st.sampled_from([(1, 1), (65_534, 1), (2, 65_535)]),
        life=st.sampled_from([LONG, LONG, LONG, 150.0]),
        sizes=st.tuples(SIZES, SIZES),
    )
    def begin(self, seed: int, epochs: tuple[int, int], life: float, sizes: tuple[int, int]) -> None:
        clock = Clock()
        start, streams = clock.now, StreamConfig(capacity=INITIAL_WINDOW)
        client = client_session(start, streams=streams, keepalive=KeepaliveTimes(), epochs=epochs)
        client.finish_opening()
        relay = relay_session(start, streams=streams, probing=ProbeTimes(), life=life, epochs=epochs)
        self.linked = LinkedSessions(
            seed,
            Faults(),
            Endpoint(client, User(eof_at=math.inf), start, capacity=INITIAL_WINDOW),
            Endpoint(relay, User(eof_at=math.inf), start, capacity=INITIAL_WINDOW),
            clock,
            epochs=epochs,
        )
        self.clock = clock
        self.bytes = random.Random(seed)
        self.finished: set[Role] = set()
        self.life = life
        self.gentle = self.swift = life == LONG
        self.silent = False
        self.lets_in = True
        self.restless = (0.0, 0.0)
        self.told: Code | None = None
        for role, size in zip(Role, sizes, strict=True):
            self.write(role, size, 0.0)

    # -- the users ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.finished) < 2)
    @rule(role=SIDES, size=SIZES, pause=PAUSES)
    def write(self, role: Role, size: int, pause: float) -> None:
        if role not in self.finished:
            self.linked.ends[role].write(self.bytes.randbytes(size), self.clock.now)
        self.advance(pause)

    @precondition(lambda self: len(self.finished) < 2)
    @rule(sides=CHOSEN_SIDES, size=SIZES, pause=MOMENTS, cut=st.sampled_from([[], *CHOICES]))
    def half_close(self, sides: list[Role], size: int, pause: float, cut: list[Role]) -> None:
        """And perhaps a WebSocket breaks while the FINs, or END and ENDED, are under way."""
        for role in sides:
            self.write(role, size, 0.0)
            self.finished.add(role)
            self.linked.ends[role].finish(self.clock.now)
        self.cut(cut, 0.0, 0.0, pause)

    @rule(role=SIDES, seconds=st.sampled_from([0.5, 10.0, 90.0]), size=SIZES)
    def stop_reading(self, role: Role, seconds: float, size: int) -> None:
        self.linked.ends[role].stop_reading(self.clock.now, self.clock.now + seconds)
        other = Role.RELAY if role is Role.DIALER else Role.DIALER
        self.write(other, size, seconds / 2)

    @precondition(lambda self: len(self.finished) < 2 and self.all_alive)
    @rule(
        role=SIDES,
        down=st.sampled_from([[], *CHOICES]),
        outage=st.sampled_from([0.0, 3.0, 15.0]),
        pause=MOMENTS,
        size=SIZES,
    )
    def reset(self, role: Role, down: list[Role], outage: float, pause: float, size: int) -> None:
        """Also while WebSockets are down: the other side and the record are told that very reason.

        What was written before arrives ahead of it.
        """
        if role not in self.finished:
            self.write(role, size, 0.0)
        for each in down:
            self.linked.carrier.cut(each, outage)
        self.advance(pause)
        if not self.all_alive:
            return
        self.told = Code.DIALER_RESET if role is Role.DIALER else Code.TARGET_RESET
        end, peer = self.both(role)
        peer.stop_reading(0.0, 0.0)
        end.stop_reading(0.0, math.inf)
        end.session.user_lost(self.told, "reset", self.clock.now)
        self.advance(HEALED)
        if self.gentle and self.lets_in:
            assert end.session.undelivered == 0
            codes = [event.code for _role in Role for event in self.finishes(_role)]
            assert codes == [self.told] * 2, self.linked.describe()
            assert self.linked.carrier.ended is not None
            assert self.linked.carrier.ended.code is self.told

    @property
    def all_alive(self) -> bool:
        return all(end.session.alive for end in self.linked.ends.values())

    def finishes(self, role: Role) -> list[Finished]:
        return [event for event in self.linked.ends[role].events if isinstance(event, Finished)]

    # -- the link -------------------------------------------------------------------------------

    @rule(
        drop=st.sampled_from([0.0, 0.0, 0.05, 0.3]),
        duplicate=st.sampled_from([0.0, 0.3]),
        error=st.sampled_from([0.0, 0.0, 0.1]),
        slowest=st.sampled_from([0.01, 0.1, 2.0]),
        attempt=st.sampled_from([0.0, 0.3]),
        unheard=st.sampled_from([0.0, 0.3]),
        disconnect=st.sampled_from([0.0, 0.5, 1.0]),
        notice=st.sampled_from([0.1, 20.0]),
    )
    def change_the_weather(
        self,
        drop: float,
        duplicate: float,
        error: float,
        slowest: float,
        attempt: float,
        unheard: float,
        disconnect: float,
        notice: float,
    ) -> None:
        delay = (0.001, slowest)
        self.linked.carrier.change(
            Faults(drop, duplicate, error, delay, attempt, unheard, disconnect, (0.0, notice))
        )
        self.gentle = self.gentle and not drop and not error
        self.lets_in = self.lets_in and not attempt and not unheard
        self.swift = self.swift and slowest <= 0.1 and not disconnect and notice <= 0.1

    @rule(sides=CHOSEN_SIDES, outage=SHORT, pause=PAUSES, before=MOMENTS)
    def cut(self, sides: list[Role], outage: float, pause: float, before: float) -> None:
        self.advance(before)
        if sides:
            self.note_cut(outage)
        for role in sides:
            self.linked.carrier.cut(role, outage)
        self.advance(pause)

    def note_cut(self, outage: float) -> None:
        """Cuts in quick succession may be one outage (docs/protocol.md section 5.2), near the grace."""
        since, until = self.restless
        if self.clock.now > until + TO_HOLD:
            since = self.clock.now
        self.restless = since, max(until, self.clock.now + outage)
        self.gentle = self.gentle and self.clock.now + outage < since + SHORTEST_GRACE / 2

    @rule(role=SIDES, outage=st.sampled_from([0.0, 3.0, 30.0, 55.0, 100.0]), silent=st.booleans())
    def break_down(self, role: Role, outage: float, silent: bool) -> None:
        """For long, or without notice."""
        self.gentle, self.silent = False, self.silent or silent
        fault = self.linked.carrier.silence if silent else self.linked.carrier.cut
        fault(role, outage)

    # -- time -----------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 20))
    def let_the_next_things_happen(self, steps: int) -> None:
        for _step in range(steps):
            if not self.linked.step(self.clock.now + 3600.0):
                return
            self.check()

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 15.0, 61.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while not self.linked.over and self.linked.step(until):
            self.check()

    # -- what holds always ----------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        for role in Role:
            self.delivered_is_a_prefix_of_what_was_sent(role)
            self.a_clean_end_means_that_all_arrived(role)
            self.something_is_going_to_happen(role)
            self.buffers_are_within_their_capacity(role)

    def delivered_is_a_prefix_of_what_was_sent(self, role: Role) -> None:
        end, peer = self.both(role)
        assert peer.written.startswith(end.received)

    def a_clean_end_means_that_all_arrived(self, role: Role) -> None:
        """Both FINs acknowledged, by this side's account, or ENDED with code 0."""
        end, peer = self.both(role)
        aborted = any(isinstance(event, Aborted) for event in end.events)
        finished = any(isinstance(event, Finished) for event in end.events)
        if aborted or not finished:  # whether anything is missing is told before that
            return
        for one, other in ((end, peer), (peer, end)):
            assert len(one.received) + one.session.buffered[1] == len(other.written)

    def something_is_going_to_happen(self, role: Role) -> None:
        """No stall: while anything is outstanding, a timer runs or a message is under way."""
        session = self.linked.ends[role].session
        if session.state is State.ENDED:
            assert session.next_timeout() is None
        elif session.buffered[0] or session.send_ended or not session.alive:
            timer, moving = session.next_timeout(), list(self.linked.carrier.next_times())
            assert timer is not None or moving, "it waits for something that cannot come"

    def buffers_are_within_their_capacity(self, role: Role) -> None:
        assert max(self.linked.ends[role].session.buffered) <= INITIAL_WINDOW

    # -- the end --------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "linked"):
            return
        self.linked.carrier.change(Faults())
        for end in self.linked.ends.values():
            end.stop_reading(0.0, 0.0)
        self.advance(FOUND if self.silent else HEALED)
        self.check_delivered()
        alive = self.linked.ends[Role.DIALER].session.alive
        for end in self.linked.ends.values():
            end.finish(self.clock.now)
        self.linked.run(HEALED)
        self.check()
        for role, end in self.linked.ends.items():
            told = self.finishes(role)
            assert len(told) == 1
            assert end.events[-1] == told[0]
            if self.told is None and (self.gentle or (alive and self.life == LONG)):
                assert told[0].code is Code.OK, self.linked.describe()
            if self.told is None and self.gentle and self.swift:
                counters = end.session.counters
                assert counters.losses <= counters.gateway_errors, self.linked.describe()

    def check_delivered(self) -> None:
        """On a link that has healed both sides get everything, or both have been told of the end."""
        alive = {role: end.session.alive for role, end in self.linked.ends.items()}
        assert len(set(alive.values())) == 1, f"only one side knows that it is over: {alive}"
        if not alive[Role.DIALER]:
            assert self.linked.over, self.linked.describe()
            return
        for role in Role:
            end, peer = self.both(role)
            stuck = f"stuck: {self.linked.describe()}"
            assert (end.received, peer.session.buffered[0]) == (peer.written, 0), stuck

    def both(self, role: Role) -> tuple[Endpoint, Endpoint]:
        other = Role.RELAY if role is Role.DIALER else Role.DIALER
        return self.linked.ends[role], self.linked.ends[other]


TestModel = pytest.mark.timeout(300)(Model.TestCase)
TestModel.settings = settings(stateful_step_count=30)
