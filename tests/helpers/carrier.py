"""API Gateway, the network and the bridge, in virtual time: two WebSockets that fail in every way.

The network delays every message by its own amount (and so changes their order), loses some, doubles some, and
answers some with the gateway's own error message. WebSockets break with notice or without, and come back. The
bridge is docs/protocol.md sections 5 and 6 in its simplest form.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import BACK_OFF, MAX_MESSAGE
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.session import Outgoing, Session
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import Disconnected, End, Ended, Resumed
from tests.helpers.clock import Clock

GATEWAY_ERROR = b'{"message": "Internal server error", "connectionId":"Ab1=", "requestId":"Cd2="}'


@dataclass(frozen=True)
class Faults:
    """How bad the link is; shares are from 0 to 1, delays in seconds.

    Attributes:
        drop: Messages that vanish.
        duplicate: Messages that come twice.
        error: Messages that the gateway answers with an error of its own.
        delay: Of each message, from and to.
        attempt: Attempts to reconnect that fail.
        unheard: Attempts that succeed, and their 101 is lost.
        disconnect: ``$disconnect`` events that are lost (half as many are doubled).
        notice: Delay of ``$disconnect``, from and to.
        longest: Characters of the longest message that passes.
        too_long: What becomes of longer ones: they ``vanish``, draw the gateway's ``error``, are ``refused``
            (1009 to who sends over its WebSocket, 413 to who posts), or close their ``receiver`` with 1009.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    error: float = 0.0
    delay: tuple[float, float] = (0.01, 0.01)
    attempt: float = 0.0
    unheard: float = 0.0
    disconnect: float = 0.0
    notice: tuple[float, float] = (0.0, 0.1)
    longest: int = MAX_MESSAGE
    too_long: str = "vanish"


@dataclass(eq=False)
class Connection:
    """One WebSocket as the gateway sees it."""

    name: str
    role: Role
    epoch: int
    open: bool = True
    silent: bool = False  # the network is gone, and the gateway has not noticed


