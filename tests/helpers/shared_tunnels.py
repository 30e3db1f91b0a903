"""Shared sessions for tests: both sides back to back, or one with a peer that the test plays."""

from __future__ import annotations

import contextlib
import math
import queue
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from emissary_lib.exceptions import LinkClosedError, LinkRefusedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.limits import MuxLimits
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Event, Finished
from emissary_lib.protocol.session.session import Outgoing, Session, SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import (
    CAPABILITY_SHARED,
    Connections,
    End,
    Ended,
    Opened,
    Resumed,
)
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.loopback import tcp_pair
from emissary_lib.tunnel.shared import SharedConnection, SharedTunnel
from emissary_lib.tunnel.shared_driver import SharedDriver
from emissary_lib.tunnel.shared_relay import RelayTunnel, RequestedConnection
from emissary_lib.tunnel.shutdown import ShutdownPolicy
from emissary_lib.tunnel.suspend import LOOK, SuspendDetector
from tests.helpers.memory_transport import Faults, MemoryTransport, linked_pair
from tests.helpers.patience import HANG, wait_until
from tests.helpers.tunnels import FakeLink

TARGET = Target("db.internal", 5432)


def shared_session(role: Role, *, life: float | None = None, grace: float = 60.0) -> Session:
    """A shared session that is open."""
    streams, now = StreamConfig(), time.monotonic()
    if role is Role.DIALER:
        session = Session(role, SessionConfig(streams=streams, peer_epoch=1, grace=grace), now=now)
        session.finish_opening()
        return session
    opened = Opened(Code.OK, 0, int(grace * 1000), bytes(32), CAPABILITY_SHARED)
    expires_at = None if life is None else now + life
    config = SessionConfig(streams=streams, peer_epoch=1, opened=opened, expires_at=expires_at, grace=grace)
    return Session(role, config, now=now)


class WatchedWaits(SuspendDetector):
    """Notes for how long a driver wants to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: float | None = 0.0

    def cap(self, timeout: float | None) -> float:
        self.wanted = timeout
        return super().cap(timeout)


T = TypeVar("T", bound=SharedDriver)  # type: ignore[type-arg]


class Side(Generic[T]):
    """One side at work, in its thread.

    Args:
        make: Makes the tunnel, of what tells of events, counts turns and notes waits.

    Attributes:
        turns: How often the driver has waited.
    """

    def __init__(
        self, make: Callable[[Callable[[Event], None], Callable[[], None], SuspendDetector], T]
    ) -> None:
        self.events: list[Event] = []
        self.turns = 0
        self._waits = WatchedWaits()
        self.tunnel = make(self.events.append, self._count, self._waits)
        self.thread = threading.Thread(target=self.tunnel.run)

    def _count(self) -> None:
        self.turns += 1

    @property
    def aborted(self) -> Aborted | None:
        return next((event for event in self.events if isinstance(event, Aborted)), None)

    @property
    def finished(self) -> bool:
        return any(isinstance(event, Finished) for event in self.events)

    @property
    def registered(self) -> int:
        """Sockets of connections that the driver's selector knows."""
        return len(self.tunnel._selector.get_map()) - 1

    def wait_until_it_rests(self) -> None:
        """Until nothing that the driver waits for is there, nor due at once: else it would turn and turn."""

        def rests() -> bool:
            wanted = self._waits.wanted
            return not self.tunnel._selector.select(0) and (LOOK if wanted is None else wanted) > 0.01

        wait_until(rests, "the driver rests")

    def join(self) -> None:
        self.thread.join(HANG)
        assert not self.thread.is_alive(), "the tunnel does not end"


