"""The receiving half of one stream: reorder, trim, deliver (docs/protocol.md sections 4.1 and 4.2)."""

from __future__ import annotations

import bisect
from collections import deque

from emissary_lib.protocol.constants import DEFAULT_CAPACITY, MAX_SACK_RANGES
from emissary_lib.protocol.errors import FlowControlError, LocalProtocolError

#: Pieces kept above a gap. More are dropped, and so sent again later: this bounds what bookkeeping costs
#: when a peer sends single bytes out of order.
MAX_PIECES = 4096

#: Bytes that are ready are joined up to this many, so that tiny frames cost no object each.
JOINED = 4096


class StreamReceiver:
    """Bytes on their way in, from the frames until the application has taken them.

    Holds at most ``capacity`` bytes, in order and out of order together.

    Args:
        capacity: The receive buffer, in bytes; at least ``INITIAL_WINDOW``.
        start: Position of the first byte to come; everything below it was handled elsewhere.
        holds_end: Whether the FIN is acknowledged only after :meth:`release_end`.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY, *, start: int = 0, holds_end: bool = False) -> None:
        self._capacity = capacity
        self._ready: deque[bytes] = deque()
        self._head = 0  # bytes of the first ready chunk that were consumed already
        self._consumed = start
        self._next = start
        self._starts: list[int] = []  # of the pieces above the gap, ascending
        self._pieces: dict[int, bytes] = {}
        self._kept = 0  # bytes in the pieces
        self._final: int | None = None
        self._dropped = False
        self._holds_end = holds_end

    @property
    def ack(self) -> int:
        """What to acknowledge: everything below this position has arrived; the FIN counts as one."""
        return self._next + self.ended

    @property
    def received(self) -> int:
        """Position behind the last byte that arrived in order."""
        return self._next

    @property
    def arrived(self) -> int:
        """Distinct bytes that have ever arrived, in order or not, counted as a position."""
        return self._next + self._kept

    @property
    def gap(self) -> bool:
        """Whether bytes have arrived above a gap."""
        return bool(self._starts)

    @property
    def edge(self) -> int:
        """First position that would be refused; never moves back."""
        return self._consumed + self._capacity

    @property
    def window(self) -> int:
        """What a frame announces beside ``ack``."""
        return max(0, self.edge - self.ack)

    @property
    def final_size(self) -> int | None:
        """Length of the stream, once a FIN told it."""
        return self._final

    @property
    def complete(self) -> bool:
        """Whether every byte and the FIN have arrived."""
        return self._final == self._next

    @property
    def ended(self) -> bool:
        """Whether it is complete, and its end need not be held back."""
        return self.complete and not self._holds_end

    def release_end(self) -> None:
        """The end of the stream may be acknowledged."""
        self._holds_end = False

    @property
    def drained(self) -> bool:
        """Whether the stream is complete and the application has taken all of it."""
        return self.complete and self._consumed == self._next

    @property
    def handed_over(self) -> int:
        """Everything below this position was taken by the application; the FIN counts as one."""
        return self._consumed + self.drained

    @property
    def buffered(self) -> int:
        """Bytes held, in order and out of order."""
        return self.arrived - self._consumed

    def receive(self, offset: int, data: bytes, fin: bool) -> bool:
        """Take one frame's bytes, in any order, again and again.

        Returns:
            Whether there was anything new in it.

        Raises:
            FlowControlError: Bytes past the window or the final size, or a second final size.
        """
        end = offset + len(data)
        if end > self.edge:
            raise FlowControlError(f"the peer sent up to {end}, past the window's edge {self.edge}")
        new = self._note_final(end, fin)
        if self._final is not None and end > self._final:
            raise FlowControlError(f"the peer sent up to {end}, past the final size {self._final}")
        if end <= self._next or not data:
            return new
        if offset <= self._next:
            self._deliver(data if offset == self._next else data[self._next - offset :])
            self._drain_pieces()
            return True
        return self._keep(offset, data) or new

    def _note_final(self, end: int, fin: bool) -> bool:
        if not fin:
            return False
        if self._final is not None and self._final != end:
            raise FlowControlError(f"the peer named two final sizes, {self._final} and {end}")
        if end < self._next or (self._starts and end < self._piece_end(self._starts[-1])):
            raise FlowControlError(f"the peer's final size {end} is below what it has sent")
        new = self._final is None
        self._final = end
        return new

    def _deliver(self, data: bytes) -> None:
        if self._ready and len(self._ready[-1]) + len(data) <= JOINED:
            self._ready[-1] += data
        else:
            self._ready.append(data)
        self._next += len(data)

    def _drain_pieces(self) -> None:
        while self._starts and self._starts[0] <= self._next:
            start = self._starts.pop(0)
            piece = self._pieces.pop(start)
            self._kept -= len(piece)
            if start + len(piece) > self._next:
                self._deliver(piece[self._next - start :])

    def _piece_end(self, start: int) -> int:
        return start + len(self._pieces[start])

    def _keep(self, offset: int, data: bytes) -> bool:
        """Store what is new of ``data`` above the gap, without overlap; whether anything was stored."""
        stored = False
        end = offset + len(data)
        index = bisect.bisect_right(self._starts, offset)
        cursor = offset
        if index:
            cursor = max(cursor, self._piece_end(self._starts[index - 1]))
        while cursor < end and len(self._starts) < MAX_PIECES:
            following = self._starts[index] if index < len(self._starts) else end
            stop = min(end, following)
            if cursor < stop:
                self._pieces[cursor] = data[cursor - offset : stop - offset]
                self._kept += stop - cursor
                self._starts.insert(index, cursor)
                index += 1
                stored = True
            if stop == end:
                break
            cursor = self._piece_end(following)
            index += 1
        return stored

    def sack_ranges(self) -> list[tuple[int, int]]:
        """What has arrived above the gap, at most ``MAX_SACK_RANGES`` ranges, lowest first.

        A range that reaches a known final size includes the FIN's offset, unless that is held back.
        """
        ranges: list[tuple[int, int]] = []
        for start in self._starts:
            end = self._piece_end(start)
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            elif len(ranges) == MAX_SACK_RANGES:
                return ranges
            else:
                ranges.append((start, end))
        if ranges and ranges[-1][1] == self._final and not self._holds_end:
            ranges[-1] = (ranges[-1][0], self._final + 1)
        return ranges

    def peek(self) -> memoryview:
        """The next bytes for the application, in order; empty when there are none now."""
        return memoryview(self._ready[0])[self._head :] if self._ready else memoryview(b"")

    def consume(self, count: int) -> None:
        """The application has taken the first ``count`` bytes of what ``peek`` showed; frees window.

        Does nothing after :meth:`drop`, which may have come between ``peek`` and this.

        Raises:
            LocalProtocolError: More than ``peek`` showed.
        """
        if self._dropped:
            return
        if not 0 <= count <= len(self.peek()):
            raise LocalProtocolError(f"{count} bytes consumed, {len(self.peek())} were ready")
        if not count:
            return
        self._head += count
        self._consumed += count
        if self._head == len(self._ready[0]):
            self._ready.popleft()
            self._head = 0

    def drop(self) -> None:
        """Forget everything: the stream was aborted."""
        self._dropped = True
        self._ready.clear()
        self._starts.clear()
        self._pieces.clear()
        self._kept = 0
        self._head = 0
        self._consumed = self._next
