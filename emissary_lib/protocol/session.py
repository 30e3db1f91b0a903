"""One side of one tunnel, as a machine without I/O (docs/protocol.md).

A session is driven by three sources: the user (``send_data``, ``send_eof``, ``abort``, ``consume``), the
link (``receive_message``, ``link_lost``) and the clock (``handle_timeout``). It never blocks, reads no clock
and draws no random number. After any call the driver sends what ``messages_to_send`` gives, takes what
``next_event`` tells, and calls ``handle_timeout`` no later than ``next_timeout``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import DIALER_FLIGHT, END_INTERVAL, MAX_PAYLOAD, RELAY_FLIGHT
from emissary_lib.protocol.counters import Counters
from emissary_lib.protocol.duplex import Duplex, StreamConfig
from emissary_lib.protocol.ending import Ending
from emissary_lib.protocol.errors import FlowControlError, RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.events import Aborted, Event, Finished, GoingAway, RelayOpened
from emissary_lib.protocol.flight import FlightCap, FlightGate, OpenGate
from emissary_lib.protocol.frames import Flag, Frame, FrameType, decode, encode, newer
from emissary_lib.protocol.keepalive import Beat, Keepalive, KeepaliveTimes
from emissary_lib.protocol.payloads import (
    OPENED_OVERHEAD,
    Disconnected,
    End,
    Ended,
    GoAway,
    Opened,
    Reset,
    decode_ranges,
    encode_ranges,
)
from emissary_lib.protocol.states import Side, State, Step, step


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session is built with.

    Attributes:
        streams: Sizes and starting positions.
        keepalive: The dialer's watch over its peer; ``None`` for no watch (the relay).
        flight: Messages in flight: at the start, at most; ``None`` for the side's default.
        generation: The one that frames carry at first.
        opened: The relay's parameters, sent with its first byte; ``None`` for the dialer.
        expires_at: The relay's end, on the clock of ``now``; OPENED tells what remains until then.
        early: What has already come of the peer's stream, from ``streams.receive_start`` on.
        gate: A budget of messages in flight shared with other sessions.
    """

    streams: StreamConfig = field(default_factory=StreamConfig)
    keepalive: KeepaliveTimes | None = None
    flight: tuple[int, int] | None = None
    generation: int = 1
    opened: Opened | None = None
    expires_at: float = 0.0
    early: bytes = b""
    gate: FlightGate = field(default_factory=OpenGate)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One text message to send; ``to_bridge`` when ``$default`` handles it, else it is for the peer."""

    text: str
    to_bridge: bool


class Session:
    """The protocol state of one tunnel on one side.

    Thread safety: none; the driver serialises every call with one lock.
    """

    def __init__(self, side: Side, config: SessionConfig, *, now: float) -> None:
        self.side = side
        self.state = State.OPENING if side is Side.CLIENT else State.OPEN
        self.generation = config.generation
        self.counters = Counters()
        flight = config.flight or (DIALER_FLIGHT if side is Side.CLIENT else RELAY_FLIGHT)
        self._duplex = Duplex(config.streams, FlightCap(*flight), config.gate, self.counters)
        if config.early:
            start = config.streams.receive_start
            self._duplex.receive(start, config.early, fin=False, ack_now=False, now=now)
        self._first_sent = config.streams.send_start
        self._keepalive = Keepalive(config.keepalive, now) if config.keepalive else None
        self._opened = config.opened
        self._expires_at = config.expires_at
        self._told_opened = False
        self._ending: Ending | None = None
        self._ping_due = False
        self._pongs: deque[bytes] = deque(maxlen=4)
        self._events: deque[Event] = deque()

    # -- the user -------------------------------------------------------------------------------

    @property
    def send_room(self) -> int:
        """Bytes that ``send_data`` would take now; 0 after ``send_eof`` or the end."""
        return self._duplex.sender.room if self.alive else 0

    @property
    def alive(self) -> bool:
        """Whether the user's bytes still move: neither ended nor cut off."""
        return self.state in (State.OPENING, State.OPEN)

    @property
    def buffered(self) -> tuple[int, int]:
        """Bytes held to send and received, each at most the capacity."""
        return self._duplex.sender.buffered, self._duplex.receiver.buffered

    @property
    def receive_ended(self) -> bool:
        """Whether the peer's stream is complete and was consumed to its end: EOF for the reader."""
        return self._duplex.receiver.drained

    @property
    def send_ended(self) -> bool:
        """Whether ``send_eof`` was called."""
        return self._duplex.sender.eof

    @property
    def waits_to_send(self) -> bool:
        """Whether bytes wait to be sent: for credit, for the cap, or for a place in the shared budget."""
        return self.alive and self._duplex.sender.waiting

    @property
    def round_trip(self) -> float | None:
        """Smoothed round-trip time in seconds, the peer's delay of acknowledgements included."""
        return self._duplex.round_trip

    def established(self) -> None:
        """The dialer has read the SOCKS5 reply: from now on its bytes travel as DATA."""
        if self.state is State.OPENING:
            self._step(Step.ESTABLISHED)

    def send_data(self, data: bytes) -> int:
        """Take bytes to send; returns how many, from the front. The rest has to be offered again."""
        return self._duplex.sender.write(data) if self.alive else 0

    def send_eof(self) -> None:
        """Half-close: no more bytes will be sent. Idempotent."""
        if self.alive:
            self._duplex.sender.write_eof()

    def abort(self, code: Code, reason: str, now: float) -> None:
        """Reset both directions; unsent bytes are dropped. Does nothing once the session is ending."""
        self._abort(code, reason, now, tell_peer=True)

    def peek(self) -> memoryview:
        """The next received bytes, in order; empty when there are none now."""
        return self._duplex.receiver.peek()

    def consume(self, count: int, now: float) -> None:
        """The user took ``count`` bytes of what ``peek`` showed; frees window."""
        self._duplex.consume(count, now)

    # -- the link -------------------------------------------------------------------------------

    def receive_message(self, text: str, now: float) -> None:
        """Take one text message. Never raises for what the peer sent: a broken rule ends the session."""
        if self.state is State.ENDED:
            return
        self.counters.messages_received += 1
        if text.startswith("{"):
            self._duplex.message_refused(now)
            return
        try:
            self._receive_frame(decode(text), now)
        except UnsupportedVersionError as exc:
            self._abort(Code.UNSUPPORTED_VERSION, str(exc), now, tell_peer=True)
        except FlowControlError as exc:
            self._abort(Code.FLOW_CONTROL_ERROR, str(exc), now, tell_peer=True)
        except RemoteProtocolError as exc:
            self._abort(Code.PROTOCOL_ERROR, str(exc), now, tell_peer=True)

    def message_refused(self, now: float) -> None:
        """A message was not accepted by the carrier (429, 5xx, no answer): as a gateway error."""
        if self.alive:
            self._duplex.message_refused(now)

    def link_lost(self, code: Code, reason: str) -> None:
        """Our own WebSocket is gone: the session cannot go on."""
        if self.alive:
            self._events.append(Aborted(code, reason))
        self._finish(self._ending.code if self._ending else code)

    def _receive_frame(self, frame: Frame, now: float) -> None:
        if newer(frame.generation, self.generation):
            self.generation = frame.generation
        if self._keepalive:
            self._keepalive.heard(now)
        match frame.type:
            case FrameType.DATA | FrameType.OPENING:
                self._receive_stream(frame, frame.payload, now)
            case FrameType.OPENED:
                parameters, data = Opened.decode(frame.payload)
                if not self._told_opened:
                    self._told_opened = True
                    self._events.append(RelayOpened(parameters))
                self._receive_stream(frame, data, now)
            case FrameType.ACK:
                self._receive_position(frame, decode_ranges(frame.payload, ack=frame.ack), now)
            case FrameType.PING:
                self._receive_position(frame, [], now)
                self._pongs.append(frame.payload[:8])
            case FrameType.PONG:
                self._receive_position(frame, [], now)
            case FrameType.RESET:
                self._receive_reset(Reset.decode(frame.payload), now)
            case FrameType.ENDED:
                self._receive_ended(Ended.decode(frame.payload))
            case FrameType.DISCONNECTED:
                self._receive_disconnected(Disconnected.decode(frame.payload), now)
            case FrameType.GOAWAY:
                away = GoAway.decode(frame.payload)
                self._events.append(GoingAway(away.code, away.remaining))
            case _:
                if not frame.flags & Flag.IGNORABLE:
                    raise RemoteProtocolError(f"frame type {frame.type} is not for the {self.side.value}")

    def _receive_stream(self, frame: Frame, data: bytes, now: float) -> None:
        if not self.alive:
            return
        self._duplex.acknowledge(frame.ack, frame.window, [], now)
        fin, ack_now = bool(frame.flags & Flag.FIN), bool(frame.flags & Flag.ACK_NOW)
        self._duplex.receive(frame.offset, data, fin=fin, ack_now=ack_now, now=now)
        self._end_if_complete(now)

    def _receive_position(self, frame: Frame, ranges: list[tuple[int, int]], now: float) -> None:
        if self.alive:
            self._duplex.acknowledge(frame.ack, frame.window, ranges, now)
            self._end_if_complete(now)

    def _receive_reset(self, reset: Reset, now: float) -> None:
        if not self.alive:
            return
        self._events.append(Aborted(reset.code, reset.reason or MEANINGS[reset.code]))
        # The peer sends END itself; ours follows only if no ENDED comes of that. What arrived before the
        # reset is still the user's.
        ending = Ending.begin(reset.code, reset.reason, now, tell_peer=False, delay=END_INTERVAL)
        self._begin_ending(Step.ABORTED_BY_PEER, ending)
        self._duplex.stop(drop_received=False)

    def _receive_ended(self, ended: Ended) -> None:
        if self._ending:
            self._finish(self._ending.code)
        elif ended.code is Code.OK and self._agrees(ended):
            self._finish(Code.OK)
        else:
            code = ended.code or Code.INCOMPLETE
            self._events.append(Aborted(code, ended.reason or MEANINGS[code]))
            self._finish(code)

    def _agrees(self, ended: Ended) -> bool:
        """Whether the bridge's count of both streams is ours, so that nothing is missing."""
        ours = (self._duplex.sender.next_offset, self._duplex.receiver.ack)
        told = (ended.dialer, ended.relay) if self.side is Side.CLIENT else (ended.relay, ended.dialer)
        whole = self._duplex.receiver.complete and self.send_ended and not self._duplex.sender.unsent
        return whole and ours == told

    def _receive_disconnected(self, gone: Disconnected, now: float) -> None:
        if gone.role != self.side.role:
            self.peer_gone(now)

    def peer_gone(self, now: float) -> None:
        """The peer's WebSocket is gone."""
        if not self.alive:
            return
        if self.side is Side.RELAY and self._duplex.receiver.complete:
            # The dialer had ended its own stream and left: nobody is there to acknowledge ours.
            ending = Ending.begin(Code.OK, "the dialer left", now, tell_peer=False)
            self._begin_ending(Step.STREAMS_COMPLETE, ending)
            return
        code = Code.RELAY_GONE if self.side is Side.CLIENT else Code.DIALER_GONE
        self._abort(code, MEANINGS[code], now, tell_peer=False)

    # -- the clock ------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` has to be called, on the clock of ``now``; ``None``: not on its own."""
        if self.state is State.ENDED:
            return None
        if self._ending:
            return self._ending.next_timeout
        times = [self._duplex.next_timeout()]
        if self._watches:
            times.append(self._watches.next_timeout(self._duplex.outstanding_since))
        return min((at for at in times if at is not None), default=None)

    @property
    def _watches(self) -> Keepalive | None:
        """The keepalive, while it counts: an opening has its own deadline."""
        return self._keepalive if self.state is State.OPEN else None

    def handle_timeout(self, now: float) -> None:
        """Do what the clock makes due; harmless when nothing is. ``messages_to_send`` has the outcome."""
        if self._ending and self.state is not State.ENDED:
            if self._ending.over(now):
                self._finish(self._ending.code)
        elif self.alive:
            self._duplex.handle_timeout(now)
            if self._watches:
                self._beat(self._watches, now)

    def _beat(self, keepalive: Keepalive, now: float) -> None:
        match keepalive.handle_timeout(now, self._duplex.outstanding_since):
            case Beat.PING:
                self._ping_due = True
            case Beat.DEAD:
                self._abort(Code.LINK_DEAD, MEANINGS[Code.LINK_DEAD], now, tell_peer=True)

    # -- output ---------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next thing that happened, in order; ``None`` when all were taken."""
        return self._events.popleft() if self._events else None

    def messages_to_send(self, now: float) -> list[Outgoing]:
        """Everything that may be sent now, drained. The order in which they are sent does not matter."""
        if self.state is State.ENDED:
            return []
        messages = self._last_words(self._ending, now) if self._ending else self._stream_messages(now)
        self.counters.messages_sent += len(messages)
        return messages

    def _stream_messages(self, now: float) -> list[Outgoing]:
        unopened = self._opened is not None and self._duplex.sender.next_offset == self._first_sent
        limit = MAX_PAYLOAD - (OPENED_OVERHEAD if unopened else 0)
        messages = []
        for sending in self._duplex.sendings(limit, now):
            flags = (Flag.FIN if sending.fin else 0) | (Flag.ACK_NOW if sending.ack_now else 0)
            kind, payload = self._stream_frame(sending.offset, sending.data, now)
            messages.append(self._position(kind, flags, sending.offset, payload))
        messages += [self._position(FrameType.PONG, payload=pong) for pong in self._pongs]
        self._pongs.clear()
        if self._ping_due:
            self._ping_due = False
            messages.append(self._position(FrameType.PING, payload=bytes(8)))
        if self._duplex.ack_due(now):
            self.counters.bare_acks += 1
            ranges = encode_ranges(self._duplex.receiver.sack_ranges())
            messages.append(self._position(FrameType.ACK, payload=ranges))
        self._duplex.run_timer(now)
        return messages

    def _stream_frame(self, offset: int, data: bytes, now: float) -> tuple[FrameType, bytes]:
        if self.state is State.OPENING:
            return FrameType.OPENING, data
        if self._opened is not None and offset == self._first_sent:
            remaining = max(0, int((self._expires_at - now) * 1000))
            return FrameType.OPENED, replace(self._opened, remaining=remaining).encode() + data
        return FrameType.DATA, data

    def _position(
        self, kind: FrameType, flags: int = 0, offset: int | None = None, payload: bytes = b""
    ) -> Outgoing:
        ack, window = self._duplex.position(sacks=kind is FrameType.ACK)
        if offset is None:
            offset = self._duplex.sender.next_offset
        text = encode(Frame(kind, int(flags), self.generation, window, offset, ack, payload))
        return Outgoing(text, to_bridge=kind is FrameType.OPENING)

    def _last_words(self, ending: Ending, now: float) -> list[Outgoing]:
        if not ending.due(now):
            return []
        end = End(ending.code, self._duplex.sender.next_offset, self._duplex.receiver.ack)
        messages = [Outgoing(self._control(FrameType.END, end.encode()), to_bridge=True)]
        if ending.tell_peer:
            reset = Reset(ending.code, ending.reason)
            messages.append(Outgoing(self._control(FrameType.RESET, reset.encode()), to_bridge=False))
        return messages

    def _control(self, kind: FrameType, payload: bytes) -> str:
        return encode(Frame(kind, generation=self.generation, payload=payload))

    # -- the end --------------------------------------------------------------------------------

    def _end_if_complete(self, now: float) -> None:
        if self.alive and self._duplex.complete:
            self._begin_ending(Step.STREAMS_COMPLETE, Ending.begin(Code.OK, "", now, tell_peer=False))

    def _abort(self, code: Code, reason: str, now: float, *, tell_peer: bool) -> None:
        if self.alive:
            self._events.append(Aborted(code, reason))
            self._begin_ending(Step.ABORTED_HERE, Ending.begin(code, reason, now, tell_peer=tell_peer))
            self._duplex.stop(drop_received=True)

    def _begin_ending(self, what: Step, ending: Ending) -> None:
        self._step(what)
        self._ending = ending

    def _finish(self, code: Code) -> None:
        if self.state is State.ENDED:
            return
        clean = code is Code.OK
        self._step(Step.TOLD_ENDED if clean or self._ending else Step.GAVE_UP)
        self._duplex.stop(drop_received=False)
        self._events.append(Finished(code))

    def _step(self, what: Step) -> None:
        self.state = step(self.state, what)
