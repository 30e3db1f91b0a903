"""The sending half of one stream: what was written, sent, acknowledged, lost (docs/protocol.md section 4)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Final

from emissary_lib.protocol.constants import (
    DEFAULT_CAPACITY,
    INITIAL_WINDOW,
    MAX_PAYLOAD,
    SHORT_PAYLOAD,
    SMALL_FRAMES,
)
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.stream.tls_alerts import LONGEST, ends_in_tls_alert

#: Pieces of what was written are joined up to this many bytes, so that single bytes cost no object each.
JOINED: Final = 4096


class Segment:
    """What one frame carried, kept until it is acknowledged.

    Attributes:
        offset: Position of its first byte.
        data: The stream bytes; empty for a bare FIN.
        fin: Whether it ends the stream.
        small: Whether it could have carried more (section 4.5).
        sent_at: When it was last sent, in seconds on the caller's monotonic clock.
        sends: How often it was sent. Only a segment that was sent once gives a round-trip sample (Karn).
        lost: Taken for lost; to be sent again.
        waits: A FIN that is alone unacknowledged: in flight no more, but sent again when its time is up.
    """

    __slots__ = ("data", "fin", "lost", "offset", "sends", "sent_at", "small", "waits")

    def __init__(self, offset: int, data: bytes, fin: bool, small: bool, sent_at: float) -> None:
        self.offset = offset
        self.data = data
        self.fin = fin
        self.small = small
        self.sent_at = sent_at
        self.sends = 1
        self.lost = False
        self.waits = False

    @property
    def end(self) -> int:
        """The position behind it; a FIN takes one, as in TCP."""
        return self.offset + len(self.data) + self.fin

    @property
    def long(self) -> bool:
        """Whether its message has more than one fragment (section 4.8)."""
        return len(self.data) > SHORT_PAYLOAD


class Acked(Record):
    """What an acknowledgement brought.

    Attributes:
        segments: What it newly acknowledged, cumulatively or by SACK.
        rtt: Seconds since the newest of them that was sent once was sent; ``None`` without one.
    """

    __slots__ = ("rtt", "segments")

    segments: list[Segment]
    rtt: float | None

    def __init__(self, segments: list[Segment], rtt: float | None) -> None:
        put = object.__setattr__
        put(self, "segments", segments)
        put(self, "rtt", rtt)


class StreamSender:
    """Bytes on their way out, from ``write`` until they are acknowledged.

    Holds at most ``capacity`` bytes, unsent and unacknowledged together: ``write`` takes no more.

    Args:
        capacity: The send buffer, in bytes.
        start: Position of the first byte that will be written.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY, *, start: int = 0) -> None:
        self._capacity = capacity
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._segments: deque[Segment] = deque()  # in flight or lost
        # SACKed segments, those that touch joined: start, end, stream bytes. Between two of them at least one
        # segment is in flight or lost, so a peer that leaves a gap open cannot make them many.
        self._sacked: list[tuple[int, int, int]] = []
        self._base = start
        self._next = start
        self._shown = start  # up to here the peer may have the stream though nothing was sent
        self._edge = start + INITIAL_WINDOW
        self._eof = False
        self._fin_sent = False
        self._buffered = 0
        self._written = start
        self._last = b""  # of what was written
        self._lost = 0  # segments that are to be sent again
        self.in_flight = 0
        self.small_in_flight = 0
        self.long_in_flight = 0

    @property
    def acked(self) -> int:
        """Everything below this position has arrived at the peer."""
        return self._base

    @property
    def written(self) -> int:
        """Position behind the last byte that was ever written; without the FIN."""
        return self._written

    @property
    def undelivered(self) -> int:
        """Bytes written that have not arrived at the peer; stays readable after :meth:`drop`."""
        return max(0, self._written - self._base)

    @property
    def next_offset(self) -> int:
        """Position behind the last byte (or FIN) that was ever sent."""
        return self._next

    @property
    def room(self) -> int:
        """Bytes that ``write`` would take now."""
        return 0 if self._eof else self._capacity - self._buffered

    @property
    def buffered(self) -> int:
        """Bytes held: unsent, and sent but not acknowledged."""
        return self._buffered

    @property
    def unsent(self) -> int:
        """Bytes written but never sent."""
        return self._unsent_bytes

    @property
    def edge(self) -> int:
        """First position that the peer's window does not allow."""
        return self._edge

    @property
    def credit(self) -> int:
        """Bytes that the peer's window still allows to be sent for the first time."""
        return max(0, self._edge - self._next)

    @property
    def outstanding(self) -> bool:
        """Whether anything was sent and not acknowledged, or waits to be sent: a timer has to run."""
        return (
            bool(self._segments or self._sacked)
            or self._unsent_bytes > 0
            or (self._eof and not self._fin_sent)
        )

    @property
    def outstanding_segments(self) -> bool:
        """Whether a segment was sent that is not SACKed."""
        return bool(self._segments)

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be sent, for the first time or again."""
        return self._unsent_bytes > 0 or (self._eof and not self._fin_sent) or self._lost > 0

    @property
    def in_flight_since(self) -> float | None:
        """When the frame that has been in flight for longest was sent; ``None`` when none is."""
        flying = (each.sent_at for each in self._segments if not each.lost)
        return min(flying, default=None)

    @property
    def only_fin_unacked(self) -> bool:
        """Whether all but the FIN is acknowledged, and the FIN was sent."""
        return self._fin_sent and self._base >= self._next - 1

    @property
    def fin_sent(self) -> bool:
        """Whether everything, the FIN included, was sent at least once."""
        return self._fin_sent

    @property
    def eof(self) -> bool:
        """Whether ``write_eof`` was called."""
        return self._eof

    @property
    def complete(self) -> bool:
        """Whether the FIN, and so everything, is acknowledged."""
        return self._fin_sent and not self._segments and not self._sacked

    def write(self, data: bytes) -> int:
        """Take bytes to send; returns how many were taken, from the front.

        Raises:
            LocalProtocolError: After ``write_eof``.
        """
        if self._eof:
            raise LocalProtocolError("write after the end of the stream")
        taken = min(len(data), self._capacity - self._buffered)
        if self._unsent and len(self._unsent[-1]) + taken <= JOINED:
            self._unsent[-1] += data[:taken]
        else:
            # Cut here, once, so that sending never copies the rest of something long again and again.
            self._unsent.extend(
                data[at : min(at + MAX_PAYLOAD, taken)] for at in range(0, taken, MAX_PAYLOAD)
            )
        if taken:
            self._unsent_bytes += taken
            self._buffered += taken
            self._written += taken
            self._last = (self._last + data[max(0, taken - LONGEST) : taken])[-LONGEST:]
        return taken

    def show(self) -> None:
        """What was written so far was shown to the peer beside the stream (section 3.7): it may have it."""
        self._shown = self._written

    def write_eof(self) -> None:
        """No more bytes will be written. Idempotent."""
        self._eof = True

    def receive_window(self, ack: int, window: int) -> bool:
        """Note the peer's window; the edge never moves back (section 4.2). Whether it moved."""
        moved = ack + window > self._edge
        self._edge = max(self._edge, ack + window)
        return moved

    def receive_ack(self, ack: int, ranges: Iterable[tuple[int, int]], now: float) -> Acked:
        """Drop what is acknowledged, mark what is SACKed; ``ranges`` ascend and do not overlap.

        Raises:
            RemoteProtocolError: An acknowledgement of something that was never sent.
        """
        ranges = list(ranges)
        if ack > self._next and ack <= self._shown:
            self._skip(ack - self._next)
        highest = max([ack, *(end for _start, end in ranges)])
        if highest > self._next:
            raise RemoteProtocolError(f"the peer acknowledged {highest}, only {self._next} was sent")
        newly: list[Segment] = []
        while self._segments and self._segments[0].end <= ack:
            segment = self._segments.popleft()
            self._buffered -= len(segment.data)
            newly.append(segment)
        while self._sacked and self._sacked[0][1] <= ack:
            self._buffered -= self._sacked.pop(0)[2]
        self._base = max(self._base, ack)
        if ranges:
            newly += self._sack(ranges)
        if self._segments and self._segments[0].fin and self._segments[0].end == self._base + 1:
            newly += self._let_fin_wait()
        for segment in newly:
            self._leave_flight(segment)
            self._lost -= segment.lost
            segment.lost = False
        samples = [segment.sent_at for segment in newly if segment.sends == 1]
        return Acked(newly, now - max(samples) if samples else None)

    def _skip(self, count: int) -> None:
        """The peer has the next ``count`` bytes, which were shown: they need not be sent."""
        self._next += count
        self._unsent_bytes -= count
        self._buffered -= count
        while count:
            piece = self._unsent.popleft()
            if len(piece) > count:
                self._unsent.appendleft(piece[count:])
            count -= min(count, len(piece))

    def _let_fin_wait(self) -> list[Segment]:
        """All but the FIN is acknowledged, and that may take long (section 4.1): it holds nothing up.

        Returns:
            What was acknowledged of its segment.
        """
        last = self._segments[0]
        if not last.data:
            if not last.lost:
                self._leave_flight(last)
                last.waits = True
            return []
        acked = Segment(last.offset, last.data, False, last.small, last.sent_at)
        fin = Segment(last.end - 1, b"", True, True, last.sent_at)
        acked.sends, acked.lost = last.sends, last.lost
        fin.sends, fin.waits = last.sends, True
        self._segments[0] = fin
        self._buffered -= len(last.data)
        return [acked]

    def _sack(self, ranges: list[tuple[int, int]]) -> list[Segment]:
        """Take out the segments that lie in the ranges, in one pass: the peer has their bytes for good."""
        sacked: list[Segment] = []
        rest: deque[Segment] = deque()
        following = iter(ranges)
        start, end = next(following)
        for segment in self._segments:
            while segment.offset >= end:
                start, end = next(following, (self._next, self._next))
            inside = segment.offset >= start and segment.end <= end
            (sacked if inside else rest).append(segment)
        if sacked:
            self._segments = rest
            self._join((segment.offset, segment.end, len(segment.data)) for segment in sacked)
        return sacked

    def _join(self, spans: Iterable[tuple[int, int, int]]) -> None:
        joined: list[tuple[int, int, int]] = []
        for start, end, size in sorted([*self._sacked, *spans]):
            if joined and joined[-1][1] == start:
                first, _, before = joined.pop()
                start, size = first, before + size
            joined.append((start, end, size))
        self._sacked = joined

    def mark_lost(self, now: float, timeout: float) -> list[Segment]:
        """Take for lost what has been in flight for ``timeout`` seconds; returns what is newly lost."""
        return self._lose_all(each for each in self._segments if each.sent_at + timeout <= now)

    def mark_all_lost(self) -> list[Segment]:
        """Take everything in flight for lost, and return it: the connections it was sent over are gone."""
        return self._lose_all(self._segments)

    def mark_long_lost(self) -> None:
        """Take for lost every message in flight that is long (section 4.8)."""
        self._lose_all(each for each in self._segments if each.long)

    def mark_oldest_lost(self) -> list[Segment]:
        """Take the oldest segment that is not SACKed for lost (section 4.6); returns it if it is so newly."""
        return self._lose_all(itertools.islice(self._segments, 1))

    def _lose_all(self, segments: Iterable[Segment]) -> list[Segment]:
        newly = [each for each in segments if not each.lost]
        for segment in newly:
            self._lose(segment)
        return newly

    def _lose(self, segment: Segment) -> None:
        self._leave_flight(segment)
        segment.lost, segment.waits = True, False
        self._lost += 1

    def next_segment(self, limit: int, now: float) -> Segment | None:
        """The next segment to send, or ``None`` if nothing may be sent now.

        Lost segments come first. New ones obey the peer's window and the coalescing rule of section 4.5.

        Args:
            limit: Stream bytes that fit one frame.
            now: Becomes the segment's ``sent_at``.
        """
        for index, segment in enumerate(self._segments if self._lost else ()):
            if segment.lost:
                if len(segment.data) > limit:
                    segment = self._cut(index, limit)
                segment.lost = False
                self._lost -= 1
                segment.sends += 1
                segment.sent_at = now
                self._enter_flight(segment)
                return segment
        return self._new_segment(limit, now)

    def _cut(self, index: int, limit: int) -> Segment:
        """Cut a lost segment in two; returns the first, of ``limit`` bytes."""
        whole = self._segments[index]
        first = Segment(whole.offset, whole.data[:limit], False, False, whole.sent_at)
        first.sends, first.lost = whole.sends, True
        whole.offset, whole.data = whole.offset + limit, whole.data[limit:]
        self._segments.insert(index, first)
        self._lost += 1
        return first

    def _new_segment(self, limit: int, now: float) -> Segment | None:
        size = min(self._unsent_bytes, self.credit, limit)
        fin = self._eof and not self._fin_sent and size == self._unsent_bytes
        if not size and not fin:
            return None
        small = size < limit
        if small and not fin:
            cut_by_window = size < self._unsent_bytes
            if cut_by_window and self.in_flight:
                return None  # a few bytes of credit are not worth a message while an ACK is on its way
            if not cut_by_window and self.small_in_flight >= SMALL_FRAMES:
                return None
        segment = Segment(self._next, self._acquire(size), fin, small, now)
        self._next = segment.end
        self._fin_sent = self._fin_sent or fin
        self._segments.append(segment)
        self._enter_flight(segment)
        return segment

    def _acquire(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            chunk = self._unsent.popleft()
            if len(chunk) > missing:
                self._unsent.appendleft(chunk[missing:])
                chunk = chunk[:missing]
            parts.append(chunk)
            missing -= len(chunk)
        self._unsent_bytes -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _enter_flight(self, segment: Segment) -> None:
        self.in_flight += 1
        self.small_in_flight += segment.small
        self.long_in_flight += segment.long

    def _leave_flight(self, segment: Segment) -> None:
        if not (segment.lost or segment.waits):
            self.in_flight -= 1
            self.small_in_flight -= segment.small
            self.long_in_flight -= segment.long

    def last(self, position: int) -> bytes:
        """What was written from ``position`` on; empty if that is nothing, or more than is kept."""
        count = self._written - position
        return self._last[len(self._last) - count :] if 0 < count <= len(self._last) else b""

    @property
    def said_all(self) -> bool:
        """Whether the stream is over for who writes it, by TLS alone perhaps (docs/protocol.md 6-22)."""
        return self._eof or ends_in_tls_alert(self._last)

    def settle(self, handed_over: int) -> None:
        """It is over, and the peer has passed on just this much, whatever it had acknowledged."""
        # The FIN carries nothing: who has all bytes may be without it.
        self._base = self._written + 1 if handed_over >= self._written else handed_over

    def drop(self) -> None:
        """Forget everything: the stream was aborted."""
        self._unsent.clear()
        self._segments.clear()
        self._sacked.clear()
        self._unsent_bytes = self._buffered = self._lost = 0
        self.in_flight = self.small_in_flight = self.long_in_flight = 0
        self._eof = self._fin_sent = True
