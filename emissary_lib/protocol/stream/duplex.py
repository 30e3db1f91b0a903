"""Two byte streams, one each way, over messages that come in any order or not at all.

Joins sender, receiver, acknowledgements, timer, cap and pause (docs/protocol.md section 4). Knows nothing of
frames' types, of the opening or of the end: :class:`emissary_lib.protocol.session.session.Session` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emissary_lib.protocol.constants import DEFAULT_CAPACITY, INITIAL_WINDOW, SMALL_FRAMES
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.stream.acks import AckSchedule
from emissary_lib.protocol.stream.congestion import CongestionWindow, ErrorPause, InFlightGate
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.stream.message_size import MessageSize
from emissary_lib.protocol.stream.receiver import StreamReceiver
from emissary_lib.protocol.stream.retransmission import RetransmissionTimer
from emissary_lib.protocol.stream.sender import Segment, StreamSender
from emissary_lib.protocol.stream.tls_alerts import only_tls_alerts

#: Largest window that a frame's u32 can tell, in bytes.
MAX_WINDOW: Final = 0xFFFF_FFFF


class Sending(Record):
    """Stream bytes to put in one frame.

    Attributes:
        offset: Position of the first byte.
        data: The bytes; empty for a bare FIN and for a window probe.
        fin: Whether the stream ends behind them.
        ack_now: Whether the sender waits for an acknowledgement.
    """

    __slots__ = ("ack_now", "data", "fin", "offset")

    offset: int
    data: bytes
    fin: bool
    ack_now: bool

    def __init__(self, offset: int, data: bytes, fin: bool, ack_now: bool) -> None:
        put = object.__setattr__
        put(self, "offset", offset)
        put(self, "data", data)
        put(self, "fin", fin)
        put(self, "ack_now", ack_now)


class StreamConfig(Record):
    """Sizes and starting positions of both streams.

    Attributes:
        capacity: Send and receive buffer, in bytes each; ``INITIAL_WINDOW`` to ``MAX_WINDOW``.
        send_start: Position of the first byte we send.
        receive_start: Position of the first byte we expect.
        peer_window: The peer's window, counted from position 0, where it is known beforehand.
        holds_end: Whether the peer's FIN is acknowledged only after ``release_end`` (the relay).
        short: Whether messages of more than one fragment are known not to pass (section 4.8).
    """

    capacity: int = DEFAULT_CAPACITY
    send_start: int = 0
    receive_start: int = 0
    peer_window: int = 0
    holds_end: bool = False
    short: bool = False

    def __post_init__(self) -> None:
        if self.capacity < INITIAL_WINDOW:
            raise ValueError(f"a capacity of {self.capacity} bytes is below {INITIAL_WINDOW}")
        if self.capacity > MAX_WINDOW:
            raise ValueError(f"a capacity of {self.capacity} bytes is over {MAX_WINDOW}")


class Duplex:
    """The reliable streams of one session on one side.

    Args:
        config: Sizes and positions.
        cap: The cap on messages in flight.
        gate: A budget of messages in flight shared with other sessions.
        counters: Where to count.

    Attributes:
        measures_rtt: Whether acknowledgements are timed. While a session opens they are not: the first waits
            for the relay's start.
        outstanding_since: Since when anything has been unacknowledged or waiting; ``None`` when nothing is.
        size: What is known of the length of our messages.
        on_short: Told once, when it turns out that long ones do not pass.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(
        self, config: StreamConfig, cap: CongestionWindow, gate: InFlightGate, counters: Counters
    ) -> None:
        self.sender = StreamSender(config.capacity, start=config.send_start)
        self.receiver = StreamReceiver(
            config.capacity, start=config.receive_start, holds_end=config.holds_end
        )
        self.sender.receive_window(0, config.peer_window)
        self.size = MessageSize(short=config.short)
        if config.short:
            cap.on_short()
        self.on_short: Callable[[], None] = lambda: None
        self.size.on_short = self._shorten
        self._acks = AckSchedule(config.capacity, edge=self.receiver.edge, acked=config.receive_start)
        self._timer = RetransmissionTimer()
        self._pause = ErrorPause()
        self._cap = cap
        self._gate = gate
        self._places = 0  # taken from the gate
        self._probe_due = False
        self.measures_rtt = True
        self.outstanding_since: float | None = None
        self._asked = config.send_start  # end of the newest frame that was sent with ACK-NOW
        self._counters = counters

    @property
    def complete(self) -> bool:
        """Whether both directions are: our FIN acknowledged, the peer's stream whole and its FIN too."""
        return self.sender.complete and self.receiver.ended

    @property
    def progress(self) -> int:
        """How far the streams have come, both together: it grows with every byte that arrives for good."""
        return self.receiver.arrived + self.sender.acked

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds, the peer's delay of acknowledgements included."""
        return self._timer.rtt

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which a frame that is not acknowledged counts as lost for the first time."""
        return self._timer.base

    def receive(self, offset: int, data: bytes, *, fin: bool, ack_now: bool, now: float) -> None:
        """Take one frame's stream bytes.

        Raises:
            FlowControlError: Bytes past the window or the final size.
        """
        was_complete, before = self.receiver.complete, self.receiver.arrived
        new = self.receiver.receive(offset, data, fin)
        self._counters.bytes_received += self.receiver.arrived - before
        self._counters.duplicates += not new
        ack, complete = self.receiver.ack, self.receiver.complete
        self._acks.on_arrival(now, ack=ack, new=new, fin=complete and not was_complete)
        if ack_now:
            self._acks.on_demand(now, end=offset + len(data), ack=ack)

    def acknowledge(self, ack: int, window: int, ranges: list[tuple[int, int]], now: float) -> None:
        """Take the peer's acknowledgement and window.

        Raises:
            RemoteProtocolError: It acknowledges what was never sent.
        """
        before = self.sender.acked
        acked = self.sender.receive_ack(ack, ranges, now)
        opened = self.sender.receive_window(ack, window)
        if acked.rtt is not None and self.measures_rtt:
            self._timer.sample(acked.rtt)
        if acked.segments or (opened and not self.sender.in_flight):
            self._timer.on_ack()
            since = self.sender.in_flight_since
            if since is not None and self.sender.acked == before:
                # Bytes above a gap arrived. They say nothing for the frame in the gap, which would else
                # never count as lost while others keep arriving.
                self._timer.start(since, now)
        if acked.segments:
            self._cap.on_ack(len(acked.segments))
            self._pause.on_ack()
            for each in acked.segments:
                self.size.on_ack(long=each.long, sent_at=each.sent_at, now=now)
        self._settle_gate()

    def end_at(self, sent: int, received: int) -> bool:
        """Whether both streams are whole if they end where the bridge says (docs/protocol.md section 6).

        A FIN of the peer's that alone has not come is taken from that; so is what alone tells that the peer
        has our stream, where its acknowledgement has not come.

        Args:
            sent: Final offset of our stream, its FIN included.
            received: Final offset of the peer's.
        """
        if not self.sender.fin_sent or self.sender.next_offset != sent:
            return False
        receiver = self.receiver
        if receiver.final_size is None and receiver.arrived == receiver.received == received - 1:
            receiver.receive(receiver.received, b"", fin=True)
        if not receiver.complete or receiver.ack != received:
            return False
        self.sender.settle(sent)
        return True

    def is_whole(self, written: int, handed_over: int, *, user_lost: bool = False) -> bool:
        """Whether nothing is missing but FINs and TLS alerts (docs/protocol.md rule 6-22).

        Args:
            written: How far the peer's user had written.
            handed_over: How much of our stream the peer's user had taken, the FIN counted as one.
            user_lost: Whether our user's connection broke: nobody is there to take more.
        """
        sender, receiver = self.sender, self.receiver
        ours = handed_over >= sender.written or only_tls_alerts(sender.last(handed_over))
        if user_lost:
            return ours
        return ours and sender.said_all and not receiver.gap and receiver.received == written

    def consume(self, count: int, now: float) -> None:
        """The user took ``count`` bytes of what the receiver's ``peek`` showed; frees window."""
        self.receiver.consume(count)
        if not self.receiver.complete:
            self._acks.on_consume(now, edge=self.receiver.edge)
        elif not self.receiver.ended:
            self._acks.on_end_waits(now)

    def release_end(self, now: float) -> None:
        """The user has all of the peer's stream for good: its FIN may be acknowledged. Idempotent."""
        if self.receiver.complete and not self.receiver.ended:
            self.receiver.release_end()
            self._acks.on_end(now)

    def message_refused(self, now: float) -> None:
        """Some message was not handled, and nobody says which (docs/protocol.md section 4.6)."""
        self._counters.gateway_errors += 1
        if self._pause.error(now) and self.sender.outstanding_segments:
            self._note_lost(self.sender.mark_oldest_lost(), now)
            self._counters.losses += 1
            self._cap.on_loss()
            self._settle_gate()

    def throttled(self) -> None:
        """Too much was sent: one message at a time, and more as they are acknowledged (rule 5.2-11)."""
        self._cap.on_throttle()

    def message_too_long(self, now: float) -> None:
        """Some message of ours was not taken because of its length (docs/protocol.md section 4.8)."""
        self.size.on_told(now)
        self.sender.mark_long_lost()
        self._settle_gate()

    def _shorten(self) -> None:
        self._cap.on_short()
        self.on_short()

    def _note_lost(self, lost: list[Segment], now: float) -> None:
        for each in lost:
            if each.long:
                self.size.on_long_lost(sends=each.sends, sent_at=each.sent_at, now=now)

    def send_again(self, now: float) -> None:
        """New connections: send again what is not acknowledged, without a penalty and without a pause."""
        self._note_lost(self.sender.mark_all_lost(), now)
        self._timer.on_ack()
        self._pause = ErrorPause()
        self._settle_gate()

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` has to be called; ``None``: not on its own."""
        times = (self._timer.expires_at, self._acks.due_at, self._pause.until)
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what the clock makes due; harmless when nothing is."""
        if self._timer.expires_at is None or now < self._timer.expires_at:
            return
        timeout, since = self._timer.timeout, self.sender.in_flight_since
        if since is not None and now < since + timeout:
            self._timer.start(since, now)  # it ran for data that has only just been sent
        elif since is not None:
            lost = self.sender.mark_lost(now, timeout)
            self._note_lost(lost, now)
            self._counters.losses += len(lost)
            self._timer.on_expiry()
            self._cap.on_loss()
            self._settle_gate()
        elif self.sender.unsent and not self.sender.credit:
            self._timer.on_expiry()
            self._probe_due = True
        else:
            self._timer.start(now, now)  # what waits, waits for a pause or for a place in the gate

    def sendings(self, limit: int, short_limit: int, now: float) -> list[Sending]:
        """The stream bytes that may be sent now, drained.

        Args:
            limit: Stream bytes that fit one frame.
            short_limit: Those that fit one whose message has one fragment.
            now: The time.
        """
        if self._pause.active(now):
            return []
        segments = self._next_segments(limit, short_limit, now)
        probe = self._probe_due and not segments and not self.sender.credit
        self._probe_due = False
        if probe:
            self._counters.window_probes += 1
            return [Sending(self.sender.next_offset, b"", False, ack_now=True)]
        blocked = (
            self.sender.waiting
            or self.sender.in_flight >= self._cap.cap
            or self.sender.small_in_flight >= SMALL_FRAMES
            or not self.sender.credit
        )
        # One question at a time: its answer is on the way as long as it is not acknowledged.
        asks = blocked and segments and self.sender.acked >= self._asked
        if asks:
            self._asked = segments[-1].end
        last = len(segments) - 1
        return [
            Sending(segment.offset, segment.data, segment.fin, ack_now=bool(asks) and index == last)
            for index, segment in enumerate(segments)
        ]

    def _next_segments(self, limit: int, short_limit: int, now: float) -> list[Segment]:
        segments: list[Segment] = []
        while self.sender.waiting and self.sender.in_flight < self._cap.cap and self._gate.acquire():
            long = self.size.long_allowed(self.sender.long_in_flight)
            segment = self.sender.next_segment(limit if long else short_limit, now)
            if segment is None:
                self._gate.release(1)
                break
            self._places += 1
            if segment.sends == 1:
                self._counters.bytes_sent += len(segment.data)
            else:
                self._counters.retransmits += 1
            segments.append(segment)
        return segments

    def run_timer(self, now: float) -> None:
        """Start or stop the retransmission timer; call it when all that may be sent was sent."""
        outstanding = self.sender.outstanding
        self._timer.run(outstanding, now)
        if not outstanding:
            self.outstanding_since = None
        elif self.outstanding_since is None:
            self.outstanding_since = now

    def ack_due(self, now: float) -> bool:
        """Whether a bare ACK has to go out now."""
        return self._acks.due_at is not None and now >= self._acks.due_at

    def position(self, now: float, *, sacks: bool) -> tuple[int, int]:
        """``(ack, window)`` for a frame that goes out now; ``sacks`` when it carries SACK ranges."""
        ack, window = self.receiver.ack, self.receiver.window
        if sacks or not self.receiver.gap:
            # A frame without ranges does not tell of bytes above a gap, so an ACK stays due then.
            self._acks.on_sent(now, ack=ack, edge=ack + window)
        return ack, window

    def stop(self, *, drop_received: bool) -> None:
        """Send nothing more, and give back what is shared; positions stay readable.

        Args:
            drop_received: Whether received bytes that were not consumed are dropped as well.
        """
        self.sender.drop()
        if drop_received:
            self.receiver.drop()
        self._settle_gate()

    def _settle_gate(self) -> None:
        surplus = self._places - self.sender.in_flight
        if surplus > 0:
            self._places -= surplus
            self._gate.release(surplus)
