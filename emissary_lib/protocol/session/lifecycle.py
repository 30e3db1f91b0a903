"""Where one session stands, and how it comes to its end (docs/protocol.md section 6)."""

from __future__ import annotations

from collections import deque

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import END_INTERVAL
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.ending import Ending
from emissary_lib.protocol.session.events import Aborted, Event, Finished
from emissary_lib.protocol.session.states import State, Step, step
from emissary_lib.protocol.stream.duplex import Duplex


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

    Thread safety: none; the owner of the session serialises every call.
    """

    def __init__(self, role: Role, duplex: Duplex) -> None:
        self.state = State.OPENING if role is Role.DIALER else State.OPEN
        self.ending: Ending | None = None
        self._role = role
        self._duplex = duplex
        self._events: deque[Event] = deque()

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

    def established(self) -> bool:
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
        """The peer is away. A dialer that had all but our FIN, and has ended its own stream, is not waited
        for."""
        if (
            self._role is Role.RELAY
            and self.alive
            and self._duplex.receiver.complete
            and self._duplex.sender.only_fin_unacked
        ):
            ending = Ending.begin(Code.OK, "the dialer left", now, tell_peer=False)
            self._begin_ending(Step.STREAMS_COMPLETE, ending)

    def abort(self, code: Code, reason: str, now: float) -> None:
        """Cut off here, for a reason of ours; what has arrived is still the user's."""
        if self.alive:
            self.tell(Aborted(code, reason))
            self._begin_ending(Step.ABORTED_HERE, Ending.begin(code, reason, now, tell_peer=True))
            self._duplex.stop(drop_received=False)

    def reset_by_peer(self, code: Code, reason: str, now: float) -> None:
        """The peer has cut off both directions; what has arrived is still the user's."""
        if self.alive:
            code = code or Code.PROTOCOL_ERROR  # a reset is never clean
            self.tell(Aborted(code, reason or MEANINGS[code]))
            # The peer sends END itself; ours follows only if no ENDED comes of that.
            ending = Ending.begin(code, reason, now, tell_peer=False, delay=END_INTERVAL)
            self._begin_ending(Step.ABORTED_BY_PEER, ending)
            self._duplex.stop(drop_received=False)

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
        confirmed = code is Code.OK or self.ending is not None
        self._step(Step.TOLD_ENDED if confirmed else Step.GAVE_UP)
        self._duplex.stop(drop_received=False)
        self.tell(Finished(code))

    def _begin_ending(self, what: Step, ending: Ending) -> None:
        self._step(what)
        self.ending = ending

    def _step(self, what: Step) -> None:
        self.state = step(self.state, what)
