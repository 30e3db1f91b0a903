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
        self._srtt: float | None = None
        self._rttvar = 0.0
        self._back_off = 1

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time, the peer's delay of acknowledgements included."""
        return self._srtt

    @property
    def base(self) -> float:
        """Seconds the timer is set to while nothing has been lost."""
        base = RTO_INITIAL if self._srtt is None else self._srtt + 4 * self._rttvar
        return min(RTO_MAX, max(RTO_MIN, base))

    @property
    def timeout(self) -> float:
        """Seconds the timer is set to, back-off included."""
        return min(RTO_MAX, self.base * self._back_off)

    def sample(self, rtt: float) -> None:
        """Take one measurement (RFC 6298 section 2), of a frame that was sent once only."""
        if self._srtt is None:
            self._srtt, self._rttvar = rtt, rtt / 2
            return
        self._rttvar += (abs(self._srtt - rtt) - self._rttvar) / 4
        self._srtt += (rtt - self._srtt) / 8

    def on_ack(self) -> None:
        """Something new was acknowledged, or a shut window opened: the back-off ends, and the timer stops."""
        self._back_off = 1
        self.expires_at = None

    def start(self, since: float, now: float) -> None:
        """Let it run out one timeout after ``since``, or at once if that is past."""
        self.expires_at = max(now, since + self.timeout)

    def on_expiry(self) -> None:
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
