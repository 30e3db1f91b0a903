"""One dial of a dialer: opens a session, ties it to a socket, and drives it to its end."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import OpenedSession, open_session
from emissary_lib.client.in_flight import InFlightLimiter, InFlightSlots
from emissary_lib.client.progress import Progress
from emissary_lib.client.resume import ResumeUpgrade
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import TransportError, TunnelResetError, local_resource_error, reset_error
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_FRAGMENT
from emissary_lib.protocol.record import Record, replace
from emissary_lib.protocol.session.events import Aborted, Event, GoingAway, MessagesShortened
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.session.session import SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.tunnel.driver import Tunnel
from emissary_lib.tunnel.link import SocketLink
from emissary_lib.tunnel.loopback import reset
from emissary_lib.tunnel.suspend import SuspendDetector

logger = logging.getLogger("emissary_lib.tunnel")


class Learned:
    """What one session of a dialer's has found out for the next.

    Attributes:
        short: Whether the gateway passes on no message of more than one fragment (docs/protocol.md section
            4.8).
        original: Whether the server was the original Emissary's when it was met last, by its banner.
        proved: Whether a session was opened by ``emissary.v2``, so that a server had proved that it holds
            the key: this dialer takes no other from then on (docs/protocol.md 12.1-3).

    Thread safety: any.
    """

    def __init__(self) -> None:
        self.short = False
        self.original = False
        self.proved = False

    def note_original(self, url: str) -> None:
        """The server at ``url`` has sent the original Emissary's banner."""
        if not self.original:
            self.original = True
            logger.info(
                "the server at %s speaks the original Emissary's transport: it proves nothing but its "
                "certificate, and what that wire cannot is in docs/protocol.md, section 12.5",
                url,
            )

    def note_session(self) -> None:
        """A session was opened by ``emissary.v2``."""
        self.original, self.proved = False, True

    def note(self, event: Event) -> None:
        """Something has happened to a session."""
        if isinstance(event, MessagesShortened) and not self.short:
            self.short = True
            logger.info(
                "the gateway passes on no message of more than %d characters; from now on all are shorter: "
                "bulk is slower, and nothing is lost",
                MAX_FRAGMENT,
            )


class Opener(Record):
    """How a dialer opens sessions.

    Attributes:
        endpoint: The gateway.
        key: To sign with.
        streams: What a session buffers.
        keepalive: When to ask whether the relay is still there.
        in_flight: The places that all tunnels of a dialer share.
        clock: As of :class:`SuspendDetector`.
        learned: What sessions have found out.
    """

    endpoint: Endpoint
    key: Key
    streams: StreamConfig
    keepalive: KeepaliveTimes
    in_flight: InFlightLimiter
    clock: Callable[[], float] | None
    learned: Learned

    def config(self, slots: InFlightSlots) -> SessionConfig:
        """What a session is built with."""
        streams = replace(self.streams, short=self.learned.short)
        return SessionConfig(streams=streams, keepalive=self.keepalive, gate=slots)

    def link(self, opened: OpenedSession) -> SocketLink:
        """A session's link, which connects again when it is cut."""
        if opened.session.short:  # found out while it was opened
            self.learned.note(MessagesShortened())
        upgrade = ResumeUpgrade(self.endpoint, self.key, opened.id, opened.parameters.resume_token)
        return SocketLink(ReconnectingTransport(opened.transport, upgrade.connect))

    def end_unattached(self, opened: OpenedSession, link: SocketLink, reason: str) -> None:
        """End a session that nobody drives, so that no relay waits for us."""
        now = time.monotonic()
        opened.session.abort(Code.DIALER_RESET, reason, now)
        with contextlib.suppress(TransportError):
            for message in opened.session.messages_to_send(now):
                link.send(message)
        link.close()
        link.release()


def run_and_tell(
    run: Callable[[], TunnelResetError | None], on_end: Callable[[TunnelResetError | None], None]
) -> None:
    """Call ``run``, and tell ``on_end`` what it returned; ``None`` if it raised, which is passed on."""
    error: TunnelResetError | None = None
    try:
        error = run()
    finally:
        on_end(error)


