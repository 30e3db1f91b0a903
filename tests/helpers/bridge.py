"""Bridge and relay in one, in this process: what a dialer meets, without Lambda, tables or a VPC.

The bridge's answers come from the real :func:`.exchange.evaluate`; the relay's side is a
real ``Session(Role.RELAY)``, and in a shared session a real ``RelayMultiplexer`` on top of it. Each target is
played by the test (:class:`Relay`), or is one of ``SCRIPTS``.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.protocol.auth.headers import ConnectHeaders, OpeningHeaders
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import KeyRing, WrongHostError, http_date, signed_host, verify_connect
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import AuthenticationError
from emissary_lib.protocol.mux.events import Closed, CutOff, Event, Requested
from emissary_lib.protocol.mux.limits import MAX_CONNECTIONS, SESSION_BACKLOG, MuxLimits
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.opening.exchange import OpeningAnswer, OpeningState, evaluate
from emissary_lib.protocol.opening.socks5 import reply, reply_for
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList, Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED, End, Ended, GoAway, Opened, Reset
from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, Request, WsServer, refusal

KEY: Final = Key(7, bytes(range(32)))
TARGET: Final = "db.internal:5432"
ALLOWED: Final = AllowList.parse('[{"host": "db.internal", "port": 5432}]')

#: The relay's life as OPENED tells it, in seconds.
LIFE: Final = RELAY_TIME

#: Longest wait of a connection's thread for a message, in seconds, so that it notices what a test wrote.
_TICK: Final = 0.01


class Stream(Protocol):
    """One connection's bytes at the relay, as a :class:`Session` has them."""

    @property
    def alive(self) -> bool: ...
    @property
    def receive_ended(self) -> bool: ...
    @property
    def received(self) -> int: ...
    @property
    def send_room(self) -> int: ...
    @property
    def buffered(self) -> tuple[int, int]: ...
    def peek(self) -> memoryview: ...
    def consume(self, count: int, now: float) -> None: ...
    def release_end(self, now: float) -> None: ...
    def send_data(self, data: bytes) -> int: ...
    def send_eof(self) -> None: ...
    def abort(self, code: Code, reason: str, now: float) -> None: ...


class MuxStream:
    """A connection of a shared session, as a session of its own would be."""

    def __init__(self, wire: SharedWire, number: int) -> None:
        self._wire = wire
        self._mux = wire.mux
        self.number = number
        self.alive = True
        self.receive_ended = False
        self.received = 0

    @property
    def send_room(self) -> int:
        return self._mux.send_room(self.number)

    @property
    def buffered(self) -> tuple[int, int]:
        waiting = self._mux.unsent(self.number) + self._mux.framed + self._wire.session.buffered[0]
        return waiting, len(self._mux.peek(self.number, 1 << 30))

    def peek(self) -> memoryview:
        return memoryview(self._mux.peek(self.number, 1 << 20))

    def consume(self, count: int, now: float) -> None:
        self._mux.consume(self.number, count)
        self.look()

    def look(self) -> None:
        """Note what the multiplexer forgets with the connection."""
        self.receive_ended |= self._mux.receive_ended(self.number)
        self.received = max(self.received, self._mux.arrived(self.number) + self.receive_ended)

    def release_end(self, now: float) -> None:
        self._mux.release_end(self.number)

    def send_data(self, data: bytes) -> int:
        return self._mux.send_data(self.number, data)

    def send_eof(self) -> None:
        self._mux.send_eof(self.number)

    def abort(self, code: Code, reason: str, now: float) -> None:
        if code not in (Code.TARGET_RESET, Code.DIALER_RESET):  # what ends a relay ends all it carries
            self._wire.session.abort(code, reason, now)
        elif self.alive:
            self._mux.reset(self.number, code)
            self._wire.over(self.number, Aborted(code, reason))


