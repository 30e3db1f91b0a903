"""Drives one session: the link to the peer on one side, local sockets on the other.

Dialer and relay run the same code. What the sockets are is a subclass's: one for a session of one connection
(:class:`~emissary_lib.tunnel.driver.Tunnel`), many for a shared one
(:class:`~emissary_lib.tunnel.shared.SharedTunnel`).

Threads: the *driver* waits for the sockets and the clock, the *reader* waits for the link. Either may move
bytes: whoever has an input takes the lock, feeds the session, moves what can be moved without blocking, lets
go of the lock and then sends what the session wants sent. Nothing blocks while it holds the lock, and
messages need no order, so nobody waits for anybody.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

from emissary_lib.exceptions import (
    LinkRefusedError,
    LocalResourceError,
    TransportError,
    local_resource_error,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import ATTEMPT_TIMEOUT, LINGER
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Event, Finished, LinkDead
from emissary_lib.protocol.session.session import Outgoing, Session
from emissary_lib.transport.backoff import back_off
from emissary_lib.transport.close_codes import Advice, advice
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.shutdown import ShutdownPolicy
from emissary_lib.tunnel.suspend import SuspendDetector
from emissary_lib.tunnel.wakeup import Wakeup


class Options(TypedDict, total=False):
    """What :class:`SessionDriver` takes beside session and link, for its subclasses to pass on."""

    on_event: Callable[[Event], None]
    shutdown: ShutdownPolicy | None
    on_idle: Callable[[], None]
    clock: Callable[[], float]
    sleep: Callable[[float], object] | None
    suspend_detector: SuspendDetector | None


class _Step(NamedTuple):
    """What is to be done without the lock."""

    events: list[Event]
    messages: list[Outgoing]
    calls: list[Callable[[], None]]


class SessionDriver(ABC):
    """One session at work, without its sockets.

    Args:
        session: The protocol state; only the driver touches it from now on, under its lock.
        link: To the peer and the bridge; the driver closes it.
        on_event: Told of each event, in order, without the lock.
        shutdown: How long to wait for the sockets, and for the bridge, at the end; for both if not given.
        on_idle: Told, without the lock, whenever the driver has done what it could for now.
        clock: A monotonic clock.
        sleep: Waits so many seconds between two attempts to reconnect; ``None`` to wait until the session's
            end at most.
        suspend_detector: Notices that the host slept; ``None`` for one on the host's clock.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(
        self,
        session: Session,
        link: Link,
        *,
        on_event: Callable[[Event], None] = lambda event: None,
        shutdown: ShutdownPolicy | None = None,
        on_idle: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        suspend_detector: SuspendDetector | None = None,
    ) -> None:
        self._session = session
        self._link = link
        self._on_event = on_event
        self._shutdown = shutdown or ShutdownPolicy()
        self._on_idle = on_idle
        self._clock = clock
        self._suspend_detector = suspend_detector or SuspendDetector()
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        try:
            self._wakeup = Wakeup()
        except OSError:  # no descriptor is left
            self._selector.close()
            raise
        self._wakes_at: float | None = None  # when the driver wakes on its own
        self._aborted: Aborted | None = None
        self._finished = False
        self._calls: list[Callable[[], None]] = []  # to be made without the lock, in order
        self._ended = threading.Event()
        self._waits = back_off()  # between attempts to reconnect
        self._sleep = sleep or self._ended.wait
        self._reader = threading.Thread(target=self._read_link, name="emissary-reader", daemon=True)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    @property
    def local_code(self) -> Code:
        """What a reset of our own socket is called."""
        return Code.DIALER_RESET if self._session.role is Role.DIALER else Code.TARGET_RESET

    def start(self) -> None:
        """Begin, in the thread of whoever has to be told if that cannot be; :meth:`run` comes next.

        Raises:
            LocalResourceError: No thread is left; the session was ended, and everything is closed.
        """
        try:
            # What the session begins with counts as sent before anything can be said of it.
            with self._lock:
                step = self._advance()
            self._carry_out(step)
            self._reader.start()
        except RuntimeError as exc:
            raise self._end_without_thread("no thread is left for it", exc) from exc
        except BaseException:
            self.close()
            raise

    def run_in_thread(self, drive: Callable[[], None]) -> None:
        """Have ``drive``, which calls :meth:`run`, called in a thread of its own; :meth:`start` comes first.

        Raises:
            LocalResourceError: No thread is left; the session was ended, and everything is closed.
        """
        try:
            threading.Thread(target=drive, name="emissary-driver", daemon=True).start()
        except RuntimeError as exc:
            reason = f"the {self._session.role.value} has no thread for it"
            raise self._end_without_thread(reason, exc) from exc

    def _end_without_thread(self, reason: str, exc: RuntimeError) -> LocalResourceError:
        try:
            self.abort(self.local_code, reason)
        finally:
            self.close()
        return local_resource_error(exc)

    def run(self) -> None:
        """Drive the session until it is over and its bytes are delivered; then close everything.

        Blocking: for the life of the session. When it returns, its sockets and the link are closed, and no
        thread of it is left.

        Raises:
            LocalResourceError: As :meth:`start`, which it calls if nobody has.
        """
        if self._reader.ident is None:
            self.start()
        try:
            self._drive()
        finally:
            self.close()

    def close(self) -> None:
        """Close sockets and link: :meth:`run` does at its end; for a session that was never run."""
        self._ended.set()
        self._link.close()
        if self._reader.ident is not None:
            self._reader.join()
        self._link.release()
        self._selector.close()
        self._wakeup.close()
        self._close_sockets()

    def abort(self, code: Code, reason: str) -> None:
        """Cut the session off. From any thread; does not block for longer than a send."""
        self._apply(lambda now: self._session.abort(code, reason, now))

    def message_refused(self) -> None:
        """The carrier refused a message (429, 5xx, no answer). From any thread; as :meth:`abort`."""
        self._apply(self._session.message_refused)

    def message_too_long(self) -> None:
        """The carrier refused a message for its length (413, 1009). From any thread; as :meth:`abort`."""
        self._apply(self._session.message_too_long)

    def peer_unknown(self) -> None:
        """The peer's connection is not known to the carrier (410). From any thread; as :meth:`abort`."""
        self._apply(self._session.peer_unknown)

    def wake(self) -> None:
        """Something outside has changed (a place in a shared budget is free). From any thread."""
        self._wakeup.wake()

    # -- of the sockets -------------------------------------------------------------------------

    @abstractmethod
    def _move(self, now: float) -> None:
        """Move what can be moved between session and sockets without blocking. Requires the lock."""

    @abstractmethod
    def _prepare(self) -> list[Callable[[], None]]:
        """Before the driver waits, and when it returns: what it has to do without the lock. Requires it."""

    @abstractmethod
    def _on_ready(self, ready: Sequence[tuple[Any, int]], now: float) -> None:
        """The driver has waited: which sockets are ready for what. Requires the lock."""

    @abstractmethod
    def _undelivered(self) -> bool:
        """Whether bytes of the peer's wait for a socket to take them. Requires the lock."""

    @abstractmethod
    def _socket_timeout(self, now: float) -> float:
        """When to look at the sockets without an event; infinity for never. Requires the lock."""

    @abstractmethod
    def _interests_changed(self) -> bool:
        """Whether the driver waits for other events than it has to. Requires the lock."""

    def _on_session_event(self, event: Event, now: float) -> None:  # noqa: B027 - not for every driver
        """The session has told something. Requires the lock."""

    @abstractmethod
    def _close_sockets(self) -> None:
        """Close, or reset if anything is missing: a stream that was cut short must never look complete."""

    # -- the driver: sockets and clock ----------------------------------------------------------

    def _drive(self) -> None:
        while True:
            with self._lock:
                step = self._advance()
                actions = self._prepare()
                self._wakes_at = self._next_timeout()
                over = self._over()
            for act in actions:
                act()
            self._carry_out(step)
            if over:
                return
            self._on_idle()
            timeout = None if self._wakes_at is None else max(0.0, self._wakes_at - self._clock())
            ready = []
            for key, events in self._selector.select(self._suspend_detector.cap(timeout)):
                if key.fileobj is self._wakeup:
                    self._wakeup.clear()
                else:
                    ready.append((key.fileobj, events))
            with self._lock:
                now = self._clock()
                if self._suspend_detector.look():
                    self._session.on_suspend()
                self._on_ready(ready, now)
                self._session.handle_timeout(now)

    def _next_timeout(self) -> float | None:
        assert self._lock.locked()
        first = self._socket_timeout(self._clock())
        if (at := self._session.next_timeout()) is not None:
            first = min(first, at)
        return None if first == math.inf else first

    def _over(self) -> bool:
        return self._shutdown.over(self._clock(), delivered=not self._undelivered())

    # -- the reader: the link -------------------------------------------------------------------

    def _read_link(self) -> None:
        try:
            while True:
                try:
                    message = self._link.recv()
                except TransportError as exc:
                    if not self._reconnect(exc):
                        return
                else:
                    self._receive(message)
        except BaseException as exc:  # nobody else reads: the tunnel must not wait for what never comes
            self._end_refused(Code.PROTOCOL_ERROR, repr(exc))
            raise

    def _receive(self, message: bytes) -> None:
        self._apply(lambda now: self._take_message(message, now))

    def _take_message(self, message: bytes, now: float) -> None:
        """A message of the peer's or the bridge's has come. Requires the lock."""
        self._session.receive_message(message, now)

    def _reconnect(self, cause: TransportError) -> bool:
        """Replace the connection for as long as the session wants one; whether there is one again."""
        advised = advice(cause)

        def lose(now: float) -> None:
            if advised is Advice.SHORTER:
                self._session.message_too_long(now)
            elif advised is Advice.LATER:
                self._session.throttled()
            self._session.link_lost(self._session.role.gone, str(cause), now)

        self._apply(lose)
        with self._lock:
            flapping = self._session.flapping
            wanted = self._session.link_deadline is not None
        if advised is Advice.LATER:
            self._waits = back_off(at_longest=True)
        if wanted and (flapping or advised is Advice.LATER):
            self._sleep(next(self._waits))
        else:
            self._waits = back_off()  # and the first attempt is made at once
        doubted = False
        while (attempt := self._next_attempt()) is not None:
            epoch, deadline = attempt
            try:
                self._link.reconnect(epoch, deadline)
            except LinkRefusedError as exc:
                if not exc.certain and not doubted:
                    self._waits, doubted = back_off(at_longest=True), True
                    if (pause := next(self._waits)) < self._time_to_reconnect():
                        self._sleep(pause)
                        continue
                self._end_refused(exc.code, str(exc))
                return False
            except (TransportError, TimeoutError, LocalResourceError):
                self._sleep(next(self._waits))
            else:
                self._apply(self._session.link_restored)
                return True
        return False

    def _end_refused(self, code: Code, reason: str) -> None:
        self._apply(lambda now: self._session.link_refused(code, reason))

    def _time_to_reconnect(self) -> float:
        with self._lock:
            until = self._session.link_deadline
            return 0.0 if until is None else until - self._clock()

    def _next_attempt(self) -> tuple[int, Deadline] | None:
        with self._lock:
            until = self._session.link_deadline
            if until is None or self._ended.is_set():
                return None
            left = max(0.0, until - self._clock())
            return self._session.begin_attempt(), Deadline(min(ATTEMPT_TIMEOUT, left))

    def _apply(self, change: Callable[[float], None]) -> None:
        """Change the session, move what can be moved, and let the driver know what it must."""
        with self._lock:
            change(self._clock())
            step = self._advance()
            wake = self._driver_must_know()
        if wake:
            self._wakeup.wake()
        self._carry_out(step)

    def _driver_must_know(self) -> bool:
        assert self._lock.locked()
        wakes_at = self._next_timeout()
        sooner = wakes_at is not None and (self._wakes_at is None or wakes_at < self._wakes_at)
        return sooner or self._over() or self._interests_changed()

    # -- both -----------------------------------------------------------------------------------

    def _advance(self) -> _Step:
        """Move what can be moved without blocking. Requires the lock; gives what to do without it."""
        assert self._lock.locked()
        now = self._clock()
        self._move(now)
        messages = self._messages(now)
        events = []
        while event := self._session.next_event():
            events.append(event)
            if isinstance(event, Aborted):
                self._aborted = event
                # Whoever was waited for in vain was waited for long enough.
                self._shutdown.cut_off(now, linger=0.0 if event.code is Code.DIALER_GONE else LINGER)
            elif isinstance(event, Finished):
                self._finished = True
                self._shutdown.finish(now)
            self._on_session_event(event, now)
        calls, self._calls = self._calls, []
        return _Step(events, messages, calls)

    def _messages(self, now: float) -> list[Outgoing]:
        """What the session has to send now. Requires the lock."""
        return self._session.messages_to_send(now)

    def _carry_out(self, step: _Step) -> None:
        for call in step.calls:
            call()
        for event in step.events:
            self._on_event(event)
            if isinstance(event, LinkDead):
                self._link.drop()
            elif isinstance(event, Finished) and not self._shutdown.bounded:
                # Even if the user is slow to take the last bytes. A relay says goodbye when it returns: then
                # its place among the sessions is given to another.
                self._link.close()
        # The reader meets the end of a connection that breaks here, and what was lost is sent again.
        with contextlib.suppress(TransportError):
            for message in step.messages:
                self._link.send(message)
