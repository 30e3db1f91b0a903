"""When an acknowledgement is due (docs/protocol.md section 4.3)."""

from __future__ import annotations

from emissary_lib.protocol.constants import ACK_DELAY, ACK_PROGRESS, ACK_REPEAT


class AckSchedule:
    """Decides when to acknowledge: rarely, because each ACK costs money; at once where a sender waits.

    Args:
        capacity: The receiver's capacity in bytes; a quarter of it is the most that goes unacknowledged.
        edge: The window's edge that the peer knows at the start.
        acked: The position that the peer knows to be acknowledged at the start.
    """

    def __init__(self, capacity: int, *, edge: int, acked: int) -> None:
        self._quarter = capacity // 4
        self._told_edge = edge
        self._told_ack = acked
        self._told_at: float | None = None
        self._due_at: float | None = None
        self._wanted: int | None = None

    @property
    def due_at(self) -> float | None:
        """When a bare ACK has to go out, unless a DATA frame takes it along before; ``None``: never."""
        return self._due_at

    def on_arrival(self, now: float, *, ack: int, new: bool, fin: bool) -> None:
        """A frame with stream bytes arrived; ``fin`` when it completed the stream."""
        wanted = self._wanted is not None and ack >= self._wanted
        if fin or wanted or ack - self._told_ack >= self._quarter:
            self._due_by(now)
            if wanted:
                self._wanted = None
        elif new:
            self._due_by(now + ACK_DELAY)
        else:
            # The peer may have missed what it was told. A resend comes in volleys, and one answer does for
            # all of them that come at once.
            self._due_by(now if self._told_at is None else max(now, self._told_at + ACK_REPEAT))

    def on_demand(self, now: float, *, end: int, ack: int) -> None:
        """A frame with ACK-NOW arrived: acknowledge now, and again once all below its end is there."""
        self._due_by(now)
        if end > ack:
            self._wanted = max(end, self._wanted or 0)

    def on_consume(self, now: float, *, edge: int) -> None:
        """The application took bytes, so the window's edge may have moved."""
        if edge - self._told_edge >= self._quarter:
            self._due_by(now)

    def on_end_waits(self, now: float) -> None:
        """As :meth:`on_consume`, where nothing more will come and the end is not acknowledged yet."""
        self._due_by(now + ACK_PROGRESS)

    def on_end(self, now: float) -> None:
        """The end of the stream may be acknowledged."""
        self._due_by(now)

    def on_sent(self, now: float, *, ack: int, edge: int) -> None:
        """A frame with this acknowledgement and window goes out."""
        self._told_at = now
        self._told_ack = max(ack, self._told_ack)
        self._told_edge = max(edge, self._told_edge)
        self._due_at = None

    def _due_by(self, at: float) -> None:
        self._due_at = at if self._due_at is None else min(at, self._due_at)
