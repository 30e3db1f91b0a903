"""Whether the peer is still there (docs/protocol.md section 4.7)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from emissary_lib.protocol.constants import PING_INTERVAL, PING_WHEN_UNACKED, PONG_DEADLINE


@dataclass(frozen=True, slots=True)
class KeepaliveTimes:
    """All in seconds.

    Attributes:
        interval: Silence after which a PING goes out.
        when_unacked: The same while data is unacknowledged.
        deadline: How long the answer may take.
    """

    interval: float = PING_INTERVAL
    when_unacked: float = PING_WHEN_UNACKED
    deadline: float = PONG_DEADLINE


class Beat(enum.Enum):
    """What to do now."""

    NOTHING = "nothing"
    PING = "ping"
    DEAD = "dead"


class Keepalive:
    """The dialer's watch over its peer: anything heard counts, silence is asked about, then given up on."""

    def __init__(self, times: KeepaliveTimes, now: float) -> None:
        self._times = times
        self._heard = now
        self._asked: float | None = None

    def heard(self, now: float) -> None:
        """Anything at all came from the peer."""
        self._heard = now
        self._asked = None

    def next_timeout(self, outstanding: bool) -> float:
        """When :meth:`handle_timeout` has to be called, on the clock of ``now``."""
        if self._asked is not None:
            return self._asked + self._times.deadline
        return self._heard + (self._times.when_unacked if outstanding else self._times.interval)

    def handle_timeout(self, now: float, outstanding: bool) -> Beat:
        """Tell what is due."""
        if now < self.next_timeout(outstanding):
            return Beat.NOTHING
        if self._asked is not None:
            return Beat.DEAD
        self._asked = now
        return Beat.PING
