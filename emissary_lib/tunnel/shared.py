"""Drives a shared session: many connections, each with a local TCP socket (docs/protocol.md section 11).

A connection is a :class:`SharedConnection` from the moment on that it was asked for. The dialer's begins with
:meth:`SharedTunnel.open` and gets its socket by :meth:`SharedConnection.attach`; the relay's is told by
``on_request``, and answered by :meth:`SharedConnection.accept` or :meth:`SharedConnection.refuse`.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, Unpack

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import LINGER
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux import events as mux_events
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.limits import SEND_BUFFER, SESSION_BACKLOG
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.session.events import Aborted, Event
from emissary_lib.protocol.session.session import Outgoing, Session
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.driver import LOOK_RESET, LOOK_TAKEN, QUIET
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.loopback import UNTOLD, reset
from emissary_lib.tunnel.session_driver import Options, SessionDriver

_T = TypeVar("_T")

#: Bytes that are moved between a socket and the multiplexer at once, at most.
_PIECE: Final = 65_536

#: Seconds between two reports of how far a target has got, while the end of its stream waits for it (11.4-5).
_REPORT: Final = 0.5


class SharedConnection:
    """One connection of a shared session, and the local socket that it is tied to.

    Attributes:
        target: Where it leads.
        sent: Bytes that its user has written so far.
        received: Bytes that its user was given so far.
        code: Why it was cut off or refused; ``OK`` while it is open, and after a clean end.
        reason: The same in words, where somebody has said more than the code; else empty.
        whole: Whether a cut has lost nothing but the end of the peer's stream.
        lost: Bytes that the user has written and that are known not to have arrived, after a cut.
        declined: Whether the relay takes no more connections, and has done nothing for this one.
        opened: Whether the relay is connected to the target.
        was_untaken: Whether, at a cut, the relay had all that the user had written, and the target perhaps
            not.
        answered: Set when the relay has answered, or the connection is over.
        ended: Set when the connection is over and its socket closed.

    Thread safety: any. Nothing blocks for longer than a send.
    """

    def __init__(self, tunnel: SharedTunnel, stream: int, target: Target) -> None:
        self.target = target
        self.sent = 0
        self.received = 0
        self.code = Code.OK
        self.reason = ""
        self.whole = False
        self.lost = 0
        self.declined = False
        self.opened = False
        self.was_untaken = False
        self.answered = threading.Event()
        self.ended = threading.Event()
        self._own_lock = threading.Lock()
        self._on_over: Callable[[], None] = lambda: None
        # Guarded by the tunnel's lock, and for the tunnel alone:
        self._tunnel = tunnel
        self.stream = stream
        self.socket: LocalSocket | None = None
        self.interest = 0  # selector events that the driver is waiting for
        self.paused = False  # nothing is read from the user until half of the buffer is free
        self.cut = False  # by the peer, or with the session: the socket is to be reset
        self.leaving = False  # the user's connection broke: what it wrote is passed on (6-21)
        self.reset_at = math.inf
        self.report_at = -math.inf
        self.read_at = -math.inf  # when the user's socket last gave bytes
        self.user_wrote = False
        self.user_ended = False
        self.draining = False
        self.left_unread = 0
        self.mark: int | None = 0  # position in the session behind the user's last byte; None: not known yet
        self.acked_bytes = 0
        self.on_cut: Callable[[], None] = lambda: None

    # -- the dial -------------------------------------------------------------------------------

    def transferred(self) -> tuple[int, int]:
        """Bytes of the user's, sent and received so far."""
        return self.sent, self.received

    def attach(self, sock: socket.socket) -> None:
        """Tie the connection to a connected TCP socket, which is owned from here on.

        If the connection is over already, the socket is reset, once it has what came before.
        """
        self._tunnel.attach(self, sock)

    def accept(self, sock: socket.socket) -> bool:
        """At the relay: the target is connected to, by this socket, which is owned from here on.

        Returns:
            False if the dialer has given up meanwhile; the socket was closed.
        """
        return self._tunnel.accept(self, sock)

    def refuse(self, code: Code) -> None:
        """At the relay: the target was not reached."""
        self._tunnel.refuse(self, code)

    def decline(self) -> None:
        """At the relay: nothing can be done for it here, and nothing was."""
        self._tunnel.decline(self)

    def abort(self, code: Code) -> None:
        """Cut it off, or give a dial up; what is under way is dropped, and the socket reset."""
        self._tunnel.abort_connection(self, code)

    # -- its end --------------------------------------------------------------------------------

    def watch_cut(self, told: Callable[[], None]) -> None:
        """Have ``told`` called, once and without blocking, when it is cut off or over; now if it is."""
        self._tunnel.watch_cut(self, told)

    @property
    def over(self) -> bool:
        """Whether it is over and its socket closed."""
        return self.ended.is_set()

    def watch_over(self, told: Callable[[], None]) -> None:
        """Have ``told`` called, once and without a lock, when the connection is over; now if it is."""
        with self._own_lock:
            if not self.over:
                self._on_over = told
                return
        told()

    def finish(self) -> None:
        """For the tunnel: the connection is over. Without a lock."""
        with self._own_lock:
            self.answered.set()
            self.ended.set()
        self._on_over()

    # -- a :class:`emissary_lib.client.drain.Drainable` ------------------------------------------

    def begin_drain(self) -> None:
        """The program exits: half-close behind what it has written, as the kernel would."""
        self._tunnel.begin_drain(self)

    @property
    def idle(self) -> bool:
        """Whether all that the user has written, the end of its stream included, has arrived."""
        return self._tunnel.ask(lambda now: self._tunnel.is_idle(self, now))

    @property
    def acked(self) -> int:
        """How much of what the user has written has arrived, its end included."""
        return self._tunnel.ask(lambda now: self._tunnel.acked(self))

    @property
    def progress(self) -> int:
        """Grows while what the user has written moves, here or at the relay."""
        return self._tunnel.ask(lambda now: self._tunnel.progress(self))

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which what has not arrived is sent again: until then, nothing need move."""
        return self._tunnel.loss_noticed_after

    @property
    def written(self) -> int:
        """How much the user has written, as far as it has come out of the user's socket."""
        return self._tunnel.ask(lambda now: self.sent + self._in_kernel)

    @property
    def undelivered_bytes(self) -> int:
        """Bytes that the user has written and that have not arrived, at least; after a cut, those lost."""
        return self._tunnel.ask(lambda now: self._tunnel.undelivered(self))

    @property
    def untaken(self) -> bool:
        """Whether the relay has all that the user has written, and the target may not."""
        return self._tunnel.ask(lambda now: self._tunnel.is_untaken(self))

    @property
    def program_ended(self) -> bool:
        """Whether the user had ended the stream, as far as is known: nobody may be left to meet an error."""
        return self.user_ended

    @property
    def _in_kernel(self) -> int:
        return 0 if self.socket is None or self.over else self.socket.recv_queue


