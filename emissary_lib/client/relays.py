"""The relays of one dialer: which of them takes the next connection, and when another is started.

A further dial over a relay that is there takes one round trip; to start one takes a second from cold.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Container, Iterable
from typing import Final

from emissary_lib.client import drain
from emissary_lib.client.dial import Opener
from emissary_lib.client.progress import Progress
from emissary_lib.client.shared import NotSharedError, SharedDial, SharedSession, answer_of, may_start_over
from emissary_lib.exceptions import DialTimeoutError, EmissaryError, SessionLimitError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.system import in_child, sleepless_clock
from emissary_lib.transport.backoff import back_off, wait
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.shared import SharedConnection

#: The part of its life that a relay must have left to be given another connection: none that is dialled shall
#: end before it could do much.
LIFE_LEFT: Final = 1 / 3

#: Seconds for which a bridge that has no shared sessions is not asked again for one.
REMEMBERED: Final = 300.0

#: Seconds after which a relay of which nothing was heard since it was asked for a connection is taken to be
#: dead, and another is started: sooner than a session that is at rest finds out (docs/design.md), but so that
#: a request that was lost has been sent again.
UNHEARD: Final = 5.0


class _Start:
    """A relay that is being started.

    Args:
        progress: Of the dial that starts it.

    Attributes:
        progress: As given.
        waiting: How many dials wait for it, beside the one that starts it.
        failed: Whether it cannot be started, as far as that one found out.
    """

    __slots__ = ("failed", "progress", "waiting")

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.waiting = 0
        self.failed = False


class _Asked(Record):
    """A connection that a relay was asked for.

    Attributes:
        session: Which relay.
        dial: The connection.
        fresh: Whether the relay was started for it, and so was heard of just now.
        heard: How many messages had come of the relay by then.
    """

    session: SharedSession
    dial: SharedDial
    fresh: bool
    heard: int

    @property
    def connection(self) -> SharedConnection:
        """The connection itself."""
        return self.dial.connection


class RelayPool:
    """Shares relays among a dialer's connections.

    Args:
        opener: How the dialer opens sessions.
        most: Connections of one relay at once; 1 to 64.
        idle_seconds: How long a relay without a connection is kept.
        clock: A monotonic clock that goes on while the host sleeps, as a relay's life does; ``None`` for the
            opener's, or the platform's.

    Thread safety: any.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        most: int,
        idle_seconds: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._opener = opener
        self._most = most
        self._idle_seconds = idle_seconds
        self._clock = clock or opener.clock or sleepless_clock()
        self._closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        """No relay is there; in a forked child too, since its parent's threads carry those that were."""
        self._changed = threading.Condition()
        self._sessions: list[SharedSession] = []
        self._starting: list[_Start] = []
        self._not_shared_until = -float("inf")

    @property
    def sessions(self) -> list[SharedSession]:
        """Those of the relays that are there now, the oldest first."""
        with self._changed:
            return list(self._sessions)

    def dial(self, target: Target, deadline: Deadline, progress: Progress) -> SharedDial | None:
        """Reach a target over one of the relays, or another that is started for it.

        Args:
            target: What to reach.
            deadline: For all of it.
            progress: Says what is waited for; is told of the end, unless the dial has to go on otherwise.

        Returns:
            The connection; ``None`` if the bridge has no shared sessions.

        Raises:
            EmissaryError: As :func:`emissary_lib.client.handshake.open_session`.

        Blocking: until the relay is connected to the target, at most until the deadline.
        """
        try:
            dial = self._dial(target, deadline, progress)
        except BaseException as exc:
            progress.end(exc)
            raise
        if dial is not None:
            progress.end()
        return dial

    def _dial(self, target: Target, deadline: Deadline, progress: Progress) -> SharedDial | None:
        waits = back_off()
        avoided: set[SharedSession] = set()
        while True:
            try:
                asked = self._ask(target, deadline, progress, avoided)
            except NotSharedError:
                return None
            if asked is None:
                return None
            try:
                answered = self._wait_for_answer(asked, deadline, progress)
                error = answer_of(asked.connection) if answered else None
                if answered and error is None:
                    return asked.dial
            except BaseException:
                asked.connection.abort(Code.DIALER_RESET)
                raise
            avoided.add(asked.session)
            if error is None:  # it is dead, by all that is known
                asked.connection.abort(Code.DIALER_RESET)
                continue
            error.add_note(f"session {asked.session.id}")  # as it stands in the logs of bridge and relay
            if not may_start_over(asked.connection):
                raise error
            if asked.fresh or not asked.connection.declined:
                wait(next(waits), deadline, error, sleep=lambda seconds: progress.pause(seconds, deadline))

    def _wait_for_answer(self, asked: _Asked, deadline: Deadline, progress: Progress) -> bool:
        """Whether there is an answer; else nothing at all was heard of the relay.

        Raises:
            DialTimeoutError: The deadline passed.
        """
        answered = asked.connection.answered
        progress.enter("target")
        progress.follow(asked.session.counters, since_now=True)
        if not asked.fresh:
            progress.wait(answered, _Sooner(deadline, UNHEARD))
            heard = asked.session.counters.messages_received != asked.heard
            if not (answered.is_set() or heard or deadline.passed()):
                return False
        progress.wait(answered, deadline)
        if not answered.is_set():
            raise progress.timeout_error(deadline)
        return True

    def _ask(
        self, target: Target, deadline: Deadline, progress: Progress, avoided: set[SharedSession]
    ) -> _Asked | None:
        """Have a relay asked for a connection; ``None`` if there are no shared sessions.

        Raises:
            NotSharedError: There are none, as was found out just now.
            EmissaryError: No relay can be started.
        """
        full: SessionLimitError | None = None
        start, waits = _Start(progress), True
        while True:
            try:
                with self._changed:
                    if waits:
                        waits = self._wait_for_starts(deadline, progress, avoided)
                    if self._clock() < self._not_shared_until:
                        return None
                    session = choose(self._sessions, avoided, last_resort=full is not None)
                    if session is None:
                        if full is not None:
                            raise full
                        # If one can take it that others should rather not, the limit need not be waited for.
                        spare = choose(self._sessions, avoided, last_resort=True) is not None
                        self._starting.append(start)
                if session is None:
                    limit_wait = 0.0 if spare else None
                    session = self._start(target, deadline, progress, start, limit_wait)
                    dial = SharedDial(session, session.first)
                    return _Asked(session, dial, True, session.counters.messages_received)
            except SessionLimitError as exc:
                if full is exc:
                    raise
                full = exc
                continue
            finally:
                self._has_started(start)
            heard = session.counters.messages_received
            try:
                connection = session.open(target, deadline)
            except TimeoutError as exc:
                raise progress.timeout_error(deadline) from exc
            if connection:
                return _Asked(session, SharedDial(session, connection), False, heard)
            # Else its room went to another, or it has ended.

    def _wait_for_starts(self, deadline: Deadline, progress: Progress, avoided: set[SharedSession]) -> bool:
        """While another dial starts a relay with a place for this one, wait for it. With the lock.

        Returns:
            False if that cannot be started: then each finds out for itself, at once, as with a session of its
            own.
        """
        while choose(self._sessions, avoided, last_resort=False) is None:
            if self._clock() < self._not_shared_until:
                return True
            start = next((each for each in self._starting if each.waiting + 1 < self._most), None)
            if start is None:
                return True
            start.waiting += 1
            progress.enter("relay")
            progress.follow(start.progress)
            try:
                while start in self._starting:
                    if deadline.passed():
                        raise progress.timeout_error(deadline)
                    self._changed.wait(deadline.cap(progress.look(None)))
            finally:
                start.waiting -= 1
            if start.failed:
                return False
        return True

    def _start(
        self,
        target: Target,
        deadline: Deadline,
        progress: Progress,
        start: _Start,
        limit_wait: float | None,
    ) -> SharedSession:
        session: SharedSession | None = None
        try:
            session = SharedSession(
                target,
                deadline,
                opener=self._opener,
                connections=self._most,
                idle_seconds=self._idle_seconds,
                progress=progress,
                on_ended=self._forget,
                clock=self._clock,
                limit_wait=limit_wait,
            )
            drain.expect_exit()
            with self._changed:
                self._sessions.append(session)
                closed = self._closed
            session.start()
            if closed:  # meanwhile: it is for this connection alone
                session.end()
        except BaseException as exc:
            with self._changed:
                if isinstance(exc, NotSharedError):
                    self._not_shared_until = self._clock() + REMEMBERED
                elif isinstance(exc, EmissaryError) and not isinstance(exc, DialTimeoutError):
                    start.failed = True
            if session is not None:
                session.give_up()
                self._forget(session)
            raise
        return session

    def _has_started(self, start: _Start) -> None:
        with self._changed:
            if start in self._starting:
                self._starting.remove(start)
                self._changed.notify_all()

    def _forget(self, session: SharedSession) -> None:
        with self._changed:
            if session in self._sessions:
                self._sessions.remove(session)
                self._changed.notify_all()

    def close(self) -> None:
        """End each relay as soon as it carries nothing; one that is being started, too. Idempotent.

        Blocking: until those that carry nothing now, or nothing but what its programs have ended and the
        targets have, are over; at most as long as the end of a target is waited for.
        """
        self.begin_close()
        _wait_ended(self.sessions)

    def begin_close(self) -> None:
        """As :meth:`close`, without waiting."""
        with self._changed:
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.end()


