"""One relay that carries many connections, as the dialer sees it (docs/protocol.md section 11)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.client.dial import Opener
from emissary_lib.client.handshake import OpenedSession, Request, open_request
from emissary_lib.client.progress import Progress
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import (
    DialError,
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
    {Code.DIALER_GONE, Code.RELAY_GONE, Code.UNKNOWN_SESSION, Code.RELAY_DEADLINE, Code.LINK_DEAD}
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

    Attributes:
        id: The session id.
        counters: Its bytes and messages; live.
        first: The connection that was asked for with the opening.
        expires_at: When its time is up, in seconds since 1970 UTC.

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
    ) -> None:
        self._limits = MuxLimits(connections=connections)
        self._on_ended = on_ended
        self._tunnel: SharedTunnel | None = None
        self._infos: set[SessionInfo] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._slots = opener.in_flight.member(self._wake)
        try:
            opened = self._open(target, deadline, opener, progress)
        except BaseException:
            self._slots.close()
            raise
        self.id = opened.id
        self.counters = opened.session.counters
        self._life = opened.parameters.remaining / 1000
        self._ends_at = time.monotonic() + self._life
        self.expires_at = opened.opened_at + self._life
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

    def _open(self, target: Target, deadline: Deadline, opener: Opener, progress: Progress) -> OpenedSession:
        def begin() -> bytes:
            self._mux = DialerMultiplexer(self._limits, time.monotonic())
            self._stream = self._mux.open(target)
            return self._mux.data_to_send(_BEHIND)

        request, config = Request(SHARED_TARGET, begin), opener.config(self._slots)
        try:
            opened = open_request(opener.endpoint, opener.key, request, config, deadline, progress)
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
            try:
                threading.Thread(target=self._drive, name="emissary-driver", daemon=True).start()
            except RuntimeError as exc:  # no thread is left
                tunnel.abort(Code.DIALER_RESET, "the dialer has no thread for it")
                tunnel.close()
                raise local_resource_error(exc) from exc
        except BaseException:
            self._slots.close()
            raise

    def _drive(self) -> None:
        try:
            self._driven.run()
        finally:
            self._slots.close()
            self._over.set()
            self._on_ended(self)

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
        """How many more may be asked for now."""
        return self._driven.room

    @property
    def life_left(self) -> float:
        """Which part of its life is left, from 0 to 1."""
        return max(0.0, (self._ends_at - time.monotonic()) / self._life) if self._life else 0.0

    @property
    def busy(self) -> bool:
        """Whether somebody carries as much as the way takes."""
        return self._driven.busy

    def open(self, target: Target) -> SharedConnection | None:
        """Ask for a connection; ``None`` if there is no room."""
        return self._driven.open(target)

    def end(self) -> None:
        """End the session as soon as no connection is left."""
        self._driven.end()

    def wait_ended(self, timeout: float) -> None:
        """Wait until the session is over, unless a connection holds it."""
        if not self.connections:
            self._over.wait(timeout)

    def watch(self, info: SessionInfo) -> None:
        """Tell ``info`` of the session's end when that is announced, until :meth:`forget`."""
        with self._lock:
            self._infos.add(info)

    def forget(self, info: SessionInfo) -> None:
        """A connection is over."""
        with self._lock:
            self._infos.discard(info)

    @property
    def limit(self) -> float:
        """Seconds that the relay gave the session when it opened it."""
        return self._life

    def _wake(self) -> None:
        if self._tunnel:
            self._tunnel.wake()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, GoingAway):
            self._ends_at = min(self._ends_at, time.monotonic() + event.remaining / 1000)
            self.expires_at = min(self.expires_at, time.time() + event.remaining / 1000)
            with self._lock:
                infos = list(self._infos)
            for info in infos:
                info.announce_end(event.remaining / 1000, time.time())


class SharedDial:
    """One connection of a shared session's, once the relay is connected to the target.

    Used as :class:`emissary_lib.client.dial.Dial`.

    Args:
        session: Whose.
        connection: The connection.

    Attributes:
        info: What is known of it.
    """

    def __init__(self, session: SharedSession, connection: SharedConnection) -> None:
        self._session = session
        self._connection = connection
        self.info = SessionInfo(
            session.id, connection.target, session.expires_at, session.counters, connection.transferred
        )
        session.watch(self.info)
        connection.watch_cut(self._note_cut)

    def _note_cut(self) -> None:
        """Before the program's socket is reset: whoever meets that asks why."""
        connection = self._connection
        if connection.code is Code.OK:
            return
        reason = connection.reason or MEANINGS[connection.code]
        self.info.error = reset_error(
            connection.target, connection.code, reason, limit=self._session.limit, whole=connection.whole
        )

    def attach(self, sock: socket.socket) -> SharedConnection:
        """Tie the connection to ``sock``, which is owned from here on."""
        self._connection.attach(sock)
        return self._connection

    def start(self, on_end: Callable[[TunnelResetError | None], None]) -> None:
        """Carry bytes until the end, and tell ``on_end`` then what :meth:`run` would return."""
        self._connection.watch_over(lambda: on_end(self._outcome()))

    def run(self) -> TunnelResetError | None:
        """Wait for the end; as of :meth:`emissary_lib.client.dial.Dial.run`."""
        self._connection.ended.wait()
        return self._outcome()

    @property
    def nobody_is_left(self) -> bool:
        """Whether an error may find no reader at the socket: the program had ended its stream."""
        return self._connection.program_ended

    def _outcome(self) -> TunnelResetError | None:
        self._session.forget(self.info)
        error = self.info.error
        if error is None:
            return None
        error.lost, error.untaken = self._connection.lost, self._connection.was_untaken
        return error if error.lost or error.code is not Code.DIALER_RESET else None


def answer_of(connection: SharedConnection) -> EmissaryError | None:
    """Why a connection that was answered, or is over, is not open; ``None`` if it is."""
    if connection.opened:
        return None
    return dial_error(connection.target, connection.code, connection.reason)


def may_start_over(connection: SharedConnection) -> bool:
    """Whether another relay may reach what this one did not."""
    return connection.declined or (bool(connection.reason) and connection.code in _START_OVER)