class SharedTunnel(SessionDriver):
    """One shared session at work.

    Args:
        session: As of :class:`SessionDriver`.
        link: As of :class:`SessionDriver`.
        mux: Its connections; only the tunnel touches it from now on, under its lock.
        on_request: At the relay: told of each request, without the lock.
        idle_seconds: At the dialer: how long to keep the session without a connection.
        drain_at: At the relay: from when on to take no more connections, on ``clock``.
        options: The others of :class:`SessionDriver`.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(
        self,
        session: Session,
        link: Link,
        mux: DialerMultiplexer | RelayMultiplexer,
        *,
        on_request: Callable[[SharedConnection], None] = lambda connection: None,
        idle_seconds: float = math.inf,
        drain_at: float = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(session, link, **options)
        self._mux = mux
        self._on_request = on_request
        self._idle_seconds = idle_seconds
        self._drain_at = drain_at
        self._connections: dict[int, SharedConnection] = {}
        self._idle_since = self._clock()
        self._ending = False
        self._stream_ended = False
        self._changed: set[SharedConnection] = set()  # those whose socket may be waited for otherwise now
        self._deliverable: set[SharedConnection] = set()  # those that may have bytes for a socket
        self._paused: set[SharedConnection] = set()
        self._unmarked: set[SharedConnection] = set()  # those whose last byte's position is not known yet
        self._looked_at: set[SharedConnection] = set()  # those whose kernel has to be looked at now and then
        self._settling: set[SharedConnection] = set()  # what the user had written before it was lost goes out
        self._closing: list[tuple[SharedConnection, bool]] = []  # whose socket to close, and if by a reset
        self._look_at = math.inf
        self._reset_look_at = math.inf

    # -- connections, from any thread -----------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    @property
    def room(self) -> int:
        """At the dialer: how many more may be asked for now."""
        assert isinstance(self._mux, DialerMultiplexer)
        with self._lock:
            return 0 if self._ending or not self._session.alive else self._mux.room

    @property
    def busy(self) -> bool:
        """Whether bytes wait to be sent: somebody carries as much as the way takes."""
        with self._lock:
            return self._session.unsent >= SESSION_BACKLOG // 2

    def adopt(self, stream: int, target: Target) -> SharedConnection:
        """At the dialer, before :meth:`start`: a connection that was asked for with the opening."""
        with self._lock:
            return self._add(stream, target)

    def open(self, target: Target) -> SharedConnection | None:
        """At the dialer: ask for a connection; ``None`` if there is no room for one."""
        assert isinstance(self._mux, DialerMultiplexer)
        mux = self._mux
        opened: list[SharedConnection] = []

        def ask(now: float) -> None:
            if not self._ending and self._session.alive and mux.room:
                opened.append(self._add(mux.open(target), target))

        self._apply(ask)
        return opened[0] if opened else None

    def end(self) -> None:
        """At the dialer: end the session as soon as no connection is left. Idempotent."""

        def begin(now: float) -> None:
            self._ending = True

        self._apply(begin)

    def attach(self, connection: SharedConnection, sock: socket.socket) -> None:
        """See :meth:`SharedConnection.attach`."""

        def tie(now: float) -> None:
            if connection.stream not in self._connections:
                reset(sock)
                return
            connection.socket = LocalSocket(sock)
            self._touch(connection)
            if connection.draining:
                self._read(connection, now)

        self._apply(tie)

    def accept(self, connection: SharedConnection, sock: socket.socket) -> bool:
        """See :meth:`SharedConnection.accept`."""
        assert isinstance(self._mux, RelayMultiplexer)
        mux = self._mux

        def tie(now: float) -> None:
            if connection.stream not in self._connections or connection.cut:
                sock.close()
                return
            connection.socket = LocalSocket(sock)
            connection.opened = True
            mux.accept(connection.stream)
            self._touch(connection)

        self._apply(tie)
        return connection.opened

    def refuse(self, connection: SharedConnection, code: Code) -> None:
        """See :meth:`SharedConnection.refuse`."""
        assert isinstance(self._mux, RelayMultiplexer)
        mux = self._mux

        def answer(now: float) -> None:
            if connection.stream in self._connections and not connection.cut:
                connection.code = code
                mux.refuse(connection.stream, code)
                self._close(connection, resets=True)

        self._apply(answer)

    def decline(self, connection: SharedConnection) -> None:
        """See :meth:`SharedConnection.decline`."""
        assert isinstance(self._mux, RelayMultiplexer)
        mux = self._mux

        def answer(now: float) -> None:
            if connection.stream in self._connections and not connection.cut:
                connection.declined = True
                mux.decline(connection.stream)
                self._close(connection, resets=True)

        self._apply(answer)

    def abort_connection(self, connection: SharedConnection, code: Code) -> None:
        """See :meth:`SharedConnection.abort`."""

        def cut(now: float) -> None:
            if connection.stream in self._connections:
                connection.code = connection.code or code
                connection.lost = connection.lost or self.undelivered(connection)
                self._mux.reset(connection.stream, code)
                self._close(connection, resets=True)

        self._apply(cut)

    def watch_cut(self, connection: SharedConnection, told: Callable[[], None]) -> None:
        """See :meth:`SharedConnection.watch_cut`."""
        with self._lock:
            connection.on_cut = told
            if connection.cut or connection.leaving or connection.stream not in self._connections:
                told()

    def begin_drain(self, connection: SharedConnection) -> None:
        """See :meth:`SharedConnection.begin_drain`."""

        def drain(now: float) -> None:
            connection.draining = True
            self._read(connection, now)

        self._apply(drain)

    def ask(self, question: Callable[[float], _T]) -> _T:
        """Ask something of a connection, under the lock."""
        with self._lock:
            return question(self._clock())

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which what has not arrived is sent again."""
        with self._lock:
            return self._session.loss_noticed_after

    # -- what is known of a connection; these require the lock -----------------------------------

    def is_idle(self, connection: SharedConnection, now: float) -> bool:
        """See :attr:`SharedConnection.idle`."""
        if connection.over:
            return not connection.lost
        if connection.cut or connection.leaving:
            return False
        if connection.user_ended or connection.draining:
            return self._end_acked(connection)
        if not self._has_arrived(connection):
            return False
        sock = connection.socket
        return sock is None or not (sock.has_unread() or now < connection.read_at + QUIET)

    def acked(self, connection: SharedConnection) -> int:
        """See :attr:`SharedConnection.acked`."""
        if self._has_arrived(connection):
            connection.acked_bytes = connection.sent
        return connection.acked_bytes + (connection.user_ended and self._end_acked(connection))

    def progress(self, connection: SharedConnection) -> int:
        """See :attr:`SharedConnection.progress`."""
        assert isinstance(self._mux, DialerMultiplexer)
        mark = connection.mark
        acked = self._session.acked if mark is None else min(self._session.acked, mark)
        return self._mux.progress(connection.stream) + acked

    def undelivered(self, connection: SharedConnection) -> int:
        """See :attr:`SharedConnection.undelivered_bytes`."""
        if connection.over or connection.cut:
            return connection.lost
        count = self._mux.unsent(connection.stream) + max(connection.left_unread, connection._in_kernel)
        if not self._has_arrived(connection):
            count = max(count, 1)
        return count

    def is_untaken(self, connection: SharedConnection) -> bool:
        """See :attr:`SharedConnection.untaken`."""
        if connection.over or connection.cut or connection.leaving:
            return False
        ended = connection.user_ended or connection.draining
        return connection.user_wrote and ended and not self._end_acked(connection)

    def _has_arrived(self, connection: SharedConnection) -> bool:
        """Whether all that the user's socket gave has reached the relay."""
        self._mark(connection)
        return connection.mark is not None and self._session.acked >= connection.mark

    def _end_acked(self, connection: SharedConnection) -> bool:
        assert isinstance(self._mux, DialerMultiplexer)
        return self._mux.end_acked(connection.stream)

    def _mark(self, connection: SharedConnection) -> None:
        """Note where the user's last byte is in the session, once it is there."""
        if connection.mark is None and not self._mux.unsent(connection.stream):
            connection.mark = self._session.written + self._mux.framed
            self._unmarked.discard(connection)

    # -- bytes ----------------------------------------------------------------------------------

    def _move(self, now: float) -> None:
        self._feed(now)
        self._take_events(now)
        self._deliver(now)

    def _feed(self, now: float) -> None:
        """The session's stream into the multiplexer, which takes all of it."""
        if not self._session.alive and not self._session.peek():
            return
        try:
            while data := bytes(self._session.peek()):
                self._mux.receive(data, now)
                self._session.consume(len(data), now)
            if self._session.receive_ended and not self._stream_ended:
                self._stream_ended = True
                self._mux.receive_eof()
        except RemoteProtocolError as exc:
            self._session.abort(exc.code, str(exc), now)

    def _take_events(self, now: float) -> None:
        while (event := self._mux.next_event()) is not None:
            self._take_event(event, now)

    def _take_event(self, event: mux_events.Event, now: float) -> None:
        if isinstance(event, mux_events.Draining):
            return
        if isinstance(event, mux_events.Requested):
            requested = self._add(event.stream, event.target)
            self._calls.append(lambda: self._on_request(requested))
            return
        connection = self._connections.get(event.stream)
        if connection is None:
            return
        match event:
            case mux_events.Opened():
                connection.opened = True
                connection.answered.set()
                self._touch(connection)
            case mux_events.Refused(code=code):
                connection.code = code
                self._close(connection, resets=True)
            case mux_events.Declined():
                connection.declined = True
                self._close(connection, resets=True)
            case mux_events.Readable():
                self._deliverable.add(connection)
            case mux_events.Left(lost=lost):
                self._settle(connection, lost)
            case mux_events.CutOff(code=code, whole=whole, lost=lost):
                self._cut(connection, code, now, whole=whole, lost=lost)
            case mux_events.Closed():
                self._close(connection, resets=False)

    def _deliver(self, now: float) -> None:
        """Hand received bytes to the sockets, as many as they take."""
        for connection in list(self._deliverable):
            sock = connection.socket
            if sock is None:
                if connection.cut and not connection.opened:
                    self._close(connection, resets=True)
                continue
            self._deliver_to(connection, sock, now)
            if connection.stream not in self._connections or not self._mux.peek(connection.stream, 1):
                self._deliverable.discard(connection)

    def _deliver_to(self, connection: SharedConnection, sock: LocalSocket, now: float) -> None:
        while not (sock.blocked or sock.gone) and (data := self._mux.peek(connection.stream, _PIECE)):
            try:
                sent = sock.send(memoryview(data))
            except OSError as exc:
                self._socket_failed(connection, exc, now)
                return
            connection.received += sent
            self._mux.consume(connection.stream, sent)
        if sock.blocked:
            self._changed.add(connection)
        elif self._mux.receive_ended(connection.stream):
            sock.end_write()
            self._look_taken(connection, sock, now)
        elif connection.cut:
            self._look_taken(connection, sock, now)

    def _look_taken(self, connection: SharedConnection, sock: LocalSocket, now: float) -> None:
        """All was handed over: see whether the user's kernel has it, and what follows from that."""
        if connection.stream not in self._connections or sock.gone:
            return
        taken = sock.taken
        if connection.cut:
            if (taken and sock.tells) or now >= connection.reset_at:
                self._close(connection, resets=True)
            else:
                self._looked_at.add(connection)
            return
        if not isinstance(self._mux, RelayMultiplexer) or not self._mux.end_waits(connection.stream):
            return
        if taken:
            self._looked_at.discard(connection)
            self._mux.release_end(connection.stream)
            self._take_events(now)
        else:
            self._looked_at.add(connection)
            if now >= connection.report_at + _REPORT:
                connection.report_at = now
                self._mux.report(connection.stream)

    def _read(self, connection: SharedConnection, now: float) -> None:
        sock = connection.socket
        if sock is None or not connection.opened or connection.user_ended:
            return
        while not sock.gone and (room := min(self._mux.send_room(connection.stream), _PIECE)):
            try:
                data = sock.receive(room)
            except OSError as exc:
                self._socket_failed(connection, exc, now)
                return
            if data:
                self._take_from_user(connection, data, now)
            elif data is not None or connection.draining:
                connection.user_ended = data is not None
                self._mux.send_eof(connection.stream)
                self._unmark(connection)
            if not data or not connection.draining:
                break
        if not (connection.user_ended or self._mux.send_room(connection.stream)):
            connection.paused = True
            self._paused.add(connection)
        self._changed.add(connection)

    def _take_from_user(self, connection: SharedConnection, data: bytes, now: float) -> None:
        connection.read_at = now
        connection.user_wrote = True
        connection.sent += len(data)
        self._mux.send_data(connection.stream, data)
        self._unmark(connection)

    def _unmark(self, connection: SharedConnection) -> None:
        connection.mark = None
        self._unmarked.add(connection)

    def _messages(self, now: float) -> list[Outgoing]:
        messages: list[Outgoing] = []
        while True:
            moved = self._pump(now)
            messages += self._session.messages_to_send(now)
            if not moved:
                return messages

    def _pump(self, now: float) -> bool:
        """What the multiplexer has to send into the session, as much as may wait there; whether any was."""
        if not self._session.alive:
            return False
        room = min(self._session.send_room, SESSION_BACKLOG - self._session.unsent)
        data = self._mux.data_to_send(room) if room > 0 else b""
        if data:
            self._session.send_data(data)
            self._take_events(now)
            for connection in list(self._unmarked):
                self._mark(connection)
        for connection in list(self._paused):
            if self._mux.send_room(connection.stream) >= SEND_BUFFER // 2:
                connection.paused = False
                self._paused.discard(connection)
                self._changed.add(connection)
                if connection.draining:
                    self._read(connection, now)
        self._end_if_done()
        for connection in [each for each in self._settling if self._has_arrived(each)]:
            self._close(connection, resets=True)
        return bool(data)

    def _end_if_done(self) -> None:
        """Our stream ends: the dialer's when it wants no more, the relay's when the dialer's has."""
        if not self._session.send_ended and (self._ending or self._stream_ended) and self._mux.idle:
            self._session.send_eof()

    # -- ends -----------------------------------------------------------------------------------

    def _on_session_event(self, event: Event, now: float) -> None:
        if not isinstance(event, Aborted):
            return
        self._mux.cut_off_all(event.code)
        self._take_events(now)
        for connection in list(self._connections.values()):
            connection.reason = event.reason
            if connection.leaving:
                # Nobody knows how much of it was on the way, but not all of it has arrived.
                connection.lost = connection.lost or max(1, self._mux.unsent(connection.stream))
                self._close(connection, resets=True)
            elif not connection.cut:  # the multiplexer has failed, and forgotten them
                lost = max(0, connection.sent - connection.acked_bytes)
                self._cut(connection, event.code, now, whole=False, lost=lost)
        self._deliver(now)

    def _cut(self, connection: SharedConnection, code: Code, now: float, *, whole: bool, lost: int) -> None:
        if connection.leaving:
            connection.lost += lost
            self._close(connection, resets=True)
            return
        connection.cut = True
        connection.code = connection.code or code
        connection.whole = whole
        connection.lost = lost + connection._in_kernel
        ended = connection.user_ended or connection.draining
        connection.was_untaken = connection.user_wrote and ended and not (whole or connection.lost)
        self._tell_cut(connection)
        sock = connection.socket
        patience = math.inf
        if self._shutdown.bounded:
            patience = 0.0 if code is Code.DIALER_GONE else LINGER
        if sock is not None and not sock.tells:
            patience = min(patience, UNTOLD)
        connection.reset_at = now + patience
        if not connection.opened or (sock is not None and sock.gone):
            self._close(connection, resets=True)
            return
        connection.answered.set()
        self._deliverable.add(connection)
        self._changed.add(connection)

    def _socket_failed(self, connection: SharedConnection, exc: OSError, now: float) -> None:
        sock = connection.socket
        assert sock is not None
        sock.gone = True
        connection.left_unread = sock.recv_queue
        self._changed.add(connection)
        if connection.cut:
            self._close(connection, resets=True)
            return
        connection.leaving = True
        connection.code = self.local_code
        connection.reason = f"{exc.strerror or exc}"
        self._tell_cut(connection)
        self._mux.user_lost(connection.stream, self.local_code, now, unread=connection.left_unread)
        self._take_events(now)

    def _settle(self, connection: SharedConnection, lost: int) -> None:
        """What a user that is lost had written went out, or never will: wait until it has arrived."""
        connection.lost = lost + connection.left_unread
        if connection.lost:
            self._close(connection, resets=True)
            return
        self._mark(connection)
        self._settling.add(connection)

    def _close(self, connection: SharedConnection, *, resets: bool) -> None:
        """The connection is over but for its socket, which the driver closes."""
        if self._connections.pop(connection.stream, None) is None:
            return
        if not self._connections:
            self._idle_since = self._clock()
        if connection.cut:
            self._mux.reset(connection.stream, connection.code)  # which forgets what was not taken
        for group in self._groups:
            group.discard(connection)
        self._tell_cut(connection)
        self._closing.append((connection, resets))

    def _tell_cut(self, connection: SharedConnection) -> None:
        told, connection.on_cut = connection.on_cut, lambda: None
        told()

    @property
    def _groups(self) -> tuple[set[SharedConnection], ...]:
        return (
            self._changed,
            self._deliverable,
            self._paused,
            self._unmarked,
            self._looked_at,
            self._settling,
        )

    def _add(self, stream: int, target: Target) -> SharedConnection:
        assert self._lock.locked()
        connection = self._connections[stream] = SharedConnection(self, stream, target)
        return connection

    def _touch(self, connection: SharedConnection) -> None:
        """Its socket can be used from now on."""
        self._changed.add(connection)
        self._deliverable.add(connection)

    # -- the driver -----------------------------------------------------------------------------

    def _prepare(self) -> list[Callable[[], None]]:
        actions: list[Callable[[], None]] = []
        for connection in self._changed:
            sock, before, wanted = connection.socket, connection.interest, self._wanted(connection)
            if sock is not None and wanted != before:
                connection.interest = wanted
                actions.append(_registration(sock, self._selector, before, wanted))
        self._changed.clear()
        for connection, resets in self._closing:
            actions.append(self._closer(connection, resets))
        self._closing.clear()
        return actions

    def _closer(self, connection: SharedConnection, resets: bool) -> Callable[[], None]:
        before, connection.interest = connection.interest, 0

        def close() -> None:
            if (sock := connection.socket) is not None:
                if before:
                    sock.register(self._selector, before, 0)
                if resets:
                    sock.reset()
                else:
                    sock.close()
            connection.finish()

        return close

    def _wanted(self, connection: SharedConnection) -> int:
        sock = connection.socket
        if sock is None or sock.gone or connection.stream not in self._connections:
            return 0
        reads = (
            connection.opened
            and not (connection.cut or connection.user_ended or connection.paused)
            and self._mux.send_room(connection.stream) > 0
        )
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if sock.blocked else 0)

    def _interests_changed(self) -> bool:
        if self._closing:
            return True
        return any(self._wanted(each) != each.interest for each in self._changed)

    def _on_ready(self, ready: Sequence[tuple[Any, int]], now: float) -> None:
        by_socket = {each.socket: each for each in self._connections.values()} if ready else {}
        for sock, events in ready:
            connection = by_socket.get(sock)
            if connection is None:
                continue
            self._changed.add(connection)
            if events & selectors.EVENT_WRITE:
                sock.blocked = False
                self._deliverable.add(connection)
            if events & selectors.EVENT_READ:
                self._read(connection, now)
        if now >= self._look_at:
            self._look_at = math.inf
            for connection in list(self._looked_at):
                if connection.socket is not None:
                    self._look_taken(connection, connection.socket, now)
        if now >= self._reset_look_at:
            self._reset_look_at = math.inf
            self._look_for_resets(now)
        self._mux.handle_timeout(now, away=not self._session.may_send)
        self._take_events(now)
        if isinstance(self._mux, RelayMultiplexer) and now >= self._drain_at:
            self._mux.drain()
        if not self._connections and now >= self._idle_since + self._idle_seconds:
            self._ending = True

    def _look_for_resets(self, now: float) -> None:
        """No event tells that a socket which is not waited for was reset."""
        for connection in list(self._connections.values()):
            sock = connection.socket
            if sock is None or sock.gone or connection.interest or not connection.opened:
                continue
            if error := sock.pending_error():
                self._socket_failed(connection, error, now)

    def _undelivered(self) -> bool:
        return bool(self._closing) or bool(self._connections)

    def _socket_timeout(self, now: float) -> float:
        times = [self._shutdown.next_timeout(now, waits=False)]
        if self._looked_at:
            self._look_at = min(self._look_at, now + LOOK_TAKEN)
            times.append(self._look_at)
        if any(not each.interest for each in self._connections.values()):
            self._reset_look_at = min(self._reset_look_at, now + LOOK_RESET)
            times.append(self._reset_look_at)
        if (at := self._mux.next_timeout()) is not None:
            times.append(at)
        if self._session.alive:
            if isinstance(self._mux, RelayMultiplexer) and now < self._drain_at:
                times.append(self._drain_at)
            if not self._connections and not self._ending:
                times.append(self._idle_since + self._idle_seconds)
        return min(times)

    def _close_sockets(self) -> None:
        with self._lock:
            for connection in list(self._connections.values()):
                connection.code = connection.code or self._end_code
                self._close(connection, resets=True)
            left = self._shutdown.patience(self._clock())
            closing, self._closing = self._closing, []
        deadline = Deadline(left, self._clock)
        for connection, resets in closing:
            if (sock := connection.socket) is not None:
                with contextlib.suppress(OSError):
                    if resets and not sock.gone:
                        sock.reset_after_drain(deadline)
                    elif resets:
                        sock.reset()
                    else:
                        sock.close()
            connection.finish()

    @property
    def _end_code(self) -> Code:
        return self._aborted.code if self._aborted else self._session.role.gone


def _registration(
    sock: LocalSocket, selector: selectors.BaseSelector, before: int, wanted: int
) -> Callable[[], None]:
    return lambda: sock.register(selector, before, wanted)