class _Bridge:
    """Two links back to back, which can be cut; what the bridge would answer is answered."""

    def __init__(self, seed: int, faults: Faults | None) -> None:
        self._seed = seed
        self._faults = faults
        self._changed = threading.Condition()
        self._epochs = {Role.DIALER: 1, Role.RELAY: 1}
        self._waiting: set[Role] = set()
        self._rounds = 0
        self.connections: list[Connections] = []
        self.ends: list[tuple[Role, End]] = []
        self._refuses = False
        self.confirms = True
        self._connect()

    def _connect(self) -> None:
        dialer, relay = linked_pair(self._seed + self._rounds, self._faults)
        self.transports = {Role.DIALER: dialer, Role.RELAY: relay}
        self._rounds += 1

    def transport(self, role: Role) -> MemoryTransport:
        with self._changed:
            return self.transports[role]

    def cut(self) -> None:
        """Both WebSockets go, and come back."""
        with self._changed:
            for transport in self.transports.values():
                transport.abort()

    def refuse(self) -> None:
        """From now on nobody comes back: as soon as one side has closed its link for good, too."""
        with self._changed:
            self._refuses = True
            self._changed.notify_all()

    def reconnect(self, role: Role, epoch: int) -> None:
        with self._changed:
            self._epochs[role] = epoch
            rounds = self._rounds
            self._waiting.add(role)
            if not self._refuses and len(self._waiting) == 2:
                self._waiting.clear()
                self._connect()
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._rounds > rounds or self._refuses, HANG)
            if self._rounds == rounds:
                raise LinkRefusedError("the test gives no second connection")

    def take(self, role: Role, frame: Frame) -> None:
        """A frame for the bridge."""
        with self._changed:
            transports = dict(self.transports)
        if frame.type is FrameType.CONNECTIONS:
            self.connections.append(Connections.decode(frame.payload))
        elif frame.type is FrameType.RESUME:
            resumed = Resumed(self._epochs[Role.DIALER], self._epochs[Role.RELAY], "dialer=", "relay=")
            self._tell(transports, role, FrameType.RESUMED, resumed.encode())
        elif frame.type is FrameType.END:
            end = End.decode(frame.payload)
            self.ends.append((role, end))
            figures = (end.sent, end.received) if role is Role.DIALER else (end.received, end.sent)
            for each in Role if self.confirms else ():
                self._tell(transports, each, FrameType.ENDED, Ended(end.code, *figures).encode())

    def _tell(
        self, transports: dict[Role, MemoryTransport], role: Role, kind: FrameType, payload: bytes
    ) -> None:
        peer = Role.RELAY if role is Role.DIALER else Role.DIALER
        generation = sum(self._epochs.values())
        with contextlib.suppress(LinkClosedError):
            transports[peer].send(encode(Frame(kind, generation=generation, payload=payload)))


class _BridgeLink:
    """One side's link."""

    def __init__(self, role: Role, bridge: _Bridge) -> None:
        self._role = role
        self._bridge = bridge

    def send(self, message: Outgoing) -> None:
        frame = decode(message.data)
        if message.to_bridge:
            self._bridge.take(self._role, frame)
        else:
            self._bridge.transport(self._role).send(message.data)

    def recv(self) -> bytes:
        return self._bridge.transport(self._role).recv(None)

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        self._bridge.reconnect(self._role, epoch)

    def drop(self) -> None:
        self._bridge.transport(self._role).abort()

    def close(self) -> None:
        self._bridge.refuse()
        self._bridge.transport(self._role).close()

    def release(self) -> None:
        pass


class Line(NamedTuple):
    """One connection, with its two ends."""

    user: socket.socket
    target: socket.socket
    dialed: SharedConnection
    requested: RequestedConnection