class Wire:
    """One dialer's WebSocket at the relay, with its session; from any thread.

    Attributes:
        session: The session.
        relays: What has been asked for over it, in order.
        aborted: How the session was cut off, if it was.
        frozen: Whether nothing that comes is heard, and nothing is said.
    """

    def __init__(self, peer: Peer, session: Session) -> None:
        self.session = session
        self.relays: list[Relay] = []
        self.aborted: Aborted | None = None
        self.frozen = False
        self.changed = threading.Condition()
        self.told = session.received
        self._peer = peer

    def wait(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, HANG), f"waited in vain for {condition}"

    def wait_over(self) -> None:
        """Wait until the session has ended, well or not."""
        self.wait(lambda: not self.session.alive)

    def send(self, text: bytes) -> None:
        self._peer.send_text(text)

    def control(self, kind: FrameType, payload: bytes) -> None:
        """A frame in the bridge's name."""
        self.send(encode(Frame(kind, generation=2, payload=payload)))

    def receive(self, text: bytes) -> None:
        """A message of the dialer's."""
        frame = decode(text)
        with self.changed:
            if self.frozen:
                return
            if frame.type is FrameType.END:
                end = End.decode(frame.payload)
                self._end(Ended(end.code, end.sent, end.received))
            else:
                self.session.receive_message(text, time.monotonic())
        self.turn()

    def _end(self, ended: Ended) -> None:
        text = encode(Frame(FrameType.ENDED, generation=2, payload=ended.encode()))
        self.session.receive_message(text, time.monotonic())
        self.send(text)

    def turn(self) -> None:
        """Move bytes between targets and session, and messages between session and dialer."""
        with self.changed:
            if self.frozen:
                return
            now = time.monotonic()
            self.session.handle_timeout(now)
            self._move(now)
            # What goes to the bridge takes longer than what goes straight to the dialer.
            for message in sorted(self.session.messages_to_send(now), key=lambda each: each.to_bridge):
                frame = decode(message.data)
                if frame.type is FrameType.END:
                    end = End.decode(frame.payload)
                    self._end(Ended(end.code, end.received, end.sent))
                else:
                    self.send(message.data)
                    self.told = max(self.told, frame.ack)
            while event := self.session.next_event():
                if isinstance(event, Aborted):
                    self.aborted = event
                    self._cut_off(event)
            self.changed.notify_all()

    def _move(self, now: float) -> None:
        for relay in self.relays:
            relay.move(now)

    def _cut_off(self, event: Aborted) -> None:
        for relay in self.relays:
            relay.aborted = relay.aborted or event


class SharedWire(Wire):
    """The same, of a shared session.

    Args:
        peer: The WebSocket.
        session: The session.
        connections: How many the relay allows at once.
        on_request: Gives what plays the target of a request.
    """

    def __init__(
        self,
        peer: Peer,
        session: Session,
        connections: int,
        on_request: Callable[[SharedWire, Requested], Relay],
    ) -> None:
        super().__init__(peer, session)
        self.mux = RelayMultiplexer(MuxLimits(connections=connections), time.monotonic())
        self._on_request = on_request
        self._streams: dict[int, tuple[Relay, MuxStream]] = {}
        self._ended = False

    def drain(self) -> None:
        """Take no more connections."""
        with self.changed:
            self.mux.drain()
        self.turn()

    def over(self, number: int, aborted: Aborted | None) -> None:
        """A connection has ended, and nothing more is heard of it."""
        if each := self._streams.get(number):
            relay, stream = each
            stream.look()
            relay.aborted = relay.aborted or aborted
            stream.alive = False

    def _move(self, now: float) -> None:
        while data := bytes(self.session.peek()):
            self.mux.receive(data, now)
            self.session.consume(len(data), now)
            self._take_events()
        if self.session.receive_ended and not self._ended:
            self._ended = True
            self.mux.receive_eof()
        super()._move(now)
        self._take_events()
        if self.session.alive:
            room = min(self.session.send_room, SESSION_BACKLOG - self.session.unsent)
            if data := self.mux.data_to_send(room):
                self.session.send_data(data)
            if self._ended and self.mux.idle:
                self.session.send_eof()
        for _relay, stream in self._streams.values():
            stream.look()

    def _take_events(self) -> None:
        while event := self.mux.next_event():
            self._take_event(event)

    def _take_event(self, event: Event) -> None:
        if isinstance(event, Requested):
            relay = self._on_request(self, event)
            self.relays.append(relay)
        elif isinstance(event, CutOff):
            self.over(event.stream, Aborted(event.code, "", event.whole))
        elif isinstance(event, Closed):
            self.over(event.stream, None)

    def admit(self, number: int, target: Target) -> Relay:
        """What plays the target of a request, which is not answered yet."""
        stream = MuxStream(self, number)
        relay = Relay(self, stream, target)
        self._streams[number] = relay, stream
        return relay

    def _cut_off(self, event: Aborted) -> None:
        self.mux.cut_off_all(event.code)
        super()._cut_off(event)
        for _relay, stream in self._streams.values():
            stream.alive = False


