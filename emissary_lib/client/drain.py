"""Connections whose bytes are under way, and what becomes of them when a dialer or the interpreter ends.

The kernel delivers what a program wrote to a TCP socket even if the program exits right after. So does this:
a connection counts from the moment on that it was accepted or dialled, is waited for as long as bytes move,
and what is lost all the same is said on the logger ``emissary_lib.tunnel``. Nothing of a tunnel outlives the
interpreter: its threads are daemons, which stop at exit.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Final, Protocol

from emissary_lib.protocol.constants import RTO_INITIAL
from emissary_lib.system import in_child
from emissary_lib.transport.deadline import Deadline

#: Seconds without progress after which nothing more is waited for, where all has arrived and only the end of
#: the target has not: a Lambda function has started from cold by then.
STANDSTILL: Final = 2.0

#: Seconds more where bytes are missing, at least and at most: by then what was lost is sent again
#: (docs/protocol.md section 4.4). A tunnel with a slow way takes long to call it lost.
RETRANSMISSION: Final = (RTO_INITIAL, 18.0)

#: Seconds between two looks at whether they are done.
_LOOK: Final = 0.005

#: No handler of ours: to whom the application has said nothing of logging, Python prints warnings.
_logger = logging.getLogger("emissary_lib.tunnel")


class Drainable(Protocol):
    """A tunnel, as seen from here."""

    def begin_drain(self) -> None:
        """The program exits: end the stream behind what was written."""

    @property
    def idle(self) -> bool:
        """Whether all that was written has reached the peer; never after a cut."""

    @property
    def acked(self) -> int:
        """How much of what was written has reached the peer."""

    @property
    def progress(self) -> int:
        """Grows while what was written moves."""

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which what was lost is sent again."""

    @property
    def written(self) -> int:
        """How much the user has written, as far as the tunnel knows."""

    @property
    def undelivered_bytes(self) -> int:
        """Bytes that the user has written and that have not reached the peer, at least."""

    @property
    def untaken(self) -> bool:
        """Whether the peer has them all, but its target may not."""


class Connection:
    """One connection of a program's, from :func:`begin` to :func:`end`.

    Args:
        target: Where it leads; empty until that is known.
        owners: Whose it is: what is waited for, is waited for by owner.
        timeout: Seconds that its dial may take; ``None`` for no limit.
        unseen: Bytes that the program may have written beyond what its tunnel knows, where that has a bound:
            who writes on and on is then not waited for.

    Thread safety: any.
    """

    def __init__(
        self, target: str, owners: tuple[object, ...], timeout: float | None, unseen: int | None
    ) -> None:
        self.target = target
        self.owners = owners
        self._dial = Deadline(None if timeout is None else timeout + STANDSTILL)
        self._unseen = unseen
        self._lock = threading.Lock()
        self._tunnel: Drainable | None = None
        self._draining = False
        self._over = False

    def carry(self, tunnel: Drainable) -> None:
        """The dial is through: ``tunnel`` is what carries the bytes."""
        with self._lock:
            self._tunnel = tunnel
            draining = self._draining
        if draining:
            tunnel.begin_drain()

    def begin_drain(self) -> None:
        """The program exits: end the stream behind what was written, or will have been by then."""
        with self._lock:
            self._draining = True
            tunnel = self._tunnel
        if tunnel:
            tunnel.begin_drain()

    def over(self) -> None:
        """The connection has ended, and what was to be said of it was said."""
        self._over = True

    @property
    def dialling(self) -> bool:
        """Whether its dial is under way."""
        return self._tunnel is None and not self._over

    @property
    def may_be_dialled(self) -> bool:
        """Whether its dial is under way and may still succeed."""
        return self.dialling and not self._dial.passed()

    @property
    def progress(self) -> int:
        """Grows while bytes move."""
        return self._tunnel.progress if self._tunnel else -1

    @property
    def patience(self) -> float:
        """Seconds without progress after which nothing more will move."""
        if not self.missing or self._tunnel is None:
            return STANDSTILL
        least, most = RETRANSMISSION
        return STANDSTILL + min(max(least, self._tunnel.loss_noticed_after), most)

    def goal(self) -> float:
        """The progress at which all that was written by now has arrived, at the latest."""
        if self._tunnel is None or self._unseen is None:
            return float("inf")
        return self._tunnel.written + self._unseen

    def settled(self, goal: float) -> bool:
        """Whether there is nothing more to wait for."""
        tunnel = self._tunnel
        return self._over or (tunnel is not None and (tunnel.idle or tunnel.acked >= goal))

    @property
    def missing(self) -> bool:
        """Whether something that was written is known not to have arrived."""
        tunnel = self._tunnel
        return not self._over and tunnel is not None and (tunnel.undelivered_bytes > 0 or tunnel.untaken)

    def loss(self) -> str:
        """What has not arrived, in words; empty if nothing is known to be missing."""
        if self.dialling:
            target = self.target or "a target that was not named yet"
            return f"whatever was written to a connection to {target} that was still being dialled"
        if self._over or self._tunnel is None:
            return ""
        if count := self._tunnel.undelivered_bytes:
            return f"at least {count} bytes written to the tunnel to {self.target}"
        return f"the last bytes written to the tunnel to {self.target}" if self._tunnel.untaken else ""


_lock = threading.Lock()
_open: set[Connection] = set()
_listeners: dict[Callable[[], None], object] = {}  # what stops them, and whose they are
_closers: list[Callable[[], None]] = []


