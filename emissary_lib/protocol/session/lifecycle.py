"""Where one session stands, and how it comes to its end (docs/protocol.md section 6)."""

from __future__ import annotations

from collections import deque

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import END_DEADLINE, END_INTERVAL
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Event, Finished
from emissary_lib.protocol.session.states import State, Step, step
from emissary_lib.protocol.stream.duplex import Duplex
from emissary_lib.protocol.user_loss import UserLoss


class Ending:
    """The last words of a session, repeated until the bridge confirms.

    Attributes:
        code: Why it ends.
        reason: The same in words.
        tell_peer: Whether RESET goes to the peer beside END to the bridge.
        next_at: When the next round goes out.
        until: When to give up, as long as there is a WebSocket to say it over.
        written: How far our user's stream had got, read by us or not.
        handed_over: How much of the peer's stream our user had taken, its FIN included.
        may_wait_until: When to give up waiting for a WebSocket, if that is later; ``None``: it is not.
    """

    __slots__ = (
        "code",
        "handed_over",
        "may_wait_until",
        "next_at",
        "reason",
        "tell_peer",
        "until",
        "written",
    )

    def __init__(
        self,
        code: Code,
        reason: str,
        tell_peer: bool,
        next_at: float,
        until: float,
        may_wait_until: float | None = None,
    ) -> None:
        self.code = code
        self.reason = reason
        self.tell_peer = tell_peer
        self.next_at = next_at
        self.until = until
        self.may_wait_until = may_wait_until
        self.written = 0
        self.handed_over = 0

    @classmethod
    def begin(cls, code: Code, reason: str, now: float, *, tell_peer: bool, delay: float = 0.0) -> Ending:
        """Start the last words; the first round goes out after ``delay`` seconds."""
        return cls(code, reason, tell_peer, now + delay, now + END_DEADLINE)

    @property
    def has_a_reason(self) -> bool:
        """Whether it holds what nobody else can tell. That a side is gone, whoever waits for it finds out."""
        return self.tell_peer and self.code not in (Code.DIALER_GONE, Code.RELAY_GONE)

    def wait_for_link(self, bound: float) -> None:
        """There is no WebSocket to say it over: wait for one until ``bound``, or until an earlier one."""
        if self.has_a_reason:
            self.may_wait_until = bound if self.may_wait_until is None else min(bound, self.may_wait_until)

    def resume(self, now: float) -> None:
        """There is a WebSocket again: say it at once."""
        self.next_at = now
        if self.may_wait_until is not None:
            self.until = max(self.until, min(now, self.may_wait_until) + END_DEADLINE)

    @property
    def wait_ends(self) -> float:
        """When to give up while there is no WebSocket."""
        return self.until if self.may_wait_until is None else max(self.until, self.may_wait_until)

    @property
    def next_timeout(self) -> float:
        """When :meth:`due` has to be asked again, or the end given up."""
        return min(self.next_at, self.until)

    def due(self, now: float) -> bool:
        """Whether a round has to go out now; if so, the next one is scheduled."""
        if now < self.next_at:
            return False
        self.next_at = now + END_INTERVAL
        return True

    def over(self, now: float, *, heard: bool) -> bool:
        """Whether to give up waiting for the bridge.

        Args:
            now: The time.
            heard: Whether there is a WebSocket to say it over.
        """
        return now >= (self.until if heard else self.wait_ends)


