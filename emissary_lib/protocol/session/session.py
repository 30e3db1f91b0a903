"""One side of one tunnel, as a machine without I/O (docs/protocol.md).

A session is driven by three sources: the user (``send_data``, ``send_eof``, ``abort``, ``consume``), the
link (``receive_message``, ``link_lost``, ``link_restored``) and the clock (``handle_timeout``). It never
blocks, reads no clock and draws no random number. After any call the driver sends what ``messages_to_send``
gives, takes what ``next_event`` tells, and calls ``handle_timeout`` no later than ``next_timeout``.
"""

from __future__ import annotations

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import DIALER_FLIGHT, RELAY_FLIGHT, STEADY_AFTER
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.config import Outgoing as Outgoing
from emissary_lib.protocol.session.config import SessionConfig as SessionConfig
from emissary_lib.protocol.session.events import Event, LinkDead, MessagesShortened
from emissary_lib.protocol.session.goaway import GoAwayTimer
from emissary_lib.protocol.session.incoming import FrameReceiver
from emissary_lib.protocol.session.keepalive import DialerKeepalive, KeepaliveAction, RelayKeepalive
from emissary_lib.protocol.session.lifecycle import Lifecycle
from emissary_lib.protocol.session.outgoing import ConnectionNotice, FrameBuilder
from emissary_lib.protocol.session.resumption import Resumption
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.congestion import CongestionWindow
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.stream.duplex import Duplex
from emissary_lib.protocol.user_loss import UserLoss
from emissary_lib.protocol.wire.frames import Flag, FrameType, decode
from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED, Connections, GoAway