class Dial:
    """One session of a dialer's, from its opening to its end: construct, :meth:`attach`, :meth:`run`.

    Args:
        target: What to reach.
        deadline: For the opening alone.
        opener: How the dialer opens sessions.
        progress: Of a dial that has begun already; ``None`` for one that begins now.

    Attributes:
        info: What is known of the session.

    Blocking: constructing it, until the relay is connected to the target.

    Raises:
        EmissaryError: As :func:`open_session`.
    """

    def __init__(
        self, target: Target, deadline: Deadline, opener: Opener, progress: Progress | None = None
    ) -> None:
        self._target = target
        self._opener = opener
        self._tunnel: Tunnel | None = None
        self._slots = opener.in_flight.member(self._wake)
        try:
            config = opener.config(self._slots)
            self._opened = open_session(opener.endpoint, opener.key, target, config, deadline, progress)
        except BaseException:
            self._slots.close()
            raise
        self.info = _session_info(self._opened, target)
        if self._opened.announced:
            self._on_event(self._opened.announced)

    def attach(self, sock: socket.socket) -> Tunnel:
        """Tie the session to ``sock``, which is owned from here on; call :meth:`run` next.

        Returns:
            What carries the bytes.

        Raises:
            LocalResourceError: No descriptor or thread is left; the session was ended, and the socket reset.
        """
        link = self._opener.link(self._opened)
        try:
            tunnel = Tunnel(
                self._opened.session,
                link,
                sock,
                on_event=self._on_event,
                on_idle=self._slots.decline,
                suspend_detector=SuspendDetector(self._opener.clock),
            )
        except BaseException as exc:
            reset(sock)
            self._opener.end_unattached(self._opened, link, "the dialer has no descriptor for it")
            self._slots.close()
            if isinstance(exc, OSError):
                raise local_resource_error(exc) from exc
            raise
        self._tunnel = tunnel
        try:
            tunnel.start()
        except BaseException:
            self._slots.close()
            raise
        return tunnel

    def run(self) -> TunnelResetError | None:
        """Drive the tunnel until its end.

        Returns:
            Why it was cut off, if that is :func:`worth_telling`.

        Blocking: for the life of the tunnel.
        """
        assert self._tunnel, "attach comes first"
        try:
            self._tunnel.run()
        finally:
            self._slots.close()
        return worth_telling(self.info.error, self._tunnel.undelivered_bytes, untaken=self._tunnel.untaken)

    @property
    def nobody_is_left(self) -> bool:
        """Whether an error may find no reader at the socket: the program had ended its stream."""
        return self._tunnel is not None and self._tunnel.program_ended

    def start(self, on_end: Callable[[TunnelResetError | None], None]) -> None:
        """As :meth:`run`, in a thread of its own, and tell ``on_end`` what that would return.

        Raises:
            LocalResourceError: No thread is left; the session was ended, and the socket reset.
        """
        assert self._tunnel, "attach comes first"
        try:
            self._tunnel.run_in_thread(lambda: run_and_tell(self.run, on_end))
        except BaseException:
            self._slots.close()
            raise

    def _wake(self) -> None:
        if self._tunnel:
            self._tunnel.wake()

    def _on_event(self, event: Event) -> None:
        self._opener.learned.note(event)
        if isinstance(event, Aborted):
            limit = self._opened.parameters.remaining / 1000
            self.info.error = reset_error(
                self._target, event.code, event.reason, limit=limit, whole=event.whole
            )
        elif isinstance(event, GoingAway):
            self.info.announce_end(event.remaining / 1000, time.time())


def worth_telling(error: TunnelResetError | None, lost: int, *, untaken: bool) -> TunnelResetError | None:
    """Why a connection was cut off, if somebody has to be told; the error says from now on what was lost.

    A program that resets its own connection knows, unless bytes were lost that it had written before.
    """
    if error is None:
        return None
    error.lost, error.untaken = lost, untaken
    return error if error.lost or error.code is not Code.DIALER_RESET else None


def _session_info(opened: OpenedSession, target: Target) -> SessionInfo:
    expires_at = opened.opened_at + opened.parameters.remaining / 1000
    counters = opened.session.counters
    # The exchange before is not the user's.
    sent, received = counters.bytes_sent, counters.bytes_received - opened.session.buffered[1]
    return SessionInfo(
        opened.id,
        target,
        expires_at,
        counters,
        lambda: (counters.bytes_sent - sent, counters.bytes_received - received),
    )
