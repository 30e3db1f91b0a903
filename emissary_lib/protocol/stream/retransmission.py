"""The retransmission timer: RFC 6298 with the bounds of docs/protocol.md section 4.4."""

from __future__ import annotations

from emissary_lib.protocol.constants import RTO_INITIAL, RTO_MAX, RTO_MIN


class RetransmissionTimer:
    """How long to wait for an acknowledgement; all times in seconds.

    Attributes:
        expires_at: When it runs out, on the caller's monotonic clock; ``None`` while nothing is outstanding.
    """

    def __init__(self) -> None:
        self.expires_at: float | None = None
        self._smoothed: float | None = None
        self._variation = 0.0
        self._back_off = 1

    @property
    def round_trip(self) -> float | None:
        """Smoothed round-trip time, the peer's delay of acknowledgements included."""
        return self._smoothed

    @property
    def timeout(self) -> float:
        """Seconds the timer is set to, back-off included."""
        base = RTO_INITIAL if self._smoothed is None else self._smoothed + 4 * self._variation
        return min(RTO_MAX, max(RTO_MIN, base) * self._back_off)

    def sample(self, round_trip: float) -> None:
        """Take one measurement (RFC 6298 section 2), of a frame that was sent once only."""
        if self._smoothed is None:
            self._smoothed, self._variation = round_trip, round_trip / 2
            return
        self._variation += (abs(self._smoothed - round_trip) - self._variation) / 4
        self._smoothed += (round_trip - self._smoothed) / 8

    def acknowledged(self) -> None:
        """Something new was acknowledged, or a shut window opened: the back-off ends, and the timer stops."""
        self._back_off = 1
        self.expires_at = None

    def start(self, since: float, now: float) -> None:
        """Let it run out one timeout after ``since``, or at once if that is past."""
        self.expires_at = max(now, since + self.timeout)

    def expired(self) -> None:
        """It ran out: the next wait is twice as long."""
        if self.timeout < RTO_MAX:
            self._back_off *= 2
        self.expires_at = None

    def run(self, outstanding: bool, now: float) -> None:
        """Start it if something is outstanding and it does not run; stop it if nothing is."""
        if not outstanding:
            self.expires_at = None
        elif self.expires_at is None:
            self.expires_at = now + self.timeout