class Relay:
    """One connection at the relay, and what the target would do; from any thread.

    Attributes:
        wire: What carries it: a session of its own, or a shared one.
        target: What was dialled.
        aborted: How it was cut off, if it was.
        echo: Whether everything that comes goes back, end of stream included.
        reads: Whether the target takes bytes; a target that does not makes the dialer's window shut.
        cut_after: Bytes after which the target resets its connection; ``None`` for never.
        resets_at_end: Whether it does so once the dialer's stream has ended.
    """

    def __init__(self, wire: Wire, stream: Stream, target: Target) -> None:
        self.wire = wire
        self.target = target
        self.aborted: Aborted | None = None
        self.echo = False
        self.reads = True
        self.cut_after: int | None = None
        self.resets_at_end = False
        self.outgoing = bytearray()
        self._stream = stream
        self._began = stream.received
        self._acknowledged = 0
        self._received = bytearray()
        self._eof_wanted = False
        self._ends_with_dialer = False
        self._changed = wire.changed

    def read(self, size: int) -> bytes:
        """What the target reads: exactly ``size`` bytes."""
        self._wait(lambda: len(self._received) >= size)
        with self._changed:
            data = bytes(self._received[:size])
            del self._received[:size]
            return data

    def read_to_end(self) -> bytes:
        """Everything up to the dialer's end of stream."""
        self._wait(lambda: self._stream.receive_ended)
        return bytes(self._received)

    def read_some(self) -> bytes:
        """What the target reads next; empty at the dialer's end of stream, or when the session is over."""
        self._wait(lambda: self._received or self._stream.receive_ended or not self._stream.alive)
        with self._changed:
            data = bytes(self._received)
            self._received.clear()
            return data

    @property
    def arrived(self) -> bytes:
        """What has come so far; waits for nothing."""
        with self._changed:
            return bytes(self._received)

    def wait_over(self) -> None:
        """Wait until the connection, and a session of its own, has ended, well or not."""
        self._wait(lambda: not self._stream.alive)

    def wait_aborted(self) -> Aborted:
        self._wait(lambda: self.aborted is not None)
        assert self.aborted
        return self.aborted

    def accept(self) -> None:
        """In a shared session: the target is reached, where the behaviour holds requests up."""
        wire, stream = self._shared
        with self._changed:
            wire.mux.accept(stream.number)
        wire.turn()

    def refuse(self, code: Code) -> None:
        """In a shared session: the target is not reached."""
        wire, stream = self._shared
        with self._changed:
            wire.mux.refuse(stream.number, code)
            stream.alive = False
        wire.turn()

    def decline(self) -> None:
        """In a shared session: the relay can do nothing for this connection."""
        wire, stream = self._shared
        with self._changed:
            wire.mux.decline(stream.number)
            stream.alive = False
        wire.turn()

    @property
    def _shared(self) -> tuple[SharedWire, MuxStream]:
        assert isinstance(self.wire, SharedWire)
        assert isinstance(self._stream, MuxStream)
        return self.wire, self._stream

    def go_away(self, remaining: float) -> None:
        """The relay announces that its time is up in so many seconds."""
        self.control(FrameType.GOAWAY, GoAway(Code.RELAY_DEADLINE, int(remaining * 1000)).encode())

    def end_session(self, code: Code, reason: str = "") -> None:
        """The bridge tells that the session is over, with all that it carries."""
        self.control(FrameType.ENDED, Ended(code, 0, 0, reason).encode())

    def write(self, data: bytes) -> None:
        """The target writes; takes any amount."""
        with self._changed:
            self.outgoing += data
        self._turn()

    def write_eof(self) -> None:
        with self._changed:
            self._eof_wanted = True
        self._turn()

    def end_with_dialer(self) -> None:
        """The target ends its stream once the dialer has ended its own."""
        self._ends_with_dialer = True

    def flush(self) -> None:
        """Wait until everything written has reached the dialer's session."""
        self._wait(lambda: not self.outgoing and self._stream.buffered[0] == 0)

    def reset(self, code: Code = Code.TARGET_RESET, reason: str = "") -> None:
        with self._changed:
            self._stream.abort(code, reason, time.monotonic())
        self._turn()

    def control(self, kind: FrameType, payload: bytes) -> None:
        """A frame in the bridge's name."""
        self.wire.control(kind, payload)

    def dismiss(self) -> None:
        """End the session for good, so that a dialer that is still there does not try to reconnect."""
        with contextlib.suppress(OSError):
            self.control(FrameType.ENDED, Ended(Code.KILLED, 0, 0).encode())

    @property
    def acknowledges(self) -> int:
        """How much of the program's stream the dialer was told has come, its end included; taken or not."""
        with self._changed:
            return self._acknowledged

    def swallow(self, data: bytes) -> None:
        """The target writes, and none of it is ever sent: the session is reset before that."""
        with self._changed:
            self._stream.send_data(data)

    def gateway_error(self) -> None:
        self.wire.send(b'{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}')

    def _wait(self, condition: Callable[[], object]) -> None:
        self.wire.wait(condition)

    def _turn(self) -> None:
        self.wire.turn()

    def move(self, now: float) -> None:
        """Move bytes between target and session; with the wire's lock."""
        stream = self._stream
        if self.wire.told >= self.wire.session.received:  # as of what was said before
            self._acknowledged = stream.received - self._began
        while self.reads and (view := stream.peek()):
            data = bytes(view)
            stream.consume(len(data), now)
            if self.echo:
                self.outgoing += data
            else:
                self._received += data
        if stream.receive_ended:
            stream.release_end(now)
        cut = self.cut_after is not None and len(self._received) >= self.cut_after
        if cut or (self.resets_at_end and stream.receive_ended):
            stream.abort(Code.TARGET_RESET, "Connection reset by peer", now)
        if room := stream.send_room:
            taken = stream.send_data(bytes(self.outgoing[:room]))
            del self.outgoing[:taken]
        answered = (self.echo or self._ends_with_dialer) and stream.receive_ended
        if not self.outgoing and (self._eof_wanted or answered):
            stream.send_eof()


