"""The dialer's side of a shared session: asks for connections, each for a local TCP socket.

A connection begins with :meth:`SharedTunnel.open` and gets its socket by :meth:`SharedConnection.attach`.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable
from typing import TypeVar, Unpack

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux import events as mux_events
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.limits import SESSION_BACKLOG
from emissary_lib.protocol.session.events import Event, GoingAway
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.carried import CarriedConnection
from emissary_lib.tunnel.driver import QUIET
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.loopback import reset
from emissary_lib.tunnel.session_driver import Options
from emissary_lib.tunnel.shared_driver import SharedDriver

_T = TypeVar("_T")


class SharedConnection(CarriedConnection):
    """One connection of a shared session's, asked for at the dialer.

    It is a :class:`emissary_lib.client.drain.Drainable`.

    Attributes:
        declined: Whether the relay takes no more connections, and has done nothing for this one.
        answered: Set when the relay has answered, or the connection is over.

    Thread safety: any. Nothing blocks.
    """

    def __init__(self, tunnel: SharedTunnel, stream: int, target: Target) -> None:
        super().__init__(stream, target)
        self.declined = False
        self.attaching = False  # a socket was given, and the driver has not taken it yet
        self.exiting = False  # the program exits, though the driver may not have heard of it yet
        self.answered = threading.Event()
        self._tunnel = tunnel

    def attach(self, sock: socket.socket) -> None:
        """Tie the connection to a connected TCP socket, which is owned from here on.

        If it was cut off already, the socket is reset once it has what came before.
        """
        self._tunnel.attach(self, sock)

    def abort(self, code: Code) -> None:
        """Cut it off, or give a dial up; what is under way is dropped, and the socket reset."""
        self._tunnel.abort_connection(self, code)

    def abandon(self) -> None:
        """Give it up, for a finalizer: that runs anywhere, also where this thread has the tunnel's lock."""
        self._tunnel.abandon(self)

    def finish(self) -> None:
        """As of :class:`CarriedConnection`."""
        self.answered.set()
        super().finish()

    def begin_drain(self) -> None:
        """The program exits: half-close behind what it has written, as the kernel would."""
        self._tunnel.begin_drain(self)

    @property
    def idle(self) -> bool:
        """Whether all that the user has written, the end of its stream included, has arrived.

        Never after a cut, before it is over, nor after one that may have lost something: the user has to
        be told.
        """
        return self._tunnel.ask(lambda now: self._tunnel.is_idle(self, now))

    @property
    def acked(self) -> int:
        """How much of what the user has written has arrived, its end included."""
        return self._tunnel.ask(lambda now: self._tunnel.acked(self))

    @property
    def progress(self) -> int:
        """Grows while what the user has written moves, here or at the relay; 0 once it is over."""
        return self._tunnel.ask(lambda now: self._tunnel.progress(self))

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which what has not arrived is sent again: until then, nothing need move."""
        return self._tunnel.loss_noticed_after

    @property
    def written(self) -> int:
        """How much the user has written, as far as it has come out of the user's socket."""
        return self._tunnel.ask(lambda now: self.sent + self.in_kernel)

    @property
    def undelivered_bytes(self) -> int:
        """Bytes that the user has written and that have not arrived, at least: the kernel may hold more.

        After a cut, those that are lost.
        """
        return self._tunnel.ask(lambda now: self._tunnel.undelivered(self))

    @property
    def untaken(self) -> bool:
        """Whether the relay has all that the user has written, and the target may not."""
        return self._tunnel.ask(lambda now: self._tunnel.is_untaken(self))

    @property
    def program_ended(self) -> bool:
        """Whether the user had ended the stream, as far as is known: nobody may be left to meet an error."""
        return self.user_ended