class _Sooner(Deadline):
    """Passes with another, or so many seconds from now."""

    def __init__(self, other: Deadline, seconds: float) -> None:
        super().__init__(seconds)
        self._other = other

    def remaining(self) -> float | None:
        """As of :class:`Deadline`."""
        return self._other.cap(super().remaining())

    def passed(self) -> bool:
        """As of :class:`Deadline`."""
        return super().passed() or self._other.passed()


def choose(
    sessions: Collection[SharedSession], avoided: Container[SharedSession], *, last_resort: bool
) -> SharedSession | None:
    """The relay that takes the next connection: of those that have room and time, the youngest.

    So the older ones come to their end without any.

    Args:
        sessions: Those that are there.
        avoided: Those that have not taken it.
        last_resort: Whether to take one that carries as much as its way takes, or has little time left, if
            there is no other.
    """
    usable = [each for each in sessions if each not in avoided and each.room]
    timely = [each for each in usable if each.life_left >= LIFE_LEFT]
    found = [each for each in timely if not each.busy]
    if not found and last_resort:
        found = timely or usable
    return max(found, key=lambda each: each.life_left, default=None)


_pools: weakref.WeakSet[RelayPool] = weakref.WeakSet()


def _wait_ended(sessions: Iterable[SharedSession]) -> None:
    patience = Deadline(drain.STANDSTILL)
    for session in [each for each in sessions if each.worth_waiting_for]:
        session.wait_ended(patience)


def _begin_all() -> None:
    for pool in list(_pools):
        pool._begin()


def _close_all() -> None:
    """At exit: all that was written was waited for, so that the relays alone are to be told."""
    pools = list(_pools)
    for pool in pools:
        pool.begin_close()
    _wait_ended([session for pool in pools for session in pool.sessions])


in_child(_begin_all)
drain.add_closer(_close_all)
