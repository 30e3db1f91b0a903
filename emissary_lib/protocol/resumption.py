"""Which connections a session runs over, and what to do when one is gone (docs/protocol.md section 5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.frames import newer
from emissary_lib.protocol.payloads import Resumed
from emissary_lib.protocol.states import Side

#: Seconds between two RESUME messages; the last one is repeated.
ASK_INTERVALS: Final = (1.0, 2.0, 4.0, 5.0)


class Link(enum.Enum):
    """Our own WebSocket."""

    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class _Asking:
    """RESUME is being repeated until the peer is heard at ``generation``."""

    next_at: float
    until: float
    rounds: int = 0


class Resumption:
    """One side's view of both connections.

    Args:
        side: Who we are.
        own_epoch: Attempts to connect that we have made.
        peer_epoch: Those of the peer that we know of.
        grace: Seconds for which a connection that is gone is waited for.

    Attributes:
        peer_connection: The peer's connection id by the newest RESUMED; ``None`` before any.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(self, side: Side, *, own_epoch: int, peer_epoch: int, grace: float) -> None:
        self._side = side
        self._own = own_epoch
        self._peer = peer_epoch
        self._grace = grace
        self.link = Link.UP
        self.peer_connection: str | None = None
        self._link_deadline: float | None = None
        self._away_deadline: float | None = None
        self._away_at: int | None = None  # generation at which the peer was found to be away
        self._asking: _Asking | None = None

    @property
    def generation(self) -> int:
        return (self._own + self._peer) & 0xFFFF

    @property
    def epoch(self) -> int:
        """Our newest attempt's number."""
        return self._own

    @property
    def may_send(self) -> bool:
        """Whether messages to the peer have a chance to arrive."""
        return self.link is Link.UP and self._away_at is None

    @property
    def link_deadline(self) -> float | None:
        """When to stop trying to reconnect; ``None`` while the link is up."""
        return self._link_deadline

    def link_lost(self, now: float) -> None:
        """Our WebSocket is gone. Idempotent."""
        if self.link is Link.UP:
            self.link = Link.DOWN
            self._link_deadline = now + self._grace
            self._asking = None

    def begin_attempt(self) -> int:
        """The epoch of our next attempt to reconnect."""
        self._own += 1
        return self._own

    def link_restored(self, now: float) -> None:
        """An attempt has succeeded: ask where the peer is, until it is heard."""
        self.link = Link.UP
        self._link_deadline = None
        self._asking = _Asking(now, now + self._grace)

    def ask(self, now: float) -> None:
        """Ask where the peer is, on the open connection; does nothing while that is being asked."""
        if self.link is Link.UP and self._asking is None:
            self._asking = _Asking(now, now + self._grace)

    def peer_heard(self, generation: int, now: float) -> bool:
        """A frame came from the peer itself; whether it opens a new generation."""
        fresh = newer(generation, self.generation)
        if fresh:
            self._peer += (generation - self.generation) & 0xFFFF
        if self._away_at is not None and newer(generation, self._away_at):
            self._back()
        if generation == self.generation and not fresh:
            self._asking = None
        elif fresh:
            # The peer has a new connection; a dialer reaches it through the bridge, a relay must learn it.
            self._asking = None
            if self._side is Side.RELAY:
                self.ask(now)
        return fresh

    def peer_gone(self, epoch: int, now: float) -> None:
        """The bridge says that the peer's connection of this epoch is gone."""
        if epoch >= self._peer:
            self._away(now)

    def resumed(self, told: Resumed, now: float) -> bool:
        """RESUMED arrived; whether it opens a new generation, or brings the peer back."""
        own, peer = told.epochs(self._side)
        if own < self._own or peer < self._peer:
            return False
        fresh = peer > self._peer or self.peer_connection is None
        self._peer = peer
        self.peer_connection = told.peer_connection(self._side) or self.peer_connection
        if not told.peer_connection(self._side):
            self._away(now)
            return False
        was_away = self._away_at is not None
        self._back()
        return fresh or was_away or self._asking is not None

    def next_timeout(self) -> float | None:
        """When :meth:`ask_due` or :meth:`verdict` may have something new to say."""
        times = [self._link_deadline, self._away_deadline]
        if self._asking:
            times += [self._asking.next_at, self._asking.until]
        return min((at for at in times if at is not None), default=None)

    def ask_due(self, now: float) -> bool:
        """Whether RESUME has to go out now; if so, the next one is scheduled."""
        asking = self._asking
        if asking is None or self.link is Link.DOWN or now < asking.next_at:
            return False
        asking.next_at = now + ASK_INTERVALS[min(asking.rounds, len(ASK_INTERVALS) - 1)]
        asking.rounds += 1
        return True

    def verdict(self, now: float) -> Code | None:
        """Why the session is over, if a grace has run out."""
        if self._link_deadline is not None and now >= self._link_deadline:
            return Code.DIALER_GONE if self._side is Side.CLIENT else Code.RELAY_GONE
        away = self._away_deadline is not None and now >= self._away_deadline
        unanswered = self._asking is not None and now >= self._asking.until
        if away or unanswered:
            return Code.RELAY_GONE if self._side is Side.CLIENT else Code.DIALER_GONE
        return None

    def _away(self, now: float) -> None:
        if self._away_at is None:
            self._away_at = self.generation
            self._away_deadline = now + self._grace

    def _back(self) -> None:
        self._away_at = self._away_deadline = None
