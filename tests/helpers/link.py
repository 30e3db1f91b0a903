"""Two sessions on a bad link, a small bridge and a virtual clock: no thread, no socket, no wall clock.

The link stands for API Gateway and the network: it delays every message by its own amount (and so changes
their order), loses some, doubles some, and answers some with the gateway's own error message. The bridge does
what docs/protocol.md section 6 asks of it: END is answered by ENDED to both.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from emissary_lib.protocol.constants import DEFAULT_CAPACITY, MAX_MESSAGE
from emissary_lib.protocol.events import Event
from emissary_lib.protocol.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.payloads import Disconnected, End, Ended
from emissary_lib.protocol.session import Session
from emissary_lib.protocol.states import Side, State
from tests.helpers.clock import Clock
from tests.helpers.pair import events

GATEWAY_ERROR = '{"message": "Internal server error", "connectionId":"Ab1=", "requestId":"Cd2="}'


@dataclass(frozen=True)
class Faults:
    """How bad the link is; shares are from 0 to 1, delays in seconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    error: float = 0.0
    delay: tuple[float, float] = (0.01, 0.01)


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
            self.session.established()
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

    def _stopped(self, now: float) -> bool:
        return self._stops[0] <= now < self._stops[1]


class LinkedSessions:
    """The two sessions, the link between them, the bridge and the clock.

    Args:
        seed: Of everything the link decides.
        faults: How bad it is.
        client: The dialer's session and user.
        relay: The relay's.
        clock: Shared with whoever built the sessions.
    """

    def __init__(self, seed: int, faults: Faults, client: Endpoint, relay: Endpoint, clock: Clock) -> None:
        self.clock = clock
        self.ends = {Side.CLIENT: client, Side.RELAY: relay}
        self.messages = 0
        self._faults = faults
        self._random = random.Random(seed)
        self._carried: list[tuple[float, int, Side, str]] = []
        self._order = 0
        self._ended: Ended | None = None
        self._closed: set[Side] = set()
        self._lost_ends = 0
        self._planned: list[tuple[float, Callable[[], None]]] = []

    def at(self, after: float, action: Callable[[], None]) -> None:
        """Do something, ``after`` seconds from now."""
        self._planned.append((self.clock.now + after, action))

    def run(self, limit: float) -> None:
        """Until both sessions have ended and no message is under way.

        Raises:
            AssertionError: An invariant was broken, or it took more than ``limit`` seconds.
        """
        until = self.clock.now + limit
        while True:
            for side in self.ends:
                self._pump(side)
            if all(end.session.state is State.ENDED for end in self.ends.values()):
                return
            at = min(self._times(), default=None)
            assert at is not None, "deadlock: nothing is under way and no timer runs"
            assert at <= until, f"not over after {limit} seconds: {self.describe()}"
            self.clock.advance_to(at)
            while self._carried and self._carried[0][0] <= self.clock.now:
                _at, _order, side, text = heapq.heappop(self._carried)
                self.ends[side].session.receive_message(text, self.clock.now)
                self._check(side)
            for planned in [each for each in self._planned if each[0] <= self.clock.now]:
                self._planned.remove(planned)
                planned[1]()
            for end in self.ends.values():
                timeout = end.session.next_timeout()
                if timeout is not None and timeout <= self.clock.now:
                    end.session.handle_timeout(self.clock.now)

    def describe(self) -> str:
        return "; ".join(
            f"{side.value}: {end.session.state.value}, {end.session.buffered} buffered, "
            f"{len(end.received)} read, {end.session.counters}"
            for side, end in self.ends.items()
        )

    def _times(self) -> Iterable[float]:
        if self._carried:
            yield self._carried[0][0]
        yield from (at for at, _action in self._planned)
        for end in self.ends.values():
            yield from end.wakes(self.clock.now)
            timeout = end.session.next_timeout()
            if timeout is not None:
                yield timeout

    def _pump(self, side: Side) -> None:
        end, now = self.ends[side], self.clock.now
        end.act(now)
        for message in end.session.messages_to_send(now):
            self.messages += 1
            self._check_message(side, message.text)
            self._carry(side, message.text)
        end.act(now)
        self._check(side)
        if end.session.state is State.ENDED and side not in self._closed:
            self._closed.add(side)
            if self._ended is None:
                self._disconnected(side)

    # -- the link and the bridge ----------------------------------------------------------------

    def _carry(self, sender: Side, text: str) -> None:
        frame = decode(text)
        fate = self._random.random()
        if frame.type == FrameType.END and self._lost_ends >= 3:
            fate = 1.0  # four in a row are not lost: then nobody could end anything
        if fate < self._faults.drop:
            self._lost_ends += frame.type == FrameType.END
            return
        if fate < self._faults.drop + self._faults.error:
            self._deliver(sender, GATEWAY_ERROR)
            self._lost_ends += frame.type == FrameType.END
            return
        copies = 2 if self._random.random() < self._faults.duplicate else 1
        for _ in range(copies):
            self._arrive(sender, frame, text)

    def _arrive(self, sender: Side, frame: Frame, text: str) -> None:
        receiver = Side.RELAY if sender is Side.CLIENT else Side.CLIENT
        if frame.type == FrameType.END:
            self._end(sender, End.decode(frame.payload))
        elif sender is Side.CLIENT and self._ended is not None:
            self._tell_ended(sender)
        elif receiver in self._closed:
            self._disconnected(receiver)
        else:
            self._deliver(receiver, text)

    def _end(self, sender: Side, end: End) -> None:
        if self._ended is None:
            dialer, relay = (end.sent, end.received) if sender is Side.CLIENT else (end.received, end.sent)
            self._ended = Ended(end.code, dialer, relay)
        for side in self.ends:
            if self._random.random() >= self._faults.drop:
                self._tell_ended(side)

    def _tell_ended(self, side: Side) -> None:
        assert self._ended is not None
        self._deliver(side, encode(Frame(FrameType.ENDED, generation=2, payload=self._ended.encode())))

    def _disconnected(self, gone: Side) -> None:
        other = Side.RELAY if gone is Side.CLIENT else Side.CLIENT
        payload = Disconnected(gone.role, 1).encode()
        self._deliver(other, encode(Frame(FrameType.DISCONNECTED, generation=2, payload=payload)))

    def _deliver(self, side: Side, text: str) -> None:
        self._order += 1
        at = self.clock.now + self._random.uniform(*self._faults.delay)
        heapq.heappush(self._carried, (at, self._order, side, text))

    # -- invariants -----------------------------------------------------------------------------

    def _check(self, side: Side) -> None:
        end = self.ends[side]
        to_send, to_read = end.session.buffered
        assert 0 <= to_send <= end.capacity, "the send buffer is over its capacity"
        assert 0 <= to_read <= end.capacity, "the receive buffer is over its capacity"

    def _check_message(self, side: Side, text: str) -> None:
        assert len(text) <= MAX_MESSAGE and text.isascii()
        frame = decode(text)
        assert not frame.flags & ~(Flag.FIN | Flag.IGNORABLE | Flag.ACK_NOW)
        if frame.type in (FrameType.DATA, FrameType.ACK, FrameType.OPENING, FrameType.OPENED):
            end = self.ends[side]
            assert frame.ack + frame.window >= end.edge, "the window's edge moved back"
            end.edge = frame.ack + frame.window