class SharedPair:
    """Dialer and relay of a shared session back to back; a context manager that ends both.

    Args:
        faults: How bad the link is.
        seed: Of what happens to messages.
        dialer: The limits of the dialer's multiplexer.
        relay: Of the relay's.
        idle_seconds: As of :class:`SharedTunnel`.
        drain_at: As of :class:`RelayTunnel`.
        life: Seconds until the relay's end; its shutdown has a bound then, as in Lambda.
        grace: Seconds that a side without its WebSocket is waited for.
        on_request: Takes the relay's requests, instead of :attr:`requests`.

    Attributes:
        bridge: What is between both.
        requests: What the relay was asked for, and what the test has not taken.
    """

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        seed: int = 1,
        dialer: MuxLimits | None = None,
        relay: MuxLimits | None = None,
        idle_seconds: float = math.inf,
        drain_at: float = math.inf,
        life: float = 10 * HANG,
        grace: float = 60.0,
        on_request: Callable[[RequestedConnection], None] | None = None,
    ) -> None:
        self.bridge = _Bridge(seed, faults)
        self._ahead = {Role.DIALER: 0.0, Role.RELAY: 0.0}
        self.requests: queue.SimpleQueue[RequestedConnection] = queue.SimpleQueue()
        self._sockets: list[socket.socket] = []
        self._dialed: list[SharedConnection] = []
        now = time.monotonic()
        self.dialer_session = shared_session(Role.DIALER, grace=grace)
        self.relay_session = shared_session(Role.RELAY, life=life, grace=grace)
        self.dialer_mux = DialerMultiplexer(dialer or MuxLimits(), now)
        self.relay_mux = RelayMultiplexer(relay or MuxLimits(), now)
        self.dialer = Side(
            lambda on_event, on_idle, waits: SharedTunnel(
                self.dialer_session,
                _BridgeLink(Role.DIALER, self.bridge),
                self.dialer_mux,
                idle_seconds=idle_seconds,
                on_event=on_event,
                on_idle=on_idle,
                clock=lambda: time.monotonic() + self._ahead[Role.DIALER],
                suspend_detector=waits,
            )
        )
        self.relay = Side(
            lambda on_event, on_idle, waits: RelayTunnel(
                self.relay_session,
                _BridgeLink(Role.RELAY, self.bridge),
                self.relay_mux,
                on_request=on_request or self.requests.put,
                drain_at=drain_at,
                clock=lambda: time.monotonic() + self._ahead[Role.RELAY],
                on_event=on_event,
                on_idle=on_idle,
                shutdown=ShutdownPolicy(now + life, now + life + HANG, linger=grace),
                suspend_detector=waits,
            )
        )

    def __enter__(self) -> SharedPair:
        self.relay.thread.start()
        self.dialer.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._sockets:
            sock.close()
        for connection in self._dialed:
            if connection.socket is None:  # who has asked for one attaches a socket, or gives it up
                connection.abort(Code.DIALER_RESET)
        for side in (self.dialer, self.relay):
            side.tunnel.abort(Code.KILLED, "the test is over")
        for side in (self.dialer, self.relay):
            side.join()

    def let_time_pass(self, role: Role, seconds: float) -> None:
        """One side's clock goes on by that."""
        self._ahead[role] += seconds
        side: Side[SharedTunnel] | Side[RelayTunnel] = self.dialer if role is Role.DIALER else self.relay
        side.tunnel.wake()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A tunnel's end, and the test's, which is closed with the pair."""
        ours, theirs = tcp_pair()
        theirs.settimeout(HANG)
        self._sockets.append(theirs)
        return ours, theirs

    def open(self, target: Target = TARGET) -> SharedConnection | None:
        """Ask for a connection."""
        dialed = self.dialer.tunnel.open(target)
        if dialed is not None:
            self._dialed.append(dialed)
        return dialed

    def adopt(self) -> SharedConnection:
        """Before this is entered: a connection that is asked for with the opening."""
        self._dialed.append(self.dialer.tunnel.adopt(self.dialer_mux.open(TARGET), TARGET))
        return self._dialed[-1]

    def request(self, target: Target = TARGET) -> tuple[SharedConnection, RequestedConnection]:
        """Ask for a connection, and have the relay hear of it."""
        dialed = self.open(target)
        assert dialed is not None, "no room"
        requested = self.requests.get(timeout=HANG)
        assert requested.stream == dialed.stream
        return dialed, requested

    def connect(self, target: Target = TARGET, *, fill: bool = False) -> Line:
        """Open a connection; ``fill``: to a target whose kernel takes no more, see :func:`fill_up`."""
        dialed, requested = self.request(target)
        near, far = self.pair()
        if fill:
            fill_up(near)
        assert requested.accept(near)
        assert dialed.answered.wait(HANG)
        ours, user = self.pair()
        dialed.attach(ours)
        return Line(user, far, dialed, requested)


def fill_up(sock: socket.socket) -> int:
    """Send until the kernels at both ends take no more; how much that was."""
    sock.setblocking(False)
    filled, refused = 0, 0

    def full() -> bool:
        nonlocal filled, refused
        before = filled
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += sock.send(bytes(4096))
        refused = refused + 1 if filled == before else 0
        return refused == 5  # what went over in between has made room

    wait_until(full, "the kernels are full")
    return filled


class PlayedRelay:
    """A dialer's side whose relay and bridge the test plays; a context manager that ends it.

    Args:
        link: What the dialer sends over.

    Attributes:
        side: The dialer's side.
        mux: What the relay makes of the dialer's stream, as far as :meth:`take` was called.
        link: What the dialer sends over.
        written: How many bytes the relay's stream has.
    """

    def __init__(self, link: FakeLink | None = None) -> None:
        self.link = link or FakeLink()
        self.session = shared_session(Role.DIALER)
        mux = DialerMultiplexer(MuxLimits(), time.monotonic())
        self.side = Side(
            lambda on_event, on_idle, waits: SharedTunnel(
                self.session, self.link, mux, on_event=on_event, on_idle=on_idle, suspend_detector=waits
            )
        )
        self.mux = RelayMultiplexer(MuxLimits(), time.monotonic())
        self._read = 0
        self.written = 0
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> PlayedRelay:
        self.side.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._sockets:
            sock.close()
        self.side.tunnel.abort(Code.KILLED, "the test is over")
        self.side.join()

    @property
    def came(self) -> int:
        """How much of the dialer's stream has come."""
        return max((f.offset + len(f.payload) for f in self.link.sent if f.type is FrameType.DATA), default=0)

    def take(self, *, ack: int | None = None) -> None:
        """Read what has come, and answer; ``ack``: what to acknowledge of it, everything if not given."""
        self._receive()
        self.say(self.mux.data_to_send(1 << 20), ack=ack)

    def _receive(self) -> None:
        for frame in sorted(self.link.sent, key=lambda frame: frame.offset):
            if frame.type is FrameType.DATA and frame.offset == self._read:
                self._read += len(frame.payload)
                self.mux.receive(frame.payload, time.monotonic())

    def say(self, data: bytes, *, ack: int | None = None) -> None:
        """Bytes of the relay's stream."""
        ack = self._read if ack is None else ack
        if data:
            self.link.give(FrameType.DATA, data, offset=self.written, ack=ack)
            self.written += len(data)
        else:
            self.link.give(FrameType.ACK, ack=ack)

    def end_stream(self, *, ack: int | None = None) -> None:
        """The relay's stream ends."""
        ack = self._read if ack is None else ack
        self.link.give(FrameType.DATA, offset=self.written, ack=ack, flags=Flag.FIN)

    def connect(self) -> tuple[socket.socket, SharedConnection]:
        """Open a connection, and attach a socket to it: the user's end, and the connection."""
        before = self.mux.connections
        dialed = self.side.tunnel.open(TARGET)
        assert dialed is not None

        def has_come() -> bool:
            self._receive()
            return self.mux.connections > before

        wait_until(has_come, "the request comes, perhaps behind a message of its own for what precedes it")
        self.mux.accept(dialed.stream)
        self.take()
        assert dialed.answered.wait(HANG)
        ours, user = tcp_pair()
        user.settimeout(HANG)
        self._sockets.append(user)
        dialed.attach(ours)
        return user, dialed


def relay_alone(link: Link, on_request: Callable[[RequestedConnection], None]) -> Side[RelayTunnel]:
    """A relay's side whose dialer the test plays; its thread is not started."""
    return Side(
        lambda on_event, on_idle, waits: RelayTunnel(
            shared_session(Role.RELAY),
            link,
            RelayMultiplexer(MuxLimits(), time.monotonic()),
            on_request=on_request,
            on_event=on_event,
            on_idle=on_idle,
            suspend_detector=waits,
        )
    )
