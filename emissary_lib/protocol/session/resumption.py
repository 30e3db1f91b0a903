"""Which connections a session runs over, and what to do when one is gone (docs/protocol.md section 5)."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import GRACE, LEAST_PATIENCE, RESUME_INTERVALS, STEADY_AFTER
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import newer
from emissary_lib.protocol.wire.payloads import Resumed


class _Asking:
    """RESUME is being repeated until the peer is heard."""

    __slots__ = ("next_at", "rounds", "until")

    def __init__(self, next_at: float, until: float) -> None:
        self.next_at = next_at
        self.until = until
        self.rounds = 0


class Resumption:
    """One side's view of both connections.

    Args:
        role: Who we are.
        own_epoch: Attempts to connect that we have made.
        peer_epoch: Those of the peer that we know of.
        grace: Seconds for which a connection that is gone is waited for.

    Attributes:
        epoch: Attempts to connect that we have made.
        link_up: Whether our own WebSocket is there.
        peer_away: Whether the bridge says that the peer has no connection.
        peer_connection: The peer's connection id by the newest RESUMED; ``None`` before any.
        peer_heard_here: Whether the peer was heard since our connection of now was made.
        flapping: Whether our last connection was lost soon, and no byte had moved.
        flap_count: How many of those there were in a row that were of no use at all.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(self, role: Role, *, own_epoch: int, peer_epoch: int, grace: float = GRACE) -> None:
        self._role = role
        self._grace = grace
        self._peer_epoch = peer_epoch
        self.epoch = own_epoch
        self.link_up = True
        self.peer_away = False
        self.peer_connection: str | None = None
        self.peer_heard_here = False
        self.flapping = False
        self.flap_count = 0
        self._restored_at: float | None = None  # when our connection of now was made, if it is not the first
        self._outage_began = 0.0
        self._link_deadline: float | None = None
        self._away_deadline: float | None = None
        self._away_since = 0  # generation at which the peer was found to be away
        self._peer_known = True  # we know where the peer is, or that it is away
        self._asking: _Asking | None = None
        self._asked_at: float | None = None
        self._grace_left = grace  # seconds left for the peer to be heard, once our link is back
        self._entered = self.generation

    @property
    def generation(self) -> int:
        """What frames carry (docs/protocol.md section 5.1)."""
        return (self.epoch + self._peer_epoch) & 0xFFFF

    @property
    def may_send(self) -> bool:
        """Whether messages to the peer have a chance to arrive."""
        return self.link_up and self._peer_known and not self.peer_away

    @property
    def link_deadline(self) -> float | None:
        """When to stop trying to reconnect; ``None`` while the link is up."""
        return self._link_deadline

    def adopt_grace(self, seconds: float) -> None:
        """The relay has told how long it waits (OPENED): we wait as long, from the next loss on."""
        self._grace = seconds

    # -- our own connection ---------------------------------------------------------------------

    def link_lost(self, now: float, *, moved: bool = False, idle: bool = False) -> None:
        """Our WebSocket is gone. Idempotent.

        Args:
            now: The time.
            moved: Whether a stream got further over it.
            idle: Whether nothing is outstanding that could have.
        """
        if self.link_up:
            self.link_up = False
            first = self._restored_at is None
            self.flapping = not first and not moved and now - (self._restored_at or 0.0) < STEADY_AFTER
            if self.flapping and not (idle and self.peer_heard_here):
                self.flap_count += 1
            else:
                self._outage_began = now
                self.flap_count = 0
            self._link_deadline = self._outage_began + self._grace
            # The peer's silence may be why we found our link dead: a new one must not begin its grace anew.
            # Nor does it run meanwhile, because nobody could tell us that the peer is back.
            self._grace_left = self._remaining_grace(now)
            self._asking = None
            self._away_deadline = None

    def begin_attempt(self) -> int:
        """The epoch of our next attempt to reconnect: every attempt has its own."""
        self.epoch += 1
        return self.epoch

    def link_restored(self, now: float) -> None:
        """An attempt has succeeded: ask where the peer is, until it is heard."""
        self.link_up = True
        self._restored_at = now
        self.peer_heard_here = False
        self._link_deadline = None
        self._peer_known = False
        self._asking = _Asking(now, now + self._grace_left)
        if self.peer_away:
            self._away_deadline = self._asking.until

    def _remaining_grace(self, now: float) -> float:
        """What remains of the wait for the peer, if it is being waited for; else all of it."""
        waits = [self._away_deadline, self._asking.until if self._asking else None]
        until = min((each for each in waits if each is not None), default=None)
        return self._grace if until is None else max(LEAST_PATIENCE, until - now)

    def ask(self, now: float) -> None:
        """Ask where the peer is, on the open connection; does nothing while that is being asked.

        However often the question comes up, it is put no oftener than its schedule begins.
        """
        if self.link_up and self._asking is None:
            asked = None if self._asked_at is None else self._asked_at + RESUME_INTERVALS[0]
            self._asking = _Asking(now if asked is None else max(now, asked), now + self._grace)

    def ask_due(self, now: float) -> bool:
        """Whether RESUME has to go out now; if so, the next one is scheduled."""
        asking = self._asking
        if asking is None or not self.link_up or now < asking.next_at:
            return False
        asking.next_at = now + RESUME_INTERVALS[min(asking.rounds, len(RESUME_INTERVALS) - 1)]
        asking.rounds += 1
        self._asked_at = now
        return True

    # -- the peer's connection ------------------------------------------------------------------

    def peer_heard(self, generation: int, now: float) -> bool:
        """A frame came from the peer itself.

        Returns:
            Whether a new generation begins: what is unacknowledged has to be sent again.
        """
        if newer(self.generation, generation):
            return False  # sent over connections that are gone: it says nothing of those there are
        if newer(generation, self.generation):
            self._learn(self._peer_epoch + ((generation - self.generation) & 0xFFFF), now)
            if self._role is Role.RELAY:
                # The dialer has a new connection, which only the bridge knows. Posting waits for it.
                self._back()
                self._peer_known = False
                self._asking = None
                self.ask(now)
        if self._role is Role.RELAY and not self._peer_known:
            # Generations are sums: one of our own may equal one of the dialer's that we have not heard of.
            return False
        if self.peer_away and not newer(generation, self._away_since):
            return False
        self._asking = None
        self._peer_known = True
        self.peer_heard_here = True
        self._back()
        return self._enter()

    def peer_gone(self, epoch: int, now: float) -> None:
        """The bridge says that the peer's connection of this epoch (its low 16 bits) is gone."""
        ahead = (epoch - self._peer_epoch) & 0xFFFF
        if newer(self._peer_epoch & 0xFFFF, epoch):
            return
        if ahead:
            self._learn(self._peer_epoch + ahead, now)
        self._away(now)

    def is_outdated(self, told: Resumed) -> bool:
        """Whether this RESUMED is older than what we know."""
        ours, theirs = self._epochs(told)
        return ours < self.epoch or theirs < self._peer_epoch

    def receive_resumed(self, told: Resumed, now: float) -> bool:
        """RESUMED arrived; one that is outdated changes nothing.

        Returns:
            Whether what is unacknowledged has to be sent again: a new generation, or the peer is back.
        """
        if self.is_outdated(told):
            return False
        _ours, theirs = self._epochs(told)
        if theirs > self._peer_epoch:
            self._learn(theirs, now)
        self._peer_known = True
        connection = told.relay if self._role is Role.DIALER else told.dialer
        if connection is None:
            self._away(now)
            return False
        self.peer_connection = connection
        was_away = self.peer_away
        self._back()
        return self._enter() or was_away

    def _epochs(self, told: Resumed) -> tuple[int, int]:
        """Ours and the peer's."""
        told_epochs = told.dialer_epoch, told.relay_epoch
        return told_epochs if self._role is Role.DIALER else told_epochs[::-1]

    # -- the clock ------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When :meth:`ask_due` or :meth:`expired_code` may have something new to say."""
        times = [self._link_deadline, self._away_deadline]
        if self._asking:
            times += [self._asking.next_at, self._asking.until]
        return min((at for at in times if at is not None), default=None)

    def expired_code(self, now: float) -> Code | None:
        """Why the session is over, if a grace has run out; ``None`` while it goes on."""
        if self._link_deadline is not None and now >= self._link_deadline:
            return self._role.gone
        away = self._away_deadline is not None and now >= self._away_deadline
        unanswered = self._asking is not None and now >= self._asking.until
        if away or unanswered:
            return self._role.other.gone
        return None

    def _learn(self, epoch: int, now: float) -> None:
        """The peer has connected since we last heard of it: whatever we wait for begins anew."""
        self._peer_epoch = epoch
        if self._away_deadline is not None:
            self._away_deadline = now + self._grace
        if self._asking:
            self._asking.until = now + self._grace

    def _away(self, now: float) -> None:
        if self._away_deadline is None and self.link_up:
            self._away_deadline = now + self._grace
        self.peer_away = True
        self._away_since = self.generation

    def _back(self) -> None:
        self.peer_away = False
        self._away_deadline = None

    def _enter(self) -> bool:
        """Enter the current generation; whether it is a new one."""
        fresh = newer(self.generation, self._entered)
        self._entered = self.generation
        return fresh
