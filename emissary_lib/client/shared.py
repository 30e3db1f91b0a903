"""One relay that carries many connections, as the dialer sees it (docs/protocol.md section 11)."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.client.dial import Opener, worth_telling
from emissary_lib.client.handshake import OpenedSession, Request, abort_error, open_request
from emissary_lib.client.progress import Progress
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import (
    DialError,
    DialTimeoutError,
    EmissaryError,
    TunnelResetError,
    dial_error,
    local_resource_error,
    reset_error,
)
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.limits import SHARED_TARGET, MuxLimits
from emissary_lib.protocol.session.events import Event, GoingAway
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.shared import SharedConnection, SharedTunnel
from emissary_lib.tunnel.suspend import SuspendDetector

#: What a bridge, or a relay, that knows no shared sessions says of the reserved name (11.1-6).
_UNKNOWN_NAME: Final = frozenset(
    {
        Code.TARGET_NOT_ALLOWED,
        Code.NAME_NOT_FOUND,
        Code.TARGET_REFUSED,
        Code.TARGET_UNREACHABLE,
        Code.TARGET_TIMED_OUT,
        Code.TARGET_FAILED,
    }
)

#: Bytes that may stand behind the SOCKS5 bytes of an opening: HTTP/2's beginning and one request.
_BEHIND: Final = 2_048

#: Ends of a session before a request was answered, after which another relay may do better.
_START_OVER: Final = frozenset(
    {
        Code.DIALER_GONE,
        Code.RELAY_GONE,
        Code.UNKNOWN_SESSION,
        Code.RELAY_DEADLINE,
        Code.LINK_DEAD,
        Code.INCOMPLETE,
    }
)


class NotSharedError(EmissaryError):
    """The bridge, or its relay, has no shared sessions; never seen by a caller."""


class SharedSession:
    """One relay of a dialer's: construct, then :meth:`start`.

    Args:
        target: What to reach first.
        deadline: For the opening alone.
        opener: How the dialer opens sessions.
        connections: At once, at most.
        idle_seconds: How long to keep it without a connection.
        progress: Says what is waited for.
        on_ended: Told once the session is over.
        clock: A monotonic clock that goes on while the host sleeps.
        limit_wait: As of :func:`open_request`.

    Attributes:
        id: The session id.
        counters: Its bytes and messages; live.
        first: The connection that was asked for with the opening.
        expires_at: When its time is up, in seconds since 1970 UTC.
        limit: Seconds that the relay gave the session when it opened it.
        going_away: Whether the relay has announced its end.

    Blocking: constructing it, until the relay is there.

    Raises:
        NotSharedError: There are none here.
        EmissaryError: As :func:`open_session`.
    """

    def __init__(
        self,
        target: Target,
        deadline: Deadline,
        *,
        opener: Opener,
        connections: int,
        idle_seconds: float,
        progress: Progress,
        on_ended: Callable[[SharedSession], None],
        clock: Callable[[], float],
        limit_wait: float | None = None,
    ) -> None:
        self._clock = clock
        self._limits = MuxLimits(connections=connections)
        self._on_ended = on_ended
        self._tunnel: SharedTunnel | None = None
        self._dials: set[SharedDial] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._waited_for = False
        self._opener = opener
        self._slots = opener.in_flight.member(self._wake)
        try:
            opened = self._open(target, deadline, opener, progress, limit_wait)
        except BaseException:
            self._slots.close()
            raise
        self.id = opened.id
        self.counters = opened.session.counters
        self.limit = opened.parameters.remaining / 1000
        self._ends_at = clock() + self.limit
        self.expires_at = opened.opened_at + self.limit
        self.going_away = False
        self._announced: GoingAway | None = None
        link = opener.link(opened)
        try:
            self._tunnel = SharedTunnel(
                opened.session,
                link,
                self._mux,
                idle_seconds=idle_seconds,
                on_event=self._on_event,
                on_idle=self._slots.decline,
                suspend_detector=SuspendDetector(opener.clock),
            )
        except BaseException as exc:
            opener.end_unattached(opened, link, "the dialer has no descriptor for it")
            self._slots.close()
            if isinstance(exc, OSError):
                raise local_resource_error(exc) from exc
            raise
        self.first = self._tunnel.adopt(self._stream, target)
        if opened.announced:
            self._on_event(opened.announced)

    def _open(
        self,
        target: Target,
        deadline: Deadline,
        opener: Opener,
        progress: Progress,
        limit_wait: float | None,
    ) -> OpenedSession:
        def begin() -> bytes:
            self._mux = DialerMultiplexer(self._limits, time.monotonic())
            self._stream = self._mux.open(target)
            return self._mux.data_to_send(_BEHIND)

        request, config = Request(SHARED_TARGET, begin), opener.config(self._slots)
        try:
            opened = open_request(
                opener.endpoint, opener.key, request, config, deadline, progress, limit_wait=limit_wait
            )
        except DialTimeoutError:  # which has a code that the relay has, too
            raise
        except DialError as exc:
            if exc.code in _UNKNOWN_NAME:
                raise NotSharedError(str(exc)) from exc
            raise
        if not opened.parameters.capabilities & CAPABILITY_SHARED:
            opener.end_unattached(opened, opener.link(opened), "it is not shared")
            raise NotSharedError("the relay took the reserved name for a target")
        return opened

    def start(self) -> None:
        """Begin to carry bytes.

        Raises:
            LocalResourceError: No thread is left; the session was ended.
        """
        tunnel = self._driven
        try:
            tunnel.start()
            tunnel.run_in_thread(self._drive)
        except BaseException:
            self._slots.close()
            self._over.set()
            raise

    def give_up(self) -> None:
        """End it at once: nobody will use it."""
        self._driven.abort(Code.DIALER_RESET, "the dial was given up")

    def _drive(self) -> None:
        try:
            self._driven.run()
        finally:
            self._slots.close()
            self._on_ended(self)
            self._over.set()

    @property
    def _driven(self) -> SharedTunnel:
        assert self._tunnel is not None
        return self._tunnel

    @property
    def connections(self) -> int:
        """How many it carries now."""
        return self._driven.connections

    @property
    def room(self) -> int:
        """How many more may be asked for now; none once its end is announced (11.2-10)."""
        return 0 if self.going_away else self._driven.room

    @property
    def life_left(self) -> float:
        """Which part of its life is left, from 0 to 1."""
        return max(0.0, (self._ends_at - self._clock()) / self.limit) if self.limit else 0.0

    @property
    def worth_waiting_for(self) -> bool:
        """Whether its end, once asked for, may be near, as far as is known.

        Not while a program dials or uses one of its connections, or bytes are missing at a target: these were
        waited for before. Not a second time, either.
        """
        return not self._waited_for and self._driven.only_targets_left

    @property
    def busy(self) -> bool:
        """Whether somebody carries as much as the way takes."""
        return self._driven.busy

    def open(self, target: Target, deadline: Deadline) -> SharedConnection | None:
        """Ask for a connection; as :meth:`SharedTunnel.open`."""
        return self._driven.open(target, deadline)

    def end(self) -> None:
        """End the session as soon as no connection is left."""
        self._driven.end()

    def wait_ended(self, deadline: Deadline) -> None:
        """Wait until the session is over and the bridge knows, at most until the deadline."""
        self._waited_for = True
        deadline.wait(self._over)

    def watch(self, dial: SharedDial) -> None:
        """Tell a connection of the session's end when that is announced, or now, until :meth:`forget`."""
        with self._lock:
            self._dials.add(dial)
            announced = self._announced
        if announced:
            dial.info.announce_end(self.expires_at - time.time(), time.time())

    def forget(self, dial: SharedDial) -> None:
        """A connection is over."""
        with self._lock:
            self._dials.discard(dial)

    def _wake(self) -> None:
        if self._tunnel:
            self._tunnel.wake()

    def _on_event(self, event: Event) -> None:
        self._opener.learned.note(event)
        if isinstance(event, GoingAway):
            remaining, unix_now = event.remaining / 1000, time.time()
            with self._lock:
                self.going_away = True
                self._announced = event
                self._ends_at = min(self._ends_at, self._clock() + remaining)
                self.expires_at = min(self.expires_at, unix_now + remaining)
                dials = list(self._dials)
            for dial in dials:
                if dial.info.note_end(remaining, unix_now):
                    self._driven.tell(functools.partial(dial.info.warn_of_end, remaining))


