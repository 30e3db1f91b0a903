"""Two sessions on a bad link, and a virtual clock: no thread, no socket, no wall clock.

The link itself, with the bridge behind it, is in tests/helpers/carrier.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from emissary_lib.protocol.constants import DEFAULT_CAPACITY, MAX_MESSAGE
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Event, LinkDead, PeerMoved
from emissary_lib.protocol.session.session import Outgoing, Session
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.wire.frames import Flag, FrameType, decode
from tests.helpers.carrier import GATEWAY_ERROR as GATEWAY_ERROR
from tests.helpers.carrier import Carrier
from tests.helpers.carrier import Faults as Faults
from tests.helpers.clock import Clock
from tests.helpers.pair import events

#: Turns of the loop at one moment after which the sessions count as spinning.
_SPIN = 3000


@dataclass
class User:
    """The program at one end: what it writes, how it reads.

    Attributes:
        writes: ``(when, bytes)``, in seconds from the start, ascending.
        eof_at: When it half-closes, once everything was taken.
        chunk: Bytes it reads at a time.
        pace: Seconds between two reads.
        stops: ``(from, to)``: it does not read in between.
        established_at: When the dialer has read the SOCKS5 reply (of the client only).
    """

    writes: list[tuple[float, bytes]] = field(default_factory=list)
    eof_at: float = 0.0
    chunk: int = 1 << 20
    pace: float = 0.0
    stops: tuple[float, float] = (0.0, 0.0)
    established_at: float = 0.0


class Endpoint:
    """One session with its user."""

    def __init__(
        self, session: Session, user: User, start: float, *, capacity: int = DEFAULT_CAPACITY
    ) -> None:
        self.session = session
        self.user = user
        self.capacity = capacity
        self.events: list[Event] = []
        self.received = bytearray()
        self.written = bytearray()
        self.edge = 0  # the furthest position this side ever allowed its peer
        self._pending = [(start + at, data) for at, data in user.writes]
        self._eof_at = start + user.eof_at
        self._established_at = start + user.established_at
        self._stops = (start + user.stops[0], start + user.stops[1])
        self._next_read = start

    def act(self, now: float) -> None:
        """Let the user do what it can."""
        if now >= self._established_at:
            self.session.finish_opening()
        while self._pending and self._pending[0][0] <= now:
            at, data = self._pending[0]
            taken = self.session.send_data(data)
            self.written += data[:taken]
            if taken < len(data):
                self._pending[0] = (at, data[taken:])
                break
            self._pending.pop(0)
        if not self._pending and now >= self._eof_at:
            self.session.send_eof()
        while now >= self._next_read and not self._stopped(now):
            view = self.session.peek()[: self.user.chunk]
            if not view:
                break
            self.received += view
            self.session.consume(len(view), now)
            self._next_read = now + self.user.pace
        self.events += events(self.session)

    def wakes(self, now: float) -> Iterable[float]:
        """When the user wants to act next."""
        if self._established_at > now:
            yield self._established_at
        if self._pending and self._pending[0][0] > now:
            yield self._pending[0][0]
        elif self._eof_at > now:
            yield self._eof_at
        if self.session.peek():
            yield max(self._next_read, self._stops[1] if self._stopped(now) else now)

    def write(self, data: bytes, now: float) -> None:
        """Let the user write this now, behind what it has written."""
        self._pending.append((now, data))

    def finish(self, now: float) -> None:
        """Let the user half-close, once everything was taken."""
        self._eof_at = now

    def stop_reading(self, now: float, until: float) -> None:
        """Let the user read nothing until then."""
        self._stops = (now, until)

    def _stopped(self, now: float) -> bool:
        return self._stops[0] <= now < self._stops[1]


class LinkedSessions:
    """The two sessions, the carrier between them and the clock.

    Args:
        seed: Of everything the link decides.
        faults: How bad it is.
        client: The dialer's session and user.
        relay: The relay's.
        clock: Shared with whoever built the sessions.
        epochs: Of dialer and relay at the start.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        client: Endpoint,
        relay: Endpoint,
        clock: Clock,
        *,
        epochs: tuple[int, int] = (1, 1),
    ) -> None:
        self.clock = clock
        self.started = clock.now
        self.ends = {Role.DIALER: client, Role.RELAY: relay}
        self.messages = 0
        self.carrier = Carrier(
            seed, faults, clock, {role: end.session for role, end in self.ends.items()}, epochs
        )
        self._turns = 0  # of the loop, at this moment
        self._closed: set[Role] = set()
        self._told = dict.fromkeys(self.ends, 0)

    def at(self, after: float, action: Callable[[], None]) -> None:
        """Do something, ``after`` seconds from now."""
        self.carrier.later(after, action)

    def run(self, limit: float) -> None:
        """Until both sessions have ended.

        Raises:
            AssertionError: An invariant was broken, or it took more than ``limit`` seconds.
        """
        until = self.clock.now + limit
        while True:
            self.pump()
            if self.over:
                return
            at = min(self._times(), default=None)
            assert at is not None, "deadlock: nothing is under way and no timer runs"
            assert at <= until, f"not over after {limit} seconds: {self.describe()}"
            self._go_to(at)

    def step(self, until: float) -> bool:
        """Let the next thing happen, if it does so by ``until``; else it is ``until``, and False."""
        self.pump()
        at = min(self._times(), default=until)
        self._go_to(min(at, until))
        self.pump()
        return at <= until

    @property
    def over(self) -> bool:
        """Whether both sessions have ended."""
        return all(end.session.state is State.ENDED for end in self.ends.values())

    def pump(self) -> None:
        """Let users and sessions do all that they can do now."""
        for role in self.ends:
            self._pump(role)

    def _go_to(self, at: float) -> None:
        self._turns = 0 if at > self.clock.now else self._turns + 1
        assert self._turns < _SPIN, f"it spins: {self.describe()}"
        self.clock.advance_to(at)
        self.carrier.happen()
        for end in self.ends.values():
            timeout = end.session.next_timeout()
            if timeout is not None and timeout <= self.clock.now:
                end.session.handle_timeout(self.clock.now)

    def describe(self) -> str:
        return "; ".join(
            f"{role.value}: {end.session.state.value}, {end.session.buffered} buffered, "
            f"{len(end.received)} read, {end.session.counters}"
            for role, end in self.ends.items()
        )

    def _times(self) -> Iterable[float]:
        yield from self.carrier.next_times()
        for end in self.ends.values():
            yield from end.wakes(self.clock.now)
            timeout = end.session.next_timeout()
            if timeout is not None:
                yield timeout

    def _pump(self, role: Role) -> None:
        end, now = self.ends[role], self.clock.now
        end.act(now)
        messages = end.session.messages_to_send(now)
        end.act(now)
        self._obey(role)
        for message in messages:
            self.messages += 1
            self._check_message(role, message)
            self.carrier.send(role, message)
        self._check(role)
        if end.session.state is State.ENDED and role not in self._closed:
            self._closed.add(role)
            self.carrier.close(role)

    def _obey(self, role: Role) -> None:
        """Do what the driver does for the events that are for it."""
        told = self.ends[role].events
        for event in told[self._told[role] :]:
            if isinstance(event, LinkDead):
                self.carrier.on_drop(role)
            elif isinstance(event, PeerMoved):
                self.carrier.on_peer_moved(role, event.connection)
        self._told[role] = len(told)

    # -- invariants -----------------------------------------------------------------------------

    def _check(self, role: Role) -> None:
        end = self.ends[role]
        to_send, to_read = end.session.buffered
        assert 0 <= to_send <= end.capacity, "the send buffer is over its capacity"
        assert 0 <= to_read <= end.capacity, "the receive buffer is over its capacity"

    def _check_message(self, role: Role, message: Outgoing) -> None:
        text = message.data
        assert len(text) <= MAX_MESSAGE
        assert text.isascii()
        frame = decode(text)
        assert not frame.flags & ~(Flag.FIN | Flag.IGNORABLE | Flag.ACK_NOW | Flag.SHORT)
        if frame.type in (FrameType.DATA, FrameType.ACK, FrameType.OPENING, FrameType.OPENED):
            end = self.ends[role]
            assert frame.ack + frame.window >= end.edge, "the window's edge moved back"
            end.edge = frame.ack + frame.window
