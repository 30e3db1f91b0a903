"""Whether the peer is still there (docs/protocol.md section 4.7)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from emissary_lib.protocol.constants import PING_INTERVAL, PING_REPEAT, PING_WHEN_UNACKED, PONG_DEADLINE


@dataclass(frozen=True, slots=True)
class KeepaliveTimes:
    """All in seconds.

    Attributes:
        interval: Silence, of the peer's or of ours, after which a PING goes out.
        when_unacked: The same while data is unacknowledged.
        deadline: How long the answer may take.
        repeat: How often PING is repeated meanwhile.
    """

    interval: float = PING_INTERVAL
    when_unacked: float = PING_WHEN_UNACKED
    deadline: float = PONG_DEADLINE
    repeat: float = PING_REPEAT


class KeepaliveAction(enum.Enum):
    """What to do now."""

    NOTHING = "nothing"
    PING = "ping"
    PROBE = "probe"
    LINK_DEAD = "link dead"
    PEER_DEAD = "peer dead"


class DialerKeepalive:
    """The dialer's watch over its peer: anything heard counts, silence is asked about, then given up on.

    It also breaks the dialer's own silence, by which the relay tells that the dialer is there: a peer that is
    heard and needs no answer must not keep it up.
    """

    def __init__(self, times: KeepaliveTimes, now: float) -> None:
        self._times = times
        self._received = now
        self._sent = now
        self._asked: float | None = None  # the first PING since then
        self._repeat_at = now

    def on_received(self, now: float) -> None:
        """Anything at all came from the peer."""
        self._received = now
        self._asked = None

    def on_sent(self, now: float) -> None:
        """Something goes out to the peer."""
        self._sent = now

    def answered(self, now: float) -> None:
        """The bridge answered; that says nothing of the peer, and a WebSocket that works."""

    def restarted(self, now: float) -> None:
        """The peer can be reached again: silence counts from now on."""
        self.on_received(now)
        self.on_sent(now)

    def on_suspend(self) -> None:
        """Our clock stood still for longer than anybody can tell: ask at once, and anew if we had asked."""
        self._asked = None
        self._sent = float("-inf")

    def next_timeout(self, unacked_since: float | None, *, asking: bool = True) -> float | None:
        """When :meth:`handle_timeout` has to be called, on the clock of ``now``.

        Args:
            unacked_since: Since when data has been unacknowledged or waiting; ``None`` when none is.
            asking: Whether anybody can be asked; if not, nothing is due.
        """
        if not asking:
            return None
        if self._asked is not None:
            return min(self._repeat_at, self._asked + self._times.deadline)
        idle = min(self._received, self._sent) + self._times.interval
        if unacked_since is None:
            return idle
        return min(idle, max(self._received, unacked_since) + self._times.when_unacked)

    def handle_timeout(
        self, now: float, unacked_since: float | None, *, asking: bool = True
    ) -> KeepaliveAction:
        """Tell what is due."""
        due = self.next_timeout(unacked_since, asking=asking)
        if due is None or now < due:
            return KeepaliveAction.NOTHING
        if self._asked is None:
            self._asked = now
        elif now >= self._asked + self._times.deadline:
            return KeepaliveAction.LINK_DEAD
        self._repeat_at = now + self._times.repeat
        self.on_sent(now)
        return KeepaliveAction.PING
