"""The relays of one dialer: which of them takes the next connection, and when another is started.

A further dial over a relay that is there takes one round trip; to start one takes a second from cold.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Collection, Container
from typing import Final

from emissary_lib.client import drain
from emissary_lib.client.dial import Opener
from emissary_lib.client.progress import Progress
from emissary_lib.client.shared import NotSharedError, SharedDial, SharedSession, answer_of, may_start_over
from emissary_lib.exceptions import SessionLimitError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.system import in_child
from emissary_lib.transport.backoff import back_off
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.shared import SharedConnection

#: The part of its life that a relay must have left to be given another connection: none that is dialled shall
#: end before it could do much.
_LIFE_LEFT: Final = 1 / 3

#: Seconds for which a bridge that has no shared sessions is not asked again for one.
_REMEMBERED: Final = 300.0

#: Seconds that :meth:`RelayPool.close` waits for relays that carry nothing to be told.
CLOSE_WAIT: Final = 2.0


class _Start:
    """A relay that is being started, and how many dials wait for it beside the one that starts it."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class RelayPool:
    """Shares relays among a dialer's connections.

    Args:
        opener: How the dialer opens sessions.
        most: Connections of one relay at once; 1 to 64.
        idle_seconds: How long a relay without a connection is kept.
        clock: A monotonic clock.

    Thread safety: any.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        most: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener = opener
        self._most = most
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        """No relay is there; in a forked child too, since its parent's threads carry those that were."""
        self._changed = threading.Condition()
        self._sessions: list[SharedSession] = []
        self._starting: list[_Start] = []
        self._not_shared_until = -float("inf")

    @property
    def relays(self) -> list[SharedSession]:
        """Those that are there now."""
        with self._changed:
            return list(self._sessions)

    def dial(self, target: Target, deadline: Deadline) -> SharedDial | None:
        """Reach a target over one of the relays, or another that is started for it.

        Returns:
            The connection; ``None`` if the bridge has no shared sessions.

        Raises:
            EmissaryError: As :func:`emissary_lib.client.handshake.open_session`.

        Blocking: until the relay is connected to the target, at most until the deadline.
        """
        progress = Progress(target)
        try:
            dial = self._dial(target, deadline, progress)
        except BaseException as exc:
            progress.end(exc)
            raise
        progress.end()
        return dial

    def _dial(self, target: Target, deadline: Deadline, progress: Progress) -> SharedDial | None:
        waits = back_off()
        avoided: set[SharedSession] = set()
        while True:
            try:
                found = self._connection(target, deadline, progress, avoided)
            except NotSharedError:
                with self._changed:
                    self._not_shared_until = self._clock() + _REMEMBERED
                return None
            except TimeoutError as exc:
                raise progress.timeout_error(deadline) from exc
            if found is None:
                return None
            session, connection = found
            self._wait_for_answer(connection, deadline, progress)
            error = answer_of(connection)
            if error is None:
                return SharedDial(session, connection)
            if not may_start_over(connection):
                raise error
            avoided.add(session)
            if not connection.declined:
                progress.pause(next(waits), deadline)
            if deadline.passed():
                raise progress.timeout_error(deadline) from error

    def _wait_for_answer(self, connection: SharedConnection, deadline: Deadline, progress: Progress) -> None:
        progress.enter("target")
        try:
            progress.wait(connection.answered, deadline)
            if not connection.answered.is_set():
                raise progress.timeout_error(deadline)
        except BaseException:
            connection.abort(Code.DIALER_RESET)
            raise

    def _connection(
        self, target: Target, deadline: Deadline, progress: Progress, avoided: set[SharedSession]
    ) -> tuple[SharedSession, SharedConnection] | None:
        """A connection that was asked for, and over which relay; ``None`` if there are no shared sessions."""
        full: SessionLimitError | None = None
        while True:
            with self._changed:
                self._wait_for_starts(deadline, progress, avoided)
                if self._clock() < self._not_shared_until:
                    return None
                session = choose(self._sessions, avoided, busy=full is not None)
                if session is None and full is not None:
                    raise full
                start = _Start() if session is None else None
                if start is not None:
                    self._starting.append(start)
            if session is not None:
                if connection := session.open(target):
                    return session, connection
                continue
            try:
                session = self._start(target, deadline, progress, start)
            except SessionLimitError as exc:
                full = exc  # unless one that is busy can take it
            else:
                return session, session.first

    def _wait_for_starts(self, deadline: Deadline, progress: Progress, avoided: set[SharedSession]) -> None:
        """While another dial starts a relay with a place for this one, wait for it. With the lock."""
        start: _Start | None = None
        while choose(self._sessions, avoided, busy=False) is None:
            if start not in self._starting:
                start = next((each for each in self._starting if each.waiting + 1 < self._most), None)
                if start is None:
                    return
                start.waiting += 1
                progress.enter("relay")
            if deadline.passed():
                start.waiting -= 1
                raise progress.timeout_error(deadline)
            self._changed.wait(deadline.cap(progress.look(None)))

    def _start(
        self, target: Target, deadline: Deadline, progress: Progress, start: _Start | None
    ) -> SharedSession:
        try:
            session = SharedSession(
                target,
                deadline,
                opener=self._opener,
                connections=self._most,
                idle_seconds=self._idle_seconds,
                progress=progress,
                on_ended=self._forget,
            )
            with self._changed:
                self._sessions.append(session)
            try:
                session.start()
            except BaseException:
                self._forget(session)
                raise
        finally:
            with self._changed:
                self._starting = [each for each in self._starting if each is not start]
                self._changed.notify_all()
        return session

    def _forget(self, session: SharedSession) -> None:
        with self._changed:
            if session in self._sessions:
                self._sessions.remove(session)
                self._changed.notify_all()

    def close(self) -> None:
        """End each relay as soon as it carries nothing. Idempotent.

        Blocking: until those that carry nothing now have ended, at most ``CLOSE_WAIT``.
        """
        sessions, patience = self.relays, Deadline(CLOSE_WAIT)
        for session in sessions:
            session.end()
        for session in sessions:
            session.wait_ended(patience.remaining() or 0.0)


def choose(
    sessions: Collection[SharedSession], avoided: Container[SharedSession], *, busy: bool
) -> SharedSession | None:
    """The relay that takes the next connection: of those that have room and time, the youngest.

    Args:
        sessions: Those that are there.
        avoided: Those that have declined it.
        busy: Whether to take one that carries as much as its way takes, if there is no other.
    """
    usable = [each for each in sessions if each not in avoided and each.room and each.life_left >= _LIFE_LEFT]
    free = [each for each in usable if not each.busy] or (usable if busy else [])
    return max(free, key=lambda each: each.life_left, default=None)


_pools: weakref.WeakSet[RelayPool] = weakref.WeakSet()


def _begin_all() -> None:
    for pool in list(_pools):
        pool._begin()


def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


in_child(_begin_all)
drain.add_closer(_close_all)