def begin(
    target: str, owners: tuple[object, ...], *, timeout: float | None = None, unseen: int | None = None
) -> Connection:
    """A connection began; arguments as of :class:`Connection`."""
    connection = Connection(target, owners, timeout, unseen)
    with _lock:
        _open.add(connection)
        _finish_with_worker()
    return connection


def end(connection: Connection) -> None:
    """A connection is over, and what was lost with it was said."""
    connection.over()
    with _lock:
        _open.discard(connection)


def add_listener(stop: Callable[[], None], owner: object) -> None:
    """Connections are accepted, until ``stop`` is called: at exit, or by :func:`stop_listeners`."""
    with _lock:
        _listeners[stop] = owner


def discard_listener(stop: Callable[[], None]) -> None:
    """Nothing is accepted any more."""
    with _lock:
        _listeners.pop(stop, None)


def add_closer(close: Callable[[], None]) -> None:
    """At exit, when the connections have ended: what they had in common is to be closed."""
    _closers.append(close)


def expect_exit() -> None:
    """Something of ours is there that has to be closed at exit: also in a worker of multiprocessing's."""
    with _lock:
        _finish_with_worker()


def stop_listeners(owner: object) -> None:
    """Stop whatever accepts connections for ``owner``. Blocking: until those that are waiting were taken."""
    with _lock:
        stops = [stop for stop, whose in _listeners.items() if whose is owner]
    for stop in stops:
        stop()


def is_open(owner: object) -> bool:
    """Whether any connection of the owner's has not ended yet."""
    return bool(_owned(owner))


def wait_until_idle(owner: object) -> None:
    """Wait until all that was written to the owner's connections has arrived.

    Blocking: for dials that are under way, at most for their timeout; then for as long as bytes move, and
    for :attr:`Connection.patience` more.
    """
    _wait(_owned(owner), lambda: False)


def warn_undelivered(owner: object) -> None:
    """Say what has not arrived of the owner's connections; it still may."""
    _warn(_owned(owner), "when the dialer was closed: they are lost if the program exits before they have")


def finish(owner: object, stopped: Callable[[], bool] = lambda: False) -> bool:
    """The owner's connections end here: wait as :func:`wait_until_idle` does, and say what is lost.

    Args:
        owner: Whose.
        stopped: Whether to wait no longer.

    Returns:
        Whether anything is lost.
    """
    return _finish(_owned(owner), stopped)


def wait_until_over(owner: object) -> None:
    """Wait until the owner's connections have ended, as they do once they were reset: the relay is told.

    Blocking: at most ``STANDSTILL``.
    """
    deadline = Deadline(STANDSTILL)
    while _owned(owner) and not deadline.passed():
        time.sleep(_LOOK)


def give_up_dialling(owner: object) -> None:
    """Wait no longer for dials of the owner's, and say so."""
    dialling = [connection for connection in _owned(owner) if connection.dialling]
    _warn(dialling, "when it was stopped: it is lost")
    for connection in dialling:
        end(connection)


def _owned(owner: object) -> list[Connection]:
    with _lock:
        return [connection for connection in _open if any(each is owner for each in connection.owners)]


def _finish(connections: Collection[Connection], stopped: Callable[[], bool]) -> bool:
    try:
        # First without an end: of a big write, the kernel may still hold a part back.
        stuck = _wait(connections, stopped)
        for connection in connections:
            connection.begin_drain()
        _wait([connection for connection in connections if connection not in stuck], stopped)
    finally:
        lost = _warn(connections, "when the program exited: they are lost")
        for connection in connections:
            end(connection)
    return lost


def _wait(connections: Collection[Connection], stopped: Callable[[], bool]) -> list[Connection]:
    """Wait until they are settled, or nothing moves any more; gives those that are not settled."""
    goals = {connection: connection.goal() for connection in connections}
    before: list[tuple[Connection, int]] = []
    moved_at = time.monotonic()
    while pending := [each for each in connections if not each.settled(goals[each])]:
        if stopped():
            return pending
        now, picture = time.monotonic(), [(each, each.progress) for each in pending]
        if picture != before or any(each.may_be_dialled for each in pending):
            before, moved_at = picture, now
        elif now >= moved_at + max(each.patience for each in pending):
            return pending
        time.sleep(_LOOK)
    return []


def _warn(connections: Collection[Connection], when: str) -> bool:
    losses = [loss for connection in connections if (loss := connection.loss())]
    for loss in losses:
        _logger.warning(
            "%s had not arrived %s. Shut sockets down and read them to their end before, to be sure",
            loss,
            when,
        )
    return bool(losses)


def _finish_at_exit() -> None:
    with _lock:
        stops = list(_listeners)
    for stop in stops:
        stop()
    with _lock:
        connections = list(_open)
    _finish(connections, lambda: False)
    for close in _closers:
        close()


def _forget() -> None:
    """A forked child has none of the threads that carry the connections: they are its parent's."""
    global _lock, _finishes_with_worker
    _lock = threading.Lock()  # the old one may be held by a thread that does not exist here
    _finishes_with_worker = False
    for connection in _open:
        connection.over()  # whoever was waiting for them when the program forked
    _open.clear()
    _listeners.clear()


_finishes_with_worker = False


def _finish_with_worker() -> None:
    """A worker of multiprocessing's has no exit of the interpreter's: have it finish before. Idempotent."""
    global _finishes_with_worker
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if not _finishes_with_worker and process and util and process.parent_process() is not None:
        _finishes_with_worker = True
        util.Finalize(None, _finish_at_exit, exitpriority=0)


atexit.register(_finish_at_exit)
in_child(_forget)