def echo(relay: Relay) -> None:
    """The target sends back what it gets."""
    relay.echo = True


class Sharing(enum.Enum):
    """What the bridge makes of a dialer that asks for a shared session."""

    YES = "it opens one"
    OLD_BRIDGE = "the bridge refuses the reserved name: no rule allows it"
    OLD_RELAY = "the relay takes the reserved name for a target"


@dataclass
class Behaviour:
    """What a test may set before, and while, it dials.

    Attributes:
        key: The bridge's key.
        host: What the API calls itself; empty for the host that the upgrade came to.
        upgrade_statuses: Statuses that upgrades get, in order, before the upgrade is looked at.
        clock_ahead: Seconds by which the bridge's clock is ahead of ours.
        dial_code: How the relay's dial of the target ends.
        silent: The bridge takes messages and says nothing.
        false_proof: The banner's proof is by another key.
        answer: Sent instead of any answer to the opening.
        stumbles: What the first connections get for their first message: a text, or ``None`` for a hang-up.
        script: What plays the target.
        grace: Seconds for which the dialer is to wait for a connection that is gone.
        life: Seconds that a relay has, as OPENED tells.
        sharing: Whether there are shared sessions.
        name_code: How a relay that takes the reserved name for a target ends its dial of it.
        connections: How many a relay allows at once in a shared session.
        holds: Whether requests in a shared session wait for the test to answer them.
        declines: Whether a relay does nothing for any of them.
        door: Whether a relay is launched by what an upgrade shows, which is one that is accepted.
    """

    key: Key = KEY
    host: str = ""
    upgrade_statuses: tuple[int, ...] = ()
    clock_ahead: float = 0.0
    dial_code: Code = Code.OK
    silent: bool = False
    false_proof: bool = False
    answer: bytes | None = None
    stumbles: list[bytes | None] = field(default_factory=list)
    script: Callable[[Relay], None] = lambda relay: None
    grace: float = 60.0
    life: float = LIFE
    sharing: Sharing = Sharing.YES
    name_code: Code = Code.OK
    connections: int = MAX_CONNECTIONS
    holds: bool = False
    declines: bool = False
    door: bool = False