class Session:
    """The protocol state of one tunnel on one side.

    Attributes:
        role: Who we are.
        counters: What there is to count.
        connections: How many connections the relay of a shared session has opened, for END; ``None`` in every
            other session. :meth:`tell_connections` sets it.

    Thread safety: none; the driver serialises every call with one lock.
    """

    def __init__(self, role: Role, config: SessionConfig, *, now: float) -> None:
        self.role = role
        self.counters = Counters()
        flight = config.flight or (DIALER_FLIGHT if role is Role.DIALER else RELAY_FLIGHT)
        self._duplex = Duplex(config.streams, CongestionWindow(*flight), config.gate, self.counters)
        if config.early:
            start = config.streams.receive_start
            self._duplex.receive(start, config.early, fin=False, ack_now=False, now=now)
        self._outgoing = FrameBuilder(
            self._duplex, self.counters, opened=config.opened, first=config.streams.send_start
        )
        self._duplex.measures_rtt = not self._outgoing.opening
        self._resumption = Resumption(
            role, own_epoch=config.own_epoch, peer_epoch=config.peer_epoch, grace=config.grace
        )
        self._watch: DialerKeepalive | RelayKeepalive | None = None
        if config.keepalive:
            self._watch = DialerKeepalive(config.keepalive, now)
        elif config.probing:
            self._watch = RelayKeepalive(config.probing, now)
        self._goaway = None if config.expires_at is None else GoAwayTimer(config.expires_at)
        shared = config.opened is not None and bool(config.opened.capabilities & CAPABILITY_SHARED)
        self.connections: int | None = 0 if shared else None
        self._notice = ConnectionNotice()
        self._probe_due = False
        self._progress = 0  # of the streams, when our WebSocket of now was made
        self._lost_by = ""  # why our last WebSocket went
        self._lifecycle = Lifecycle(role, self._duplex)
        self._duplex.on_short = lambda: self._lifecycle.tell(MessagesShortened())
        self._incoming = FrameReceiver(
            role,
            duplex=self._duplex,
            outgoing=self._outgoing,
            resumption=self._resumption,
            lifecycle=self._lifecycle,
            watch=self._watch,
            counters=self.counters,
        )

    # -- the user -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._lifecycle.state

    @property
    def send_room(self) -> int:
        """Bytes that ``send_data`` would take now; 0 after ``send_eof``, ``user_lost`` or the end."""
        return self._duplex.sender.room if self._has_user else 0

    @property
    def alive(self) -> bool:
        """Whether the user's bytes still move: neither ended nor cut off."""
        return self._lifecycle.alive

    @property
    def buffered(self) -> tuple[int, int]:
        """Bytes held to send and received, each at most the capacity."""
        return self._duplex.sender.buffered, self._duplex.receiver.buffered

    @property
    def unsent(self) -> int:
        """Bytes that ``send_data`` took and that were never sent."""
        return self._duplex.sender.unsent

    @property
    def may_send(self) -> bool:
        """Whether both have a connection, as far as is known here: what is sent can arrive."""
        return self._resumption.may_send

    @property
    def acked(self) -> int:
        """How much of our stream has arrived at the peer, its FIN included: it grows while bytes move."""
        return self._duplex.sender.acked

    @property
    def sent(self) -> int:
        """How much of our stream was sent at least once, its FIN included."""
        return self._duplex.sender.next_offset

    @property
    def received(self) -> int:
        """How much of the peer's stream has arrived in order, its FIN included."""
        return self._duplex.receiver.ack

    @property
    def progress(self) -> int:
        """Grows while our bytes move, from here to the peer and from there on to its user."""
        return self._duplex.sender.acked + self._duplex.sender.edge

    @property
    def written(self) -> int:
        """Position behind the last byte that ``send_data`` took."""
        return self._duplex.sender.written

    @property
    def end_acked(self) -> bool:
        """Whether the peer has acknowledged all that was written and the end behind it."""
        return self._duplex.sender.acked > self._duplex.sender.written

    @property
    def undelivered(self) -> int:
        """Bytes that ``send_data`` took and that have not arrived, as far as is known; also after a cut."""
        return self._duplex.sender.undelivered

    @property
    def receive_ended(self) -> bool:
        """Whether the peer's stream is complete and was consumed to its end: EOF for the reader."""
        return self._duplex.receiver.drained

    @property
    def end_waits(self) -> bool:
        """Whether the peer's stream is complete, and ``release_end`` is waited for to acknowledge its end."""
        receiver = self._duplex.receiver
        return self.alive and receiver.complete and not receiver.ended

    def release_end(self, now: float) -> None:
        """The user's kernel has all of the peer's stream, so that its end may be acknowledged."""
        self._duplex.release_end(now)
        self._lifecycle.end_if_complete(now)

    @property
    def send_ended(self) -> bool:
        """Whether ``send_eof`` was called."""
        return self._duplex.sender.eof

    @property
    def waits_to_send(self) -> bool:
        """Whether bytes wait to be sent: for credit, for the cap, or for a place in the shared budget."""
        return self.alive and self._duplex.sender.waiting

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, the peer's delay of acknowledgements included."""
        return self._duplex.rtt

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which a message that is not acknowledged is sent again for the first time."""
        return self._duplex.loss_noticed_after

    def finish_opening(self) -> None:
        """The dialer has read the SOCKS5 reply: from now on its bytes travel as DATA."""
        if self._lifecycle.finish_opening():
            self._outgoing.opening = False
            self._duplex.measures_rtt = True

    def send_data(self, data: bytes) -> int:
        """Take bytes to send; returns how many, from the front. The rest has to be offered again."""
        return self._duplex.sender.write(data) if self._has_user else 0

    def show(self) -> None:
        """What :meth:`send_data` has taken so far was shown with the upgrade: the relay may have it (3.7)."""
        self._duplex.sender.show()

    def send_eof(self) -> None:
        """Half-close: no more bytes will be sent. Idempotent."""
        if self._has_user:
            self._duplex.sender.write_eof()

    def abort(self, code: Code, reason: str, now: float, *, unread: int = 0) -> None:
        """Reset both directions; bytes not yet sent or read are dropped. Does nothing once it is ending.

        Args:
            code: Why.
            reason: The same in words.
            now: The time.
            unread: Bytes of the user's that ``send_data`` was never given; the peer is told of them.
        """
        if self.alive:
            self._cut_off_here(code, reason, now, unread=unread)
            self._duplex.stop(drop_received=True)

    def user_lost(self, code: Code, reason: str, now: float, *, unread: int = 0) -> None:
        """Our user's connection broke: as :meth:`abort`, once all that ``send_data`` was given has arrived.

        Or once no more of it does (docs/protocol.md rule 6-21). Nothing more is to be consumed.
        """
        if self.alive and not self._lifecycle.user_loss:
            acked = self._duplex.sender.acked
            self._lifecycle.user_loss = UserLoss(code, reason, unread, acked, now)
            self._end_if_user_lost(now)

    @property
    def _has_user(self) -> bool:
        return self.alive and not self._lifecycle.user_loss

    def _end_if_user_lost(self, now: float) -> None:
        loss = self._lifecycle.user_loss
        if loss and self.alive:
            loss.look(self._duplex.sender.acked, now, paused=not self._resumption.may_send)
            if not self.undelivered or now >= loss.until:
                self.abort(loss.code, loss.reason, now, unread=loss.unread)

    def ping(self) -> None:
        """Ask for a sign of life with the next messages: the peer's PONG measures the way there and back."""
        if self.alive:
            self._outgoing.ping()

    def tell_connections(self, opened: int, open: int, refused: int, now: float) -> None:
        """The relay of a shared session has so many connections now: the bridge is told (section 11.7).

        At once, but not within ``CONNECTIONS_INTERVAL`` of the last time; only the newest counts. Call it
        whenever one of them has changed.

        Args:
            opened: Connections answered with 200 so far.
            open: Of these, how many are not over.
            refused: Requests answered or declined otherwise so far.
            now: The time.

        Raises:
            LocalProtocolError: The session is not a relay's, or not shared.
        """
        if self.connections is None:
            raise LocalProtocolError("only the relay of a shared session has connections to tell of")
        self.connections = opened
        self._notice.note(Connections(opened, open, refused), now)

    def on_suspend(self) -> None:
        """The host slept: for how long nothing was heard, no timer tells. The dialer asks at once."""
        if self._watch:
            self._watch.on_suspend()

    def peek(self) -> memoryview:
        """The next received bytes, in order; empty when there are none now."""
        return self._duplex.receiver.peek()

    def consume(self, count: int, now: float) -> None:
        """The user took ``count`` bytes of what ``peek`` showed; frees window."""
        self._duplex.consume(count, now)

    # -- our link -------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """What frames carry (docs/protocol.md section 5.1)."""
        return self._resumption.generation

    @property
    def link_deadline(self) -> float | None:
        """Until when to try to reconnect, on the clock of ``now``; ``None``: not, or not any more."""
        if self.state is State.ENDED or self._resumption.link_deadline is None:
            return None
        if ending := self._lifecycle.ending:
            return ending.wait_ends
        if self._goaway:
            return min(self._resumption.link_deadline, self._goaway.expires_at)
        return self._resumption.link_deadline

    @property
    def flapping(self) -> bool:
        """Whether our last WebSocket was lost soon and moved no byte, so that the back-off has to go on."""
        return self._resumption.flapping

    def link_lost(self, code: Code, reason: str, now: float) -> None:
        """Our WebSocket is gone.

        ``code`` and ``reason`` are for a session that was still opening; for any other, ``link_deadline``
        now tells how long to try to reconnect.
        """
        ending = self._lifecycle.ending
        if self.state is State.OPENING:
            self._lifecycle.cut_off(code, reason)
        elif self.state is State.OPEN and self._resumption.link_up:
            self.counters.link_losses += 1
            self._lost_by = reason
            moved = self._duplex.progress > self._progress
            self._resumption.link_lost(now, moved=moved, idle=self._duplex.outstanding_since is None)
            self._end_if_user_lost(now)  # who waits for its bytes has to know that they cannot arrive now
        elif ending and ending.code is Code.OK:
            self._lifecycle.finish(Code.OK)  # all bytes arrived, and the peer's DISCONNECTED tells it as much
        elif ending:
            self._resumption.link_lost(now)
            self._wait_to_say_why()

    def begin_attempt(self) -> int:
        """The epoch of the next attempt to reconnect; each attempt has its own."""
        return self._resumption.begin_attempt()

    def link_restored(self, now: float) -> None:
        """An attempt to reconnect has succeeded."""
        self.counters.resumes += 1
        self._resumption.link_restored(now)
        self._progress = self._duplex.progress
        if ending := self._lifecycle.ending:
            ending.resume(now)

    def link_refused(self, code: Code, reason: str) -> None:
        """The bridge will not have us back: a definite end."""
        self._lifecycle.cut_off(code, reason)

    def message_refused(self, now: float) -> None:
        """A message was not accepted by the carrier (429, 5xx, no answer): as a gateway error."""
        if self.alive:
            self._duplex.message_refused(now)

    def message_too_long(self, now: float) -> None:
        """A message was not accepted because of its length: from now on they are short (section 4.8)."""
        if self.alive and not self.short:
            self._duplex.message_too_long(now)

    def throttled(self) -> None:
        """The gateway has cut our WebSocket because too much was sent: go on with one message at a time."""
        self._duplex.throttled()

    @property
    def short(self) -> bool:
        """Whether messages of more than one fragment are known not to pass."""
        return self._duplex.size.short

    def peer_unknown(self, now: float) -> None:
        """A post met 410: the peer's connection may be gone, or have been replaced. Ask the bridge."""
        if self.alive:
            self._duplex.message_refused(now)
            self._resumption.ask(now)

    # -- messages in ----------------------------------------------------------------------------

    def receive_message(self, message: bytes, now: float) -> None:
        """Take one text message. Never raises for what the peer sent: a broken rule ends the session."""
        if self.state is State.ENDED:
            return
        self.counters.messages_received += 1
        if message.startswith(b"{"):
            self._duplex.message_refused(now)
            return
        try:
            self._incoming.receive(decode(message), now)
        except RemoteProtocolError as exc:
            self._cut_off_here(exc.code, str(exc), now)
        self._end_if_user_lost(now)

    # -- the clock ------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` has to be called, on the clock of ``now``; ``None``: not on its own."""
        if self.state is State.ENDED:
            return None
        if ending := self._lifecycle.ending:
            return ending.next_timeout if self._resumption.link_up else ending.wait_ends
        times = [self._resumption.next_timeout()]
        if self._resumption.link_up:  # the bridge hears us then, wherever the peer is
            times.append(self._notice.next_timeout())
        if self._resumption.may_send:
            times.append(self._duplex.next_timeout())
            if loss := self._lifecycle.user_loss:
                times.append(loss.until)
        if self._watch:
            times.append(self._watch.next_timeout(self._duplex.outstanding_since, asking=self._may_ask))
        if self._goaway:
            times.append(self._goaway.next_timeout(heard=self._resumption.may_send))
        return min((at for at in times if at is not None), default=None)

    @property
    def _may_ask(self) -> bool:
        """Whether silence is asked about: an opening, and a connection that is away, have their deadline."""
        return self.state is State.OPEN and self._resumption.may_send

    def handle_timeout(self, now: float) -> None:
        """Do what the clock makes due; harmless when nothing is. ``messages_to_send`` has the outcome."""
        if not self.alive:
            ending = self._lifecycle.ending
            if ending and ending.over(now, heard=self._resumption.link_up):
                self._lifecycle.finish(ending.code)
            return
        if self._resumption.may_send:
            self._duplex.handle_timeout(now)
        if self._watch:
            self._beat(self._watch, now)
        expired_code = self._resumption.expired_code(now)
        if expired_code is not None:
            self._give_up(expired_code, now)
        if self._goaway and self._goaway.over(now):
            self._cut_off_here(Code.RELAY_DEADLINE, MEANINGS[Code.RELAY_DEADLINE], now)
        self._end_if_user_lost(now)

    def _cut_off_here(self, code: Code, reason: str, now: float, *, unread: int = 0) -> None:
        self._lifecycle.abort(code, reason, now, unread=unread)
        self._wait_to_say_why()

    def _wait_to_say_why(self) -> None:
        """Our link is down, and the session is ending: how long a reason waits for another (section 6)."""
        ending, link_deadline = self._lifecycle.ending, self._resumption.link_deadline
        if ending is None or link_deadline is None:
            return
        limits = [link_deadline]
        if self._goaway:
            limits.append(self._goaway.expires_at)
        if isinstance(self._watch, RelayKeepalive):
            limits.append(self._watch.orphaned_at)
        ending.wait_for_link(min(limits))

    def _give_up(self, code: Code, now: float) -> None:
        reason, lost = MEANINGS[code], not self._resumption.link_up
        if lost and self._resumption.flap_count:
            reason += (
                f": {self._resumption.flap_count + 1} connections in a row were accepted and then lost "
                f"within {STEADY_AFTER:g} s, the last one thus: {self._lost_by}; see what closes them, "
                "a proxy on the way or the gateway"
            )
        self._lifecycle.abort(code, reason, now)
        if lost:
            self._lifecycle.finish(code)  # nobody can be told

    def _beat(self, watch: DialerKeepalive | RelayKeepalive, now: float) -> None:
        match watch.handle_timeout(now, self._duplex.outstanding_since, asking=self._may_ask):
            case KeepaliveAction.PING:
                self._outgoing.ping()
            case KeepaliveAction.PROBE:
                self._probe_due = True
            case KeepaliveAction.LINK_DEAD:
                self._lifecycle.tell(LinkDead())
                self.link_lost(Code.LINK_DEAD, MEANINGS[Code.LINK_DEAD], now)
            case KeepaliveAction.PEER_DEAD:
                self._give_up(Code.DIALER_GONE, now)

    # -- messages out ---------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next thing that happened, in order; ``None`` when all were taken."""
        return self._lifecycle.next_event()

    def messages_to_send(self, now: float) -> list[Outgoing]:
        """Everything that may be sent now, drained. The order in which they are sent does not matter."""
        if self.state is State.ENDED or not self._resumption.link_up:
            return []
        messages: list[Outgoing] = []
        if self.alive and self._resumption.may_send:
            remaining = self._goaway.remaining(now) if self._goaway else 0
            messages += self._outgoing.to_peer(self.generation, remaining, now)
            if messages and self._watch:
                self._watch.on_sent(now)
        messages += self._bridge_messages(now)  # behind OPENED, which is the first a dialer should hear
        self.counters.messages_sent += len(messages)
        return messages

    def _bridge_messages(self, now: float) -> list[Outgoing]:
        if ending := self._lifecycle.ending:
            due = ending.due(now)
            heard = not self._resumption.peer_away
            if not due:
                return []
            return self._outgoing.closing_frames(
                ending, self.generation, heard=heard, connections=self.connections
            )
        messages = []
        if self._resumption.ask_due(now):
            messages.append(self._outgoing.resume(self.generation, now))
        if self._probe_due:
            self._probe_due = False
            messages.append(self._outgoing.control(FrameType.PROBE, self.generation, bytes(8)))
        if self._goaway and self._resumption.may_send and self._goaway.announcement(now):
            away = GoAway(Code.RELAY_DEADLINE, self._goaway.remaining(now))
            messages.append(self._outgoing.control(FrameType.GOAWAY, self.generation, away.encode()))
        if (counts := self._notice.take(now)) is not None:
            messages.append(
                self._outgoing.control(
                    FrameType.CONNECTIONS, self.generation, counts.encode(), Flag.IGNORABLE
                )
            )
        return messages
