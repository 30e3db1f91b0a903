"""What each frame that arrives does to a session (docs/protocol.md sections 2 to 6)."""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import GoingAway, PeerMoved, RelayOpened
from emissary_lib.protocol.session.keepalive import DialerKeepalive, RelayKeepalive
from emissary_lib.protocol.session.lifecycle import Lifecycle
from emissary_lib.protocol.session.outgoing import FrameBuilder
from emissary_lib.protocol.session.resumption import Resumption
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.stream.duplex import Duplex
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType
from emissary_lib.protocol.wire.payloads import (
    Disconnected,
    Ended,
    GoAway,
    Opened,
    Reset,
    Resumed,
    decode_ranges,
)

#: Frames that only the peer itself sends: hearing one is a sign of life.
_FROM_PEER: Final = frozenset(
    {
        FrameType.DATA,
        FrameType.ACK,
        FrameType.PING,
        FrameType.PONG,
        FrameType.OPENING,
        FrameType.OPENED,
        FrameType.GOAWAY,
    }
)


class FrameReceiver:
    """Reads frames for a session: hands on what each one brings, keeps nothing but whether OPENED came.

    Args:
        role: Who we are.
        duplex: Takes stream bytes and acknowledgements.
        outgoing: Answers.
        resumption: Learns where both connections are.
        lifecycle: Learns of the end, and tells the driver.
        watch: Learns of signs of life; ``None`` for no watch.
        counters: Where to count.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(
        self,
        role: Role,
        *,
        duplex: Duplex,
        outgoing: FrameBuilder,
        resumption: Resumption,
        lifecycle: Lifecycle,
        watch: DialerKeepalive | RelayKeepalive | None,
        counters: Counters,
    ) -> None:
        self._role = role
        self._duplex = duplex
        self._outgoing = outgoing
        self._resumption = resumption
        self._lifecycle = lifecycle
        self._watch = watch
        self._counters = counters
        self._told_opened = False

    def receive(self, frame: Frame, now: float) -> None:
        """Take one frame.

        Raises:
            RemoteProtocolError: It breaks a rule; the session cannot go on.
        """
        if frame.type in _FROM_PEER:
            self._hear_peer(frame, now)
        if frame.flags & Flag.SHORT and not self._duplex.size.short:
            self._duplex.message_too_long(now)
        match frame.type:
            case FrameType.DATA | FrameType.OPENING:
                self._stream(frame, frame.payload, now)
            case FrameType.OPENED:
                self._receive_opened(frame, now)
            case FrameType.ACK:
                self._position(frame, decode_ranges(frame.payload, ack=frame.ack), now)
            case FrameType.PING:
                self._position(frame, [], now)
                self._outgoing.pong(frame.payload)
            case FrameType.PONG:
                self._counters.pongs += 1
                self._position(frame, [], now)
            case FrameType.RESET:
                reset = Reset.decode(frame.payload)
                self._lifecycle.reset_by_peer(
                    reset.code, reset.reason, now, written=frame.offset, handed_over=frame.ack
                )
            case FrameType.RESUMED:
                self._receive_resumed(Resumed.decode(frame.payload), now)
            case FrameType.PROBED:
                if self._watch:
                    self._watch.on_bridge_answer(now)
            case FrameType.ENDED:
                self._receive_ended(Ended.decode(frame.payload), now)
            case FrameType.DISCONNECTED:
                self._receive_disconnected(Disconnected.decode(frame.payload), now)
            case FrameType.GOAWAY:
                away = GoAway.decode(frame.payload)
                self._lifecycle.tell(GoingAway(away.code, away.remaining))
            case _:
                if not frame.flags & Flag.IGNORABLE:
                    raise RemoteProtocolError(f"frame type {frame.type} is not for the {self._role.value}")

    # -- the peer's -----------------------------------------------------------------------------

    def _hear_peer(self, frame: Frame, now: float) -> None:
        if self._watch:
            self._watch.on_received(now)
        fresh = self._resumption.peer_heard(frame.generation, now)
        if fresh and self._lifecycle.state is State.OPEN:
            self._duplex.send_again(now)

    def _receive_opened(self, frame: Frame, now: float) -> None:
        parameters, data = Opened.decode(frame.payload)
        if not self._told_opened:
            self._told_opened = True
            self._resumption.adopt_grace(parameters.grace / 1000)
            self._lifecycle.tell(RelayOpened(parameters))
        self._stream(frame, data, now)

    def _stream(self, frame: Frame, data: bytes, now: float) -> None:
        if not self._lifecycle.alive:
            return
        self._duplex.acknowledge(frame.ack, frame.window, [], now)
        fin, ack_now = bool(frame.flags & Flag.FIN), bool(frame.flags & Flag.ACK_NOW)
        self._duplex.receive(frame.offset, data, fin=fin, ack_now=ack_now, now=now)
        self._lifecycle.end_if_complete(now)

    def _position(self, frame: Frame, ranges: list[tuple[int, int]], now: float) -> None:
        if self._lifecycle.alive:
            self._duplex.acknowledge(frame.ack, frame.window, ranges, now)
            self._lifecycle.end_if_complete(now)

    # -- the bridge's ---------------------------------------------------------------------------

    def _receive_resumed(self, told: Resumed, now: float) -> None:
        if self._resumption.is_outdated(told):
            return
        before, could_send = self._resumption.peer_connection, self._resumption.may_send
        if self._resumption.receive_resumed(told, now) and self._lifecycle.alive:
            self._duplex.send_again(now)
        moved = self._resumption.peer_connection
        if moved is not None and moved != before:
            self._lifecycle.tell(PeerMoved(moved))
        if self._resumption.may_send:
            self._outgoing.ack()
        if self._watch and not could_send:
            self._watch.restart(now)
        if self._resumption.peer_away:
            self._lifecycle.end_if_left(now)

    def _receive_disconnected(self, gone: Disconnected, now: float) -> None:
        if self._lifecycle.alive and gone.role != self._role.wire:
            self._resumption.peer_gone(gone.epoch, now)
            if self._resumption.peer_away:
                self._lifecycle.end_if_left(now)

    def _receive_ended(self, ended: Ended, now: float) -> None:
        if self._lifecycle.ending:
            self._lifecycle.finish(self._lifecycle.ending.code)
        elif ended.code is Code.OK and self._agrees(ended):
            self._lifecycle.finish(Code.OK)
        elif ended.code is Code.TARGET_RESET:
            self._lifecycle.reset_overtaken(ended.reason or MEANINGS[ended.code], now)
        else:
            code = ended.code or Code.INCOMPLETE
            self._lifecycle.cut_off(code, ended.reason or MEANINGS[code])

    def _agrees(self, ended: Ended) -> bool:
        """Whether the bridge's count of both streams is ours, so that no byte is missing."""
        ours, theirs = ended.dialer, ended.relay
        if self._role is Role.RELAY:
            ours, theirs = theirs, ours
        return self._duplex.end_at(ours, theirs)