class Bridge:
    """A gateway with bridge and relays behind it; a context manager.

    Attributes:
        behaviour: Read anew for each dial.
        openings: The dialer's stream of each connection, as far as it came before the relay took over.
        messages: Every message of every dialer, in order.
        wires: Each session that was opened, in order.
    """

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.messages: list[bytes] = []
        self.wires: list[Wire] = []
        self._relays: list[Relay] = []  # those whose dialer has been answered, or is held up
        self._changed = threading.Condition()
        self._refused = 0
        self._over = False  # what is opened from now on ends at once: nobody is there to end it
        self.server = WsServer(self._serve, answer=self._door)
        self.url = self.server.url

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over = True
        for wire in self.wires:
            self._kill(wire)
        self.server.__exit__(*exc)

    def _kill(self, wire: Wire) -> None:
        with contextlib.suppress(OSError):
            wire.control(FrameType.ENDED, Ended(Code.KILLED, 0, 0).encode())

    def relay(self, index: int = 0) -> Relay:
        """The relay's end of the connection that was dialled as number ``index``; waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._relays) > index, HANG), "no relay started"
            return self._relays[index]

    def _door(self, request: Request) -> bytes | None:
        now = time.time() + self.behaviour.clock_ahead
        date = f"Date: {http_date(now)}"
        if self._refused < len(self.behaviour.upgrade_statuses):
            self._refused += 1
            return refusal(self.behaviour.upgrade_statuses[self._refused - 1], date)
        host = self.behaviour.host or signed_host(request.headers["host"])
        try:
            signed = ConnectHeaders.from_headers(request.headers)
            verify_connect(signed, KeyRing([self.behaviour.key]), host=host, unix_now=now)
        except WrongHostError:
            return refusal(421, date)
        except AuthenticationError:
            return refusal(403, date)
        return None

    def _serve(self, peer: Peer) -> None:
        if self.behaviour.silent:
            with contextlib.suppress(ConnectionError):
                while (text := peer.read_message(HANG)) is not None:
                    self.messages.append(text)
            return
        if self.behaviour.stumbles:
            peer.read_message()
            text = self.behaviour.stumbles.pop(0)
            if text is not None:
                peer.send_text(text)
                peer.read_message()
            return
        wire = self._open(peer)
        if wire is not None and self._over:
            self._kill(wire)
        while wire is not None:
            wire.turn()
            try:
                text = peer.read_message(_TICK)
            except TimeoutError:
                continue
            if text is None:
                return
            self.messages.append(text)
            wire.receive(text)

    def _open(self, peer: Peer) -> Wire | None:
        """Play ``$default`` until the opening is decided."""
        signed = ConnectHeaders.from_headers(peer.request.headers)
        host = signed_host(peer.request.headers["host"])
        key = Key(KEY.key_id, bytes(32)) if self.behaviour.false_proof else self.behaviour.key

        def judge(fragments: Collection[tuple[int, bytes]]) -> OpeningAnswer:
            return evaluate(
                fragments,
                nonce=signed.nonce,
                date=signed.date,
                host=host,
                key_id=signed.key_id,
                keys=KeyRing([key]),
                allow=ALLOWED,
                server_version="0.0.0",
            )

        shown = OpeningHeaders.from_headers(peer.request.headers) if self.behaviour.door else None
        if shown is not None:
            return self._launch(peer, judge([(0, shown.stream)]), shown.window)
        fragments: set[tuple[int, bytes]] = set()
        while (text := peer.read_message()) is not None:
            self.messages.append(text)
            frame = decode(text)
            if frame.type is not FrameType.OPENING:
                continue
            if self.behaviour.answer is not None:
                peer.send_text(self.behaviour.answer)
                continue
            fragments.add((frame.offset, frame.payload))
            answer = judge(fragments)
            said = answer.server_bytes
            if answer.state is OpeningState.ACCEPTED:
                assert answer.target
                shared = answer.target == SHARED_TARGET
                if not shared or self.behaviour.sharing is not Sharing.OLD_BRIDGE:
                    return self._launch(peer, answer, frame.window)
                said += reply(reply_for(Code.TARGET_NOT_ALLOWED))
            if answer.state is OpeningState.GARBAGE:
                kind, payload = FrameType.RESET, Reset(answer.code).encode()
            else:
                kind, payload = FrameType.DATA, said
            ack = 0 if answer.state is OpeningState.GARBAGE else answer.client_offset
            peer.send_text(encode(Frame(kind, generation=1, window=65_536, ack=ack, payload=payload)))
        return None

    def _launch(self, peer: Peer, answer: OpeningAnswer, window: int) -> Wire:
        now, behaviour = time.monotonic(), self.behaviour
        assert answer.target
        asked = answer.target == SHARED_TARGET
        shared = asked and behaviour.sharing is Sharing.YES
        code = Code.OK if shared else behaviour.name_code if asked else behaviour.dial_code
        config = SessionConfig(
            streams=StreamConfig(
                receive_start=answer.client_offset, peer_window=window, holds_end=not shared
            ),
            peer_epoch=1,
            opened=Opened(
                code, 0, int(behaviour.grace * 1000), bytes(32), CAPABILITY_SHARED if shared else 0
            ),
            expires_at=now + behaviour.life,
            early=answer.early if shared else b"",
        )
        session = Session(Role.RELAY, config, now=now)
        said = answer.server_bytes + reply(reply_for(code), ("0.0.0.0", 0))
        if shared:
            session.send_data(said)
            wire: Wire = SharedWire(peer, session, behaviour.connections, self._request)
            self.wires.append(wire)  # first: once it has spoken, the test may be over at any moment
            wire.turn()
            return wire
        wire = Wire(peer, session)
        relay = Relay(wire, session, answer.target)
        wire.relays.append(relay)
        self.wires.append(wire)
        behaviour.script(relay)
        relay.write(said)
        if code is not Code.OK:
            relay.write_eof()
        self._add(relay)
        return wire

    def _request(self, wire: SharedWire, event: Requested) -> Relay:
        """A connection is asked for in a shared session, whose lock is held."""
        behaviour, relay = self.behaviour, wire.admit(event.stream, event.target)
        behaviour.script(relay)
        if behaviour.declines:
            wire.mux.decline(event.stream)
        elif behaviour.dial_code is not Code.OK or not ALLOWED.permits(event.target):
            wire.mux.refuse(event.stream, behaviour.dial_code or Code.TARGET_NOT_ALLOWED)
        else:
            if not behaviour.holds:
                wire.mux.accept(event.stream)
            self._add(relay)
        return relay

    def _add(self, relay: Relay) -> None:
        with self._changed:
            self._relays.append(relay)
            self._changed.notify_all()
