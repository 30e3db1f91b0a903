"""Makes frames of what a session has to say (docs/protocol.md sections 2 to 6)."""

from __future__ import annotations

from collections import deque

from emissary_lib.protocol.constants import CONNECTIONS_INTERVAL, MAX_PAYLOAD, SHORT_PAYLOAD
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.session.config import Outgoing
from emissary_lib.protocol.session.lifecycle import Ending
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.stream.duplex import Duplex, Sending
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import (
    OPENED_OVERHEAD,
    Connections,
    End,
    Opened,
    Reset,
    encode_ranges,
)

#: PONGs kept until they can be sent; more PINGs than that say nothing new.
_MAX_PONGS = 4

#: Frames without a position that ``$default`` handles itself.
_FOR_THE_BRIDGE = (FrameType.END, FrameType.PROBE, FrameType.CONNECTIONS)


class ConnectionNotice:
    """What the relay of a shared session tells the bridge of its connections, and when (section 11.7)."""

    def __init__(self) -> None:
        self._newest: Connections | None = None
        self._told: Connections | None = None
        self._not_before = float("-inf")
        self._due_at: float | None = None

    def note(self, counts: Connections, now: float) -> None:
        """These are the counts from now on; the bridge is told of the newest alone."""
        self._newest = counts
        if counts == self._told:
            self._due_at = None
        elif self._due_at is None:
            self._due_at = max(now, self._not_before)

    def next_timeout(self) -> float | None:
        """When :meth:`take` has something to tell; ``None`` if the bridge knows the newest."""
        return self._due_at

    def take(self, now: float) -> Connections | None:
        """The counts to tell now, each time but once; ``None`` if there is nothing to tell yet."""
        if self._due_at is None or now < self._due_at:
            return None
        self._told, self._due_at = self._newest, None
        self._not_before = now + CONNECTIONS_INTERVAL
        return self._told


class FrameBuilder:
    """Turns what is due into messages.

    Args:
        duplex: The streams.
        counters: Where to count.
        opened: The relay's parameters, for the frame that carries the first byte; ``None`` for the dialer.
        first: Position of the first byte we send.

    Attributes:
        opening: Whether stream bytes travel as OPENING.
    """

    def __init__(self, duplex: Duplex, counters: Counters, *, opened: Opened | None, first: int) -> None:
        self._duplex = duplex
        self._counters = counters
        self._opened = opened
        self._first = first
        self._pongs: deque[bytes] = deque(maxlen=_MAX_PONGS)
        self._ping_due = False
        self._ack_due = False
        self.opening = opened is None

    def pong(self, payload: bytes) -> None:
        """A PING came; its eight bytes go back."""
        self._pongs.append(payload[:8])

    def ping(self) -> None:
        """Ask the peer for a sign of life with the next messages."""
        self._ping_due = True

    def ack(self) -> None:
        """Acknowledge with the next messages, whether or not anything new has come."""
        self._ack_due = True

    def to_peer(self, generation: int, remaining: int, now: float) -> list[Outgoing]:
        """Everything for the peer that may be sent now, drained.

        Args:
            generation: What frames carry.
            remaining: Milliseconds until the relay's end, for OPENED.
            now: The caller's monotonic clock.
        """
        unopened = self._opened is not None and self._duplex.sender.next_offset == self._first
        limit = MAX_PAYLOAD - (OPENED_OVERHEAD if unopened else 0)
        # The frame with the first byte is longer, also when it is sent again.
        again = self._opened is not None and self._duplex.sender.acked <= self._first
        short_limit = SHORT_PAYLOAD - (OPENED_OVERHEAD if again else 0)
        messages = [
            self._stream(sending, generation, remaining, now)
            for sending in self._duplex.sendings(limit, short_limit, now)
        ]
        messages += [self._position(FrameType.PONG, generation, now, payload=pong) for pong in self._pongs]
        self._pongs.clear()
        if self._ping_due:
            self._ping_due = False
            messages.append(self._position(FrameType.PING, generation, now, payload=bytes(8)))
        if self._ack_due or self._duplex.ack_due(now):
            self._ack_due = False
            self._counters.bare_acks += 1
            ranges = encode_ranges(self._duplex.receiver.sack_ranges())
            messages.append(self._position(FrameType.ACK, generation, now, payload=ranges))
        self._duplex.run_timer(now)
        return messages

    def resume(self, generation: int, now: float) -> Outgoing:
        """RESUME, for the bridge."""
        return replace(self._position(FrameType.RESUME, generation, now), to_bridge=True)

    def control(self, kind: FrameType, generation: int, payload: bytes, flags: int = 0) -> Outgoing:
        """A frame without a position."""
        frame = Frame(kind, int(flags) | self._short_flag, generation, payload=payload)
        return Outgoing(encode(frame), kind in _FOR_THE_BRIDGE)

    @property
    def _short_flag(self) -> int:
        return int(Flag.SHORT) if self._duplex.size.short else 0

    def closing_frames(
        self, ending: Ending, generation: int, *, heard: bool, connections: int | None = None
    ) -> list[Outgoing]:
        """END, and RESET if the peer has to be told and is there to hear it.

        Args:
            ending: The last words.
            generation: What frames carry.
            heard: Whether the peer is there.
            connections: For END: how many the relay of a shared session has opened.
        """
        end = End(
            ending.code,
            self._duplex.sender.next_offset,
            self._duplex.receiver.ack,
            self._counters.messages_sent,
            self._counters.messages_received,
            connections,
        )
        flags = Flag.SHORT if self._duplex.size.found_short else 0
        closing = Frame(FrameType.END, int(flags), generation, payload=end.encode())
        messages = [Outgoing(encode(closing), to_bridge=True)]
        if ending.tell_peer and heard:
            payload = Reset(ending.code, ending.reason).encode()
            reset = Frame(
                FrameType.RESET,
                self._short_flag,
                generation=generation,
                offset=ending.written,
                ack=ending.handed_over,
                payload=payload,
            )
            messages.append(Outgoing(encode(reset), to_bridge=False))
        return messages

    def _stream(self, sending: Sending, generation: int, remaining: int, now: float) -> Outgoing:
        flags = (Flag.FIN if sending.fin else 0) | (Flag.ACK_NOW if sending.ack_now else 0)
        kind, payload = FrameType.DATA, sending.data
        if self.opening:
            kind = FrameType.OPENING
        elif self._opened is not None and sending.offset == self._first:
            opened = replace(self._opened, remaining=remaining)
            kind, payload = FrameType.OPENED, opened.encode() + sending.data
        return self._position(kind, generation, now, flags, sending.offset, payload)

    def _position(
        self,
        kind: FrameType,
        generation: int,
        now: float,
        flags: int = 0,
        offset: int | None = None,
        payload: bytes = b"",
    ) -> Outgoing:
        ack, window = self._duplex.position(now, sacks=kind is FrameType.ACK)
        if offset is None:
            offset = self._duplex.sender.next_offset
        flags = int(flags) | self._short_flag
        data = encode(Frame(kind, flags, generation, window, offset, ack, payload))
        return Outgoing(data, to_bridge=kind is FrameType.OPENING)
