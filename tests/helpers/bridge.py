"""Bridge and relay in one, in this process: what a dialer meets, without Lambda, tables or a VPC.

The bridge's answers come from the real :func:`.exchange.evaluate`; the relay's side is a
real ``Session(Role.RELAY)``. The target is played by the test (:class:`Relay`), or is one of ``SCRIPTS``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.protocol.auth.headers import ConnectHeaders
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import KeyRing, canonical_authority, http_date, verify_connect
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import AuthenticationError
from emissary_lib.protocol.opening.exchange import OpeningState, evaluate
from emissary_lib.protocol.opening.socks5 import reply, reply_for
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Opened, Reset
from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, Request, WsServer, refusal

KEY: Final = Key(7, bytes(range(32)))
TARGET: Final = "db.internal:5432"
ALLOWED: Final = AllowList.parse('[{"host": "db.internal", "port": 5432}]')

#: The relay's life as OPENED tells it, in seconds.
LIFE: Final = 900.0

#: Longest wait of a connection's thread for a message, in seconds, so that it notices what a test wrote.
_TICK: Final = 0.01


class Relay:
    """The relay's session of one tunnel, and what the target would do; from any thread.

    Attributes:
        target: What was dialled.
        aborted: How the session was cut off, if it was.
        echo: Whether everything that comes goes back, end of stream included.
        reads: Whether the target takes bytes; a target that does not makes the dialer's window shut.
        cut_after: Bytes after which the target resets its connection; ``None`` for never.
        resets_at_end: Whether it does so once the dialer's stream has ended.
    """

    def __init__(self, peer: Peer, session: Session, target: Target) -> None:
        self.target = target
        self.aborted: Aborted | None = None
        self.echo = False
        self.reads = True
        self.cut_after: int | None = None
        self.resets_at_end = False
        self.outgoing = bytearray()
        self._session = session
        self._began = session.received
        self._told = self._began
        self._peer = peer
        self._received = bytearray()
        self._eof_wanted = False
        self._ends_with_dialer = False
        self._changed = threading.Condition()

    def read(self, size: int) -> bytes:
        """What the target reads: exactly ``size`` bytes."""
        self._wait(lambda: len(self._received) >= size)
        with self._changed:
            data = bytes(self._received[:size])
            del self._received[:size]
            return data

    def read_to_end(self) -> bytes:
        """Everything up to the dialer's end of stream."""
        self._wait(lambda: self._session.receive_ended)
        return bytes(self._received)

    def read_some(self) -> bytes:
        """What the target reads next; empty at the dialer's end of stream, or when the session is over."""
        self._wait(lambda: self._received or self._session.receive_ended or not self._session.alive)
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
        """Wait until the session has ended, well or not."""
        self._wait(lambda: not self._session.alive)

    def wait_aborted(self) -> Aborted:
        self._wait(lambda: self.aborted is not None)
        assert self.aborted
        return self.aborted

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
        self._wait(lambda: not self.outgoing and self._session.buffered[0] == 0)

    def reset(self, code: Code = Code.TARGET_RESET, reason: str = "") -> None:
        with self._changed:
            self._session.abort(code, reason, time.monotonic())
        self._turn()

    def control(self, kind: FrameType, payload: bytes) -> None:
        """A frame in the bridge's name."""
        self._peer.send_text(encode(Frame(kind, generation=2, payload=payload)))

    def dismiss(self) -> None:
        """End the session for good, so that a dialer that is still there does not try to reconnect."""
        with contextlib.suppress(OSError):
            self.control(FrameType.ENDED, Ended(Code.KILLED, 0, 0).encode())

    @property
    def acknowledges(self) -> int:
        """How much of the program's stream the dialer was told has come, its end included; taken or not."""
        with self._changed:
            return self._told - self._began

    def swallow(self, data: bytes) -> None:
        """The target writes, and none of it is ever sent: the session is reset before that."""
        with self._changed:
            self._session.send_data(data)

    def gateway_error(self) -> None:
        self._peer.send_text('{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}')

    def _wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, HANG), f"waited in vain for {condition}"

    def receive(self, text: str) -> None:
        """A message of the dialer's."""
        frame = decode(text)
        with self._changed:
            if frame.type is FrameType.END:
                end = End.decode(frame.payload)
                self._end(Ended(end.code, end.sent, end.received))
            else:
                self._session.receive_message(text, time.monotonic())
        self._turn()

    def _end(self, ended: Ended) -> None:
        text = encode(Frame(FrameType.ENDED, generation=2, payload=ended.encode()))
        self._session.receive_message(text, time.monotonic())
        self._peer.send_text(text)

    def _turn(self) -> None:
        """Move bytes between target and session, and messages between session and dialer."""
        with self._changed:
            now = time.monotonic()
            session = self._session
            session.handle_timeout(now)
            while self.reads and (view := session.peek()):
                data = bytes(view)
                session.consume(len(data), now)
                if self.echo:
                    self.outgoing += data
                else:
                    self._received += data
            if session.receive_ended:
                session.release_end(now)
            cut = self.cut_after is not None and len(self._received) >= self.cut_after
            if cut or (self.resets_at_end and session.receive_ended):
                session.abort(Code.TARGET_RESET, "Connection reset by peer", now)
            if room := session.send_room:
                taken = session.send_data(bytes(self.outgoing[:room]))
                del self.outgoing[:taken]
            answered = (self.echo or self._ends_with_dialer) and session.receive_ended
            if not self.outgoing and (self._eof_wanted or answered):
                session.send_eof()
            # What goes to the bridge takes longer than what goes straight to the dialer.
            for message in sorted(session.messages_to_send(now), key=lambda each: each.to_bridge):
                frame = decode(message.text)
                if frame.type is FrameType.END:
                    end = End.decode(frame.payload)
                    self._end(Ended(end.code, end.received, end.sent))
                else:
                    self._peer.send_text(message.text)
                    self._told = max(self._told, frame.ack)
            while event := session.next_event():
                if isinstance(event, Aborted):
                    self.aborted = event
            self._changed.notify_all()

    tick = _turn