class SharedDial:
    """One connection of a shared session's, from when it is asked for; it is to be attached once it is open.

    Used as :class:`emissary_lib.client.dial.Dial`. Who drops it before that gives the connection up: a
    signal's handler may raise between any two steps of a dial, and nobody else knows that none will follow.

    Args:
        session: Whose.
        connection: The connection.

    Attributes:
        connection: As above.
        info: What is known of it.
    """

    def __init__(self, session: SharedSession, connection: SharedConnection) -> None:
        self._attached = False
        self._session = session
        self.connection = connection
        self.info = SessionInfo(
            session.id, connection.target, session.expires_at, session.counters, connection.transferred
        )

    def __del__(self) -> None:
        if not (self._attached or self.connection.over):
            self.connection.abandon()

    def _note_cut(self) -> None:
        """Before the program's socket is reset: whoever meets that asks why."""
        connection = self.connection
        if connection.code is Code.OK:
            return
        reason = connection.reason or MEANINGS[connection.code]
        self.info.error = reset_error(
            connection.target, connection.code, reason, limit=self._session.limit, whole=connection.whole
        )

    def attach(self, sock: socket.socket) -> SharedConnection:
        """Tie the connection to ``sock``, which is owned from here on."""
        connection, self._attached = self.connection, True
        try:
            connection.watch_cut(self._note_cut)
            connection.attach(sock)
            self._session.watch(self)
        except BaseException:
            connection.abort(Code.DIALER_RESET)
            raise
        return connection

    def start(self, on_end: Callable[[TunnelResetError | None], None]) -> None:
        """Carry bytes until the end, and tell ``on_end`` then what :meth:`run` would return."""
        self.connection.watch_over(lambda: on_end(self._outcome()))

    def run(self) -> TunnelResetError | None:
        """Wait for the end; as of :meth:`emissary_lib.client.dial.Dial.run`."""
        self.connection.ended.wait()
        return self._outcome()

    @property
    def nobody_is_left(self) -> bool:
        """Whether an error may find no reader at the socket: the program had ended its stream."""
        return self.connection.program_ended

    def _outcome(self) -> TunnelResetError | None:
        self._session.forget(self)
        connection = self.connection
        return worth_telling(self.info.error, connection.lost, untaken=connection.was_untaken)


def answer_of(connection: SharedConnection) -> EmissaryError | None:
    """Why a connection that was answered, or is over, is not open; ``None`` if it is."""
    if connection.opened:
        return None
    if connection.reason:  # the session was cut off
        return abort_error(connection.target, connection.code, connection.reason)
    return dial_error(connection.target, connection.code)


def may_start_over(connection: SharedConnection) -> bool:
    """Whether another relay may reach what this one did not."""
    return connection.declined or connection.code in _START_OVER