class Carrier:
    """Everything between two sessions.

    Args:
        seed: Of everything that chance decides.
        faults: How bad it is.
        clock: The time.
        sessions: Of both sides; the carrier drives their links as their tunnels would.
        epochs: Of dialer and relay at the start.

    Attributes:
        ended: What the bridge has recorded as the end; ``None`` before.
        resumes: RESUME messages that the bridge got.
        visits: Times that a side came back to a session that had ended.
    """

    def __init__(
        self, seed: int, faults: Faults, clock: Clock, sessions: dict[Role, Session], epochs: tuple[int, int]
    ) -> None:
        self.ended: Ended | None = None
        self.resumes = 0
        self.visits = 0
        self._faults = faults
        self._random = random.Random(seed)
        self._clock = clock
        self._sessions = sessions
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._lost_ends = 0
        self._names = 0
        self._epochs = dict(zip((Role.DIALER, Role.RELAY), epochs, strict=True))
        #: What each client holds, what the bridge has written down, and all there are.
        self._held: dict[Role, Connection | None] = {}
        self._known: dict[Role, Connection | None] = {}
        self._all: dict[str, Connection] = {}
        for role in sessions:
            self._held[role] = self._known[role] = self._connection(role)
        first = self._known[Role.DIALER]
        assert first
        self._target = first.name  # where the relay posts to
        self._pauses = dict.fromkeys(sessions, BACK_OFF[0])
        self._unreachable = dict.fromkeys(sessions, 0.0)

    # -- time -----------------------------------------------------------------------------------

    def later(self, after: float, action: Callable[[], None]) -> None:
        """Let something happen, ``after`` seconds from now."""
        self._order += 1
        heapq.heappush(self._events, (self._clock.now + after, self._order, action))

    def next_times(self) -> Iterable[float]:
        """When something happens next."""
        if self._events:
            yield self._events[0][0]

    def happen(self) -> None:
        """Let everything happen that is due."""
        while self._events and self._events[0][0] <= self._clock.now:
            heapq.heappop(self._events)[2]()

    # -- what a session's driver does -----------------------------------------------------------

    def send(self, role: Role, message: Outgoing) -> None:
        """One message of a session's: over its WebSocket, or (the relay's to its peer) by a post."""
        connection = self._held[role]
        assert connection, f"the {role.value} sends without a link"
        kind = decode(message.data).type
        fate = self._random.random()
        if kind == FrameType.END and self._lost_ends >= 3:
            fate = 1.0  # four in a row are not lost: then nobody could end anything
        if fate < self._faults.drop:
            self._lost_ends += kind == FrameType.END
            return
        if len(message.data) > self._faults.longest:
            self._meet_too_long(role, message)
            return
        if fate < self._faults.drop + self._faults.error:
            self._lost_ends += kind == FrameType.END
            self._post(connection, GATEWAY_ERROR)
            return
        for _copy in range(2 if self._random.random() < self._faults.duplicate else 1):
            if role is Role.RELAY and not message.to_bridge:
                target = self._all[self._target]
                self._travel(lambda target=target: self._relay_posts(target, message.data))  # type: ignore[misc]
            else:
                self._travel(lambda: self._default(connection, message.data))

    def _meet_too_long(self, role: Role, message: Outgoing) -> None:
        session, posts = self._sessions[role], role is Role.RELAY and not message.to_bridge
        match self._faults.too_long:
            case "error" if posts:
                self._travel(lambda: session.message_refused(self._clock.now))
            case "error":
                self._post(self._held[role], GATEWAY_ERROR)
            case "refused" if posts:
                self._travel(lambda: session.message_too_long(self._clock.now))
            case "refused":
                self._travel(lambda: self._close_1009(role))
            case "receiver":
                peer = Role.DIALER if role is Role.RELAY else Role.RELAY
                self._travel(lambda: self._close_1009(peer))

    def _close_1009(self, role: Role) -> None:
        if self._held[role] is not None:
            self._sessions[role].message_too_long(self._clock.now)
            self.cut(role)

    def on_peer_moved(self, role: Role, connection: str) -> None:
        """The session says where its peer is now."""
        if role is Role.RELAY:
            self._target = connection

    def on_drop(self, role: Role) -> None:
        """The session found its link dead, and the driver drops it."""
        self._lose(role)

    def close(self, role: Role) -> None:
        """The session is over; its WebSocket is closed."""
        held, self._held[role] = self._held[role], None
        if held:
            self._shut(held)

    # -- what goes wrong ------------------------------------------------------------------------

    def change(self, faults: Faults) -> None:
        """From now on it is this bad."""
        self._faults = faults

    def cut(self, role: Role, outage: float = 0.0) -> None:
        """The WebSocket breaks, and both its ends notice; the gateway is out of reach for ``outage`` s."""
        self._unreachable[role] = max(self._unreachable[role], self._clock.now + outage)
        held = self._held[role]
        if held:
            self._shut(held)
            self._lose(role)

    def silence(self, role: Role, outage: float = 0.0) -> None:
        """The network of the WebSocket is gone, and nobody notices."""
        self._unreachable[role] = max(self._unreachable[role], self._clock.now + outage)
        held = self._held[role]
        if held:
            held.silent = True

    def _lose(self, role: Role) -> None:
        self._held[role] = None
        gone = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
        self._sessions[role].link_lost(gone, "the test cut it", self._clock.now)
        pause = self._pauses[role] = self._pauses[role] * 2 if self._sessions[role].flapping else BACK_OFF[0]
        if self._sessions[role].flapping:
            self.later(min(BACK_OFF[1], pause), lambda: self._attempt(role, pause))
        else:
            self._attempt(role, pause)

    def _attempt(self, role: Role, pause: float) -> None:
        """As ``Tunnel._reconnect`` does."""
        session = self._sessions[role]
        if session.link_deadline is None or self._held[role]:
            return
        epoch = session.begin_attempt()
        failing = self._random.random() < self._faults.attempt
        if failing or self._clock.now < self._unreachable[role]:
            again = pause * self._random.uniform(0.5, 1.5)
            self._travel(lambda: self.later(again, lambda: self._attempt(role, min(BACK_OFF[1], pause * 2))))
        else:
            self._travel(lambda: self._connect(role, epoch, pause))

    def _connect(self, role: Role, epoch: int, pause: float) -> None:
        """``$connect`` of an attempt to resume; one whose session has ended is admitted to hear that."""
        if epoch <= self._epochs[role]:
            self._travel(lambda: self._sessions[role].link_refused(Code.UNKNOWN_SESSION, "HTTP status 409"))
            return
        self._epochs[role] = epoch
        self.visits += self.ended is not None
        fresh = self._known[role] = self._connection(role)
        if self._random.random() < self._faults.unheard:
            self.later(self._random.uniform(0, 30), lambda: self._shut(fresh))
            self._travel(lambda: self._attempt(role, min(BACK_OFF[1], pause * 2)))
        else:
            self._travel(lambda: self._on_connect(role, fresh))

    def _on_connect(self, role: Role, fresh: Connection) -> None:
        session = self._sessions[role]
        if session.link_deadline is None:
            self._shut(fresh)
            return
        self._held[role] = fresh
        session.link_restored(self._clock.now)

    def _connection(self, role: Role) -> Connection:
        self._names += 1
        made = Connection(f"c{self._names}=", role, self._epochs[role])
        self._all[made.name] = made
        return made

    def _shut(self, connection: Connection) -> None:
        """The gateway notices that a connection is gone: ``$disconnect``, sooner or later, or never."""
        if not connection.open:
            return
        connection.open = False
        fate = self._random.random()
        if fate < self._faults.disconnect:
            return
        for _copy in range(2 if fate > 1 - self._faults.disconnect / 2 else 1):
            self.later(self._random.uniform(*self._faults.notice), lambda: self._on_disconnect(connection))

    # -- the gateway and the bridge -------------------------------------------------------------

    def _travel(self, arrive: Callable[[], None]) -> None:
        self.later(self._random.uniform(*self._faults.delay), arrive)

    def _post(self, to: Connection | None, text: bytes) -> bool:
        """``PostToConnection``: whether the connection is open. Silent ones count as such."""
        if to is None or not to.open:
            return False
        self._travel(lambda: self._arrive(to, text))
        return True

    def _arrive(self, to: Connection, text: bytes) -> None:
        if self._held[to.role] is to and not to.silent:
            self._sessions[to.role].receive_message(text, self._clock.now)

    def _relay_posts(self, target: Connection, text: bytes) -> None:
        if not self._post(target, text):
            self._travel(lambda: self._tell_relay_410())

    def _tell_relay_410(self) -> None:
        if self._sessions[Role.RELAY].state is not State.ENDED:
            self._sessions[Role.RELAY].peer_unknown(self._clock.now)

    def _default(self, sender: Connection, text: bytes) -> None:
        if sender.silent:
            return
        frame = decode(text)
        peer = Role.RELAY if sender.role is Role.DIALER else Role.DIALER
        if frame.type == FrameType.END:
            self._end(sender.role, End.decode(frame.payload))
        elif self.ended:
            self._tell_ended(sender)
        elif frame.type == FrameType.RESUME:
            self._resume(sender)
        elif frame.type == FrameType.PROBE:
            self._post(sender, encode(Frame(FrameType.PROBED, payload=frame.payload)))
        elif not self._post(self._known[peer], text):
            self._known[peer] = None
            self._tell(sender, FrameType.DISCONNECTED, Disconnected(peer.wire, self._epochs[peer] & 0xFFFF))

    def _resume(self, sender: Connection) -> None:
        self.resumes += 1
        if self._known[sender.role] is not sender:
            return
        for other in self._all.values():
            if other.role is sender.role and other is not sender:
                self._shut(other)
        dialer, relay = self._known[Role.DIALER], self._known[Role.RELAY]
        told = Resumed(
            self._epochs[Role.DIALER],
            self._epochs[Role.RELAY],
            dialer.name if dialer else None,
            relay.name if relay else None,
        )
        for role in self._sessions:
            if self._random.random() >= self._faults.drop:
                self._tell(self._known[role], FrameType.RESUMED, told)

    def _on_disconnect(self, gone: Connection) -> None:
        if self._known[gone.role] is gone:
            self._known[gone.role] = None
        other = Role.RELAY if gone.role is Role.DIALER else Role.DIALER
        if self.ended is None:  # and of an old connection as well, if it is that late
            self._tell(
                self._known[other], FrameType.DISCONNECTED, Disconnected(gone.role.wire, gone.epoch & 0xFFFF)
            )

    def _end(self, sender: Role, end: End) -> None:
        if self.ended is None:
            dialer, relay = (end.sent, end.received) if sender is Role.DIALER else (end.received, end.sent)
            self.ended = Ended(end.code, dialer, relay)
        for role in self._sessions:
            if self._random.random() >= self._faults.drop:
                self._tell_ended(self._known[role])

    def _tell_ended(self, to: Connection | None) -> None:
        assert self.ended is not None
        self._tell(to, FrameType.ENDED, self.ended)

    def _tell(self, to: Connection | None, kind: FrameType, what: Disconnected | Ended | Resumed) -> None:
        self._post(to, encode(Frame(kind, payload=what.encode())))