def echo(relay: Relay) -> None:
    """The target sends back what it gets."""
    relay.echo = True


@dataclass
class Behaviour:
    """What a test may set before, and while, it dials.

    Attributes:
        key: The bridge's key.
        upgrade_statuses: Statuses that upgrades get, in order, before the upgrade is looked at.
        clock_ahead: Seconds by which the bridge's clock is ahead of ours.
        dial_code: How the relay's dial of the target ends.
        silent: The bridge takes messages and says nothing.
        false_proof: The banner's proof is by another key.
        answer: Sent instead of any answer to the opening.
        stumbles: What the first connections get for their first message: a text, or ``None`` for a hang-up.
        script: What plays the target.
        grace: Seconds for which the dialer is to wait for a connection that is gone.
    """

    key: Key = KEY
    upgrade_statuses: tuple[int, ...] = ()
    clock_ahead: float = 0.0
    dial_code: Code = Code.OK
    silent: bool = False
    false_proof: bool = False
    answer: str | None = None
    stumbles: list[str | None] = field(default_factory=list)
    script: Callable[[Relay], None] = lambda relay: None
    grace: float = 60.0


class Bridge:
    """A gateway with bridge and relays behind it; a context manager.

    Attributes:
        behaviour: Read anew for each dial.
        openings: The dialer's stream of each connection, as far as it came before the relay took over.
        messages: Every message of every dialer, in order.
    """

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.messages: list[str] = []
        self._launched: list[Relay] = []
        self._relays: list[Relay] = []  # those whose dialer has been answered
        self._changed = threading.Condition()
        self._refused = 0
        self.server = WsServer(self._serve, answer=self._door)
        self.url = self.server.url

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *exc: object) -> None:
        for relay in self._launched:
            relay.dismiss()
        self.server.__exit__(*exc)

    def relay(self, index: int = 0) -> Relay:
        """The relay of the session that was opened as number ``index``; waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._relays) > index, HANG), "no relay started"
            return self._relays[index]

    def _door(self, request: Request) -> bytes | None:
        now = time.time() + self.behaviour.clock_ahead
        date = f"Date: {http_date(now)}"
        if self._refused < len(self.behaviour.upgrade_statuses):
            self._refused += 1
            return refusal(self.behaviour.upgrade_statuses[self._refused - 1], date)
        host = canonical_authority(request.headers["host"], scheme_default_port=80)
        try:
            signed = ConnectHeaders.from_headers(request.headers)
            verify_connect(signed, KeyRing([self.behaviour.key]), host=host, unix_now=now)
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
        relay = self._open(peer)
        while relay is not None:
            relay.tick()
            try:
                text = peer.read_message(_TICK)
            except TimeoutError:
                continue
            if text is None:
                return
            self.messages.append(text)
            relay.receive(text)

    def _open(self, peer: Peer) -> Relay | None:
        """Play ``$default`` until the opening is decided."""
        signed = ConnectHeaders.from_headers(peer.request.headers)
        host = canonical_authority(peer.request.headers["host"], scheme_default_port=80)
        key = Key(KEY.key_id, bytes(32)) if self.behaviour.false_proof else self.behaviour.key
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
            answer = evaluate(
                fragments,
                nonce=signed.nonce,
                date=signed.date,
                host=host,
                key_id=signed.key_id,
                keys=KeyRing([key]),
                allow=ALLOWED,
                server_version="0.0.0",
            )
            if answer.state is OpeningState.ACCEPTED:
                assert answer.target
                return self._launch(peer, answer.target, answer.server_bytes, answer.client_offset, frame)
            if answer.state is OpeningState.GARBAGE:
                kind, payload = FrameType.RESET, Reset(answer.code).encode()
            else:
                kind, payload = FrameType.DATA, answer.server_bytes
            ack = 0 if answer.state is OpeningState.GARBAGE else answer.client_offset
            peer.send_text(encode(Frame(kind, generation=1, window=65_536, ack=ack, payload=payload)))
        return None

    def _launch(self, peer: Peer, target: Target, said: bytes, used: int, frame: Frame) -> Relay:
        now, code = time.monotonic(), self.behaviour.dial_code
        config = SessionConfig(
            streams=StreamConfig(receive_start=used, peer_window=frame.window, holds_end=True),
            peer_epoch=1,
            opened=Opened(code, 0, int(self.behaviour.grace * 1000), bytes(32)),
            expires_at=now + LIFE,
        )
        relay = Relay(peer, Session(Role.RELAY, config, now=now), target)
        self._launched.append(relay)  # first: once it has spoken, the test may be over at any moment
        self.behaviour.script(relay)
        relay.write(said + reply(reply_for(code), ("0.0.0.0", 0)))
        if code is not Code.OK:
            relay.write_eof()
        with self._changed:
            self._relays.append(relay)
            self._changed.notify_all()
        return relay