class SharedTunnel(SharedDriver[SharedConnection]):
    """One shared session of a dialer's at work.

    Args:
        session: As of :class:`SessionDriver`.
        link: As of :class:`SessionDriver`.
        mux: Its connections; only the tunnel touches it from now on, under its lock.
        idle_seconds: How long to keep the session without a connection.
        options: The others of :class:`SessionDriver`.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(
        self,
        session: Session,
        link: Link,
        mux: DialerMultiplexer,
        *,
        idle_seconds: float = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(session, link, mux, **options)
        self._dialer_mux = mux
        self._idle_seconds = idle_seconds
        self._ending = False  # as soon as no connection is left

    # -- connections, from any thread -----------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more may be asked for now."""
        with self._lock:
            return self._dialer_mux.room if self._asks else 0

    @property
    def busy(self) -> bool:
        """Whether bytes wait to be sent: somebody carries as much as the way takes."""
        with self._lock:
            return self._session.unsent >= SESSION_BACKLOG // 2

    @property
    def only_targets_left(self) -> bool:
        """Whether each connection, if there is any, waits for nothing but the end of its target's stream."""
        with self._lock:
            return all(self._dialer_mux.end_acked(stream) for stream in self._connections)

    def adopt(self, stream: int, target: Target) -> SharedConnection:
        """Before :meth:`start`: a connection that was asked for with the opening."""
        with self._lock:
            return self._add(SharedConnection(self, stream, target))

    def open(self, target: Target, deadline: Deadline | None = None) -> SharedConnection | None:
        """Ask for a connection; ``None`` if there is no room for one.

        Once it is answered, :meth:`SharedConnection.attach`, or its ``abort`` or ``abandon``, has to follow:
        the session does not end before.

        Blocking: until the driver has its turn, which a send may hold up; at most until the deadline.

        Raises:
            TimeoutError: The deadline passed.
        """
        opened: list[SharedConnection] = []
        asked, given_up = threading.Event(), threading.Event()

        def ask(now: float) -> None:
            if self._asks and self._dialer_mux.room and not given_up.is_set():
                stream = self._dialer_mux.open(target)
                opened.append(self._add(SharedConnection(self, stream, target)))
            asked.set()

        def give_up(now: float) -> None:
            for connection in opened:
                connection.abort(Code.DIALER_RESET)

        self._post(ask)
        try:
            (deadline or Deadline(None)).wait(asked)
            if not asked.is_set():
                raise TimeoutError("timed out")
        except BaseException:
            given_up.set()
            self._post(give_up)
            raise
        return opened[0] if opened else None

    def end(self) -> None:
        """End the session as soon as no connection is left. Idempotent."""

        def begin(now: float) -> None:
            self._ending = True

        self._post(begin)

    @property
    def _asks(self) -> bool:
        """Whether more may be asked for, as far as the session goes."""
        over = self._ending or self._stream_ended or self._ended.is_set()
        return self._session.alive and not over

    def attach(self, connection: SharedConnection, sock: socket.socket) -> None:
        """See :meth:`SharedConnection.attach`."""

        def tie(now: float) -> None:
            connection.attaching = False
            if connection.closed:
                reset(sock)
            else:
                self._tie(connection, sock, now)

        connection.attaching = True  # what its user has written by now is not known yet
        self._post(tie)

    def abandon(self, connection: SharedConnection) -> None:
        """See :meth:`SharedConnection.abandon`."""
        self._posts.append(lambda now: self._abort(connection, Code.DIALER_RESET))
        self._wakeup.wake()  # without a driver it is over already

    def begin_drain(self, connection: SharedConnection) -> None:
        """See :meth:`SharedConnection.begin_drain`."""

        def drain(now: float) -> None:
            connection.draining = True
            self._read(connection, now)

        connection.exiting = True  # from now on its end has to arrive, too
        self._post(drain)

    def ask(self, question: Callable[[float], _T]) -> _T:
        """Ask something of a connection, under the lock."""
        with self._lock:
            return question(self._clock())

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which what has not arrived is sent again."""
        with self._lock:
            return self._session.loss_noticed_after

    # -- what is known of a connection; these require the lock ------------------------------------

    def is_idle(self, connection: SharedConnection, now: float) -> bool:
        """See :attr:`SharedConnection.idle`."""
        if connection.closed:
            return not (connection.lost or connection.was_untaken)
        if connection.cut or connection.leaving:
            return False
        if connection.eof_queued or connection.exiting:
            return self._dialer_mux.end_acked(connection.stream)
        if self._arrived(connection) < connection.sent:
            return False
        if connection.attaching:
            return False
        sock = connection.socket
        return sock is None or not (sock.has_unread() or now < connection.read_at + QUIET)

    def acked(self, connection: SharedConnection) -> int:
        """See :attr:`SharedConnection.acked`."""
        return self._arrived(connection) + self._dialer_mux.end_acked(connection.stream)

    def progress(self, connection: SharedConnection) -> int:
        """See :attr:`SharedConnection.progress`."""
        return self._dialer_mux.progress(connection.stream) + self._arrived(connection)

    def undelivered(self, connection: SharedConnection) -> int:
        """See :attr:`SharedConnection.undelivered_bytes`."""
        if connection.closed:
            return connection.lost
        missing = connection.missing if connection.cut else connection.sent - self._arrived(connection)
        return missing + connection.in_kernel

    def is_untaken(self, connection: SharedConnection) -> bool:
        """See :attr:`SharedConnection.untaken`."""
        if connection.closed or connection.cut:
            return connection.was_untaken
        ended = connection.eof_queued or connection.exiting
        if not (ended and connection.sent) or connection.leaving:
            return False
        return not (self._dialer_mux.end_acked(connection.stream) or self.undelivered(connection))

    # -- the driver -----------------------------------------------------------------------------

    def _on_mux_event(self, event: mux_events.Event, now: float) -> None:
        match event:
            case mux_events.Draining():
                self._ending = True  # it is of no use to whoever dials next
            case mux_events.Opened(stream=stream):
                if connection := self._connections.get(stream):
                    connection.opened = True
                    connection.answered.set()
                    self._touch(connection, now)
            case mux_events.Refused(stream=stream, code=code):
                if connection := self._connections.get(stream):
                    connection.code = code
                    self._close(connection, resets=True)
            case mux_events.Declined(stream=stream):
                if connection := self._connections.get(stream):
                    connection.declined = True
                    self._close(connection, resets=True)

    def _on_session_event(self, event: Event, now: float) -> None:
        if isinstance(event, GoingAway):
            self._ending = True
        super()._on_session_event(event, now)

    def _on_handed_over(self, connection: SharedConnection, sock: LocalSocket, now: float) -> None:
        """What the user's kernel has counts as taken."""

    def _on_clock(self, now: float) -> None:
        if not self._connections and now >= self._empty_since + self._idle_seconds:
            self._ending = True

    def _due_at(self) -> float:
        waits = self._session.alive and not (self._connections or self._ending)
        return self._empty_since + self._idle_seconds if waits else math.inf

    def _end_if_done(self) -> None:
        if self._ending and not self._session.send_ended and self._mux.idle:
            self._session.send_eof()
        super()._end_if_done()
