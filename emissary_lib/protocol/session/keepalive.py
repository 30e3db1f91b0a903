"""Whether the peer is still there: the dialer's watch (docs/protocol.md 4.7), and the relay's (5.5)."""

from __future__ import annotations

import enum

from emissary_lib.protocol.constants import (
    GRACE,
    PING_INTERVAL,
    PING_REPEAT,
    PING_WHEN_UNACKED,
    PONG_DEADLINE,
    PROBE_DEADLINE,
    PROBE_WHEN_UNACKED,
)
from emissary_lib.protocol.record import Record


class KeepaliveTimes(Record):
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

    def on_bridge_answer(self, now: float) -> None:
        """The bridge answered; that says nothing of the peer, and a WebSocket that works."""

    def restart(self, now: float) -> None:
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


class ProbeTimes(Record):
    """All in seconds.

    Attributes:
        silence: Silence that is asked about, by anybody: not above the grace. A dialer that sends into a
            dead WebSocket of ours resumes, and then waits for us no longer than that.
        when_unacked: The same while data is unacknowledged.
        deadline: How long the bridge's answer may take.
        orphan: Silence of the dialer after which nobody is there any more.
    """

    silence: float = GRACE
    when_unacked: float = PROBE_WHEN_UNACKED
    deadline: float = PROBE_DEADLINE
    orphan: float = PING_INTERVAL + PONG_DEADLINE + GRACE


class RelayKeepalive:
    """Asks the bridge when the dialer is silent: is our own link dead, or is the dialer gone?"""

    def __init__(self, times: ProbeTimes, now: float) -> None:
        self._times = times
        self._received = now
        self._quiet_since = now  # the dialer's last frame, or the bridge's last answer
        self._asked: float | None = None

    def on_received(self, now: float) -> None:
        """A frame came from the dialer."""
        self._received = self._quiet_since = now
        self._asked = None

    def on_sent(self, now: float) -> None:
        """Something goes out to the dialer: no reason for it to think anything of us."""

    def on_bridge_answer(self, now: float) -> None:
        """The bridge answered on our WebSocket, so that works."""
        self._quiet_since = now
        self._asked = None

    def restart(self, now: float) -> None:
        """The dialer can be reached again. That it is there is not said: its silence counts on."""
        self.on_bridge_answer(now)

    def on_suspend(self) -> None:
        """Nothing: an invocation is never frozen while it runs."""

    @property
    def orphaned_at(self) -> float:
        """When the dialer will be taken to be gone, if it stays silent."""
        return self._received + self._times.orphan

    def next_timeout(self, unacked_since: float | None, *, asking: bool = True) -> float:
        """When :meth:`handle_timeout` has to be called, on the clock of ``now``.

        Args:
            unacked_since: Since when data has been unacknowledged or waiting; ``None`` when none is.
            asking: Whether anybody can be asked. The dialer's silence counts even if not: that our own
                WebSocket is away too does not bring it back.
        """
        orphaned_at = self.orphaned_at
        if not asking:
            return orphaned_at
        if self._asked is not None:
            return min(orphaned_at, self._asked + self._times.deadline)
        due = self._quiet_since + self._times.silence
        if unacked_since is not None:
            due = min(due, max(self._quiet_since, unacked_since) + self._times.when_unacked)
        return min(orphaned_at, due)

    def handle_timeout(
        self, now: float, unacked_since: float | None, *, asking: bool = True
    ) -> KeepaliveAction:
        """Tell what is due."""
        if now < self.next_timeout(unacked_since, asking=asking):
            return KeepaliveAction.NOTHING
        if now >= self.orphaned_at:
            return KeepaliveAction.PEER_DEAD
        if self._asked is None:
            self._asked = now
            return KeepaliveAction.PROBE
        return KeepaliveAction.LINK_DEAD