class Lifecycle:
    """The state of a session, and every way out of it.

    Whatever ends a session goes through here, so that it ends once: at most one :class:`Aborted`, then one
    :class:`Finished`, and the streams stopped.

    Args:
        role: Who we are.
        duplex: The streams; stopped when the session is cut off or over.

    Attributes:
        state: Where it stands.
        ending: The last words, in state ENDING; afterwards what they were. ``None`` without any.
        user_loss: Our user's connection broke; the session goes on until what it wrote has arrived.

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(self, role: Role, duplex: Duplex) -> None:
        self.state = State.OPENING if role is Role.DIALER else State.OPEN
        self.ending: Ending | None = None
        self.user_loss: UserLoss | None = None
        self._role = role
        self._duplex = duplex
        self._events: deque[Event] = deque()
        self._untold: Aborted | None = None  # of an end whose RESET is still waited for

    @property
    def alive(self) -> bool:
        """Whether the user's bytes still move: neither ended nor cut off."""
        return self.state in (State.OPENING, State.OPEN)

    def tell(self, event: Event) -> None:
        """Something happened that the driver has to know."""
        self._events.append(event)

    def next_event(self) -> Event | None:
        """The next thing that happened, in order; ``None`` when all were taken."""
        return self._events.popleft() if self._events else None

    def finish_opening(self) -> bool:
        """The opening is done; whether this is news."""
        news = self.state is State.OPENING
        if news:
            self._step(Step.ESTABLISHED)
        return news

    def end_if_complete(self, now: float) -> None:
        """Both streams may be whole."""
        if self.alive and self._duplex.complete:
            self._begin_ending(Step.STREAMS_COMPLETE, Ending.begin(Code.OK, "", now, tell_peer=False))

    def end_if_left(self, now: float) -> None:
        """The peer is away: do not wait for a dialer that had all but our FIN and has ended its stream."""
        if (
            self._role is Role.RELAY
            and self.alive
            and self._duplex.receiver.complete
            and self._duplex.sender.only_fin_unacked
        ):
            ending = Ending.begin(Code.OK, "the dialer left", now, tell_peer=False)
            self._begin_ending(Step.STREAMS_COMPLETE, ending)

    def abort(self, code: Code, reason: str, now: float, *, unread: int = 0) -> None:
        """Cut off here, for a reason of ours; what has arrived is still the user's.

        Args:
            code: Why.
            reason: The same in words.
            now: The time.
            unread: Bytes of our user's that were not read and never will be.
        """
        if self.alive:
            self.tell(Aborted(code, reason))
            ending = Ending.begin(code, reason, now, tell_peer=True)
            ending.written = self._duplex.sender.written + unread
            ending.handed_over = self._duplex.receiver.handed_over
            self._begin_ending(Step.ABORTED_HERE, ending)
            self._duplex.stop(drop_received=False)

    def reset_by_peer(
        self, code: Code, reason: str, now: float, *, written: int = 0, handed_over: int = 0
    ) -> None:
        """The peer has cut off both directions; what has arrived is still the user's.

        Args:
            code: Why.
            reason: The same in words; may be empty.
            now: The time.
            written: How far the peer's user had written.
            handed_over: How much of our stream the peer's user had taken; 0 if the peer does not tell.
        """
        if not (self.alive or self._untold):
            return
        code = code or Code.PROTOCOL_ERROR  # a reset is never clean
        whole = self._duplex.is_whole(written, handed_over, user_lost=self.user_loss is not None)
        self.tell(Aborted(code, reason or MEANINGS[code], whole))
        if handed_over:
            self._duplex.sender.settle(handed_over)
        if self._untold:
            self._untold = None
            self.finish(code)
            return
        # The peer sends END itself; ours follows only if no ENDED comes of that.
        ending = Ending.begin(code, reason, now, tell_peer=False, delay=END_INTERVAL)
        self._begin_ending(Step.ABORTED_BY_PEER, ending)
        self._duplex.stop(drop_received=False)

    def reset_overtaken(self, reason: str, now: float) -> None:
        """The bridge tells that the target has reset its connection, and the peer's RESET has not come.

        It alone tells whether anything is missing, so a dialer whose user has said all waits for it, as long
        as for an answer to END. A program that is still at work is told at once.
        """
        if self._role is not Role.DIALER or not (self._duplex.sender.said_all or self.user_loss):
            self.cut_off(Code.TARGET_RESET, reason)
        else:
            self._untold = Aborted(Code.TARGET_RESET, reason)
            ending = Ending.begin(Code.TARGET_RESET, reason, now, tell_peer=False, delay=END_INTERVAL)
            self._begin_ending(Step.ABORTED_BY_PEER, ending)

    def cut_off(self, code: Code, reason: str) -> None:
        """Over for good, and nobody is to be told. A session that was ending keeps its code."""
        if self.ending:
            code = self.ending.code
        elif self.alive:
            self.tell(Aborted(code, reason))
        self.finish(code)

    def finish(self, code: Code) -> None:
        """Over for good. Idempotent."""
        if self.state is State.ENDED:
            return
        if self._untold:
            self.tell(self._untold)
            self._untold = None
        confirmed = code is Code.OK or self.ending is not None
        self._step(Step.TOLD_ENDED if confirmed else Step.GAVE_UP)
        self._duplex.stop(drop_received=False)
        self.tell(Finished(code))

    def _begin_ending(self, what: Step, ending: Ending) -> None:
        self._step(what)
        self.ending = ending

    def _step(self, what: Step) -> None:
        self.state = step(self.state, what)
