"""Drives a shared session: many connections, each with a local TCP socket (docs/protocol.md section 11).

Dialer's and relay's side are subclasses: :class:`~emissary_lib.tunnel.shared.SharedTunnel` asks for
connections, :class:`~emissary_lib.tunnel.shared_relay.RelayTunnel` answers.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, Unpack

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import LINGER
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux import events as mux_events
from emissary_lib.protocol.mux.limits import SESSION_BACKLOG
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.session.events import Aborted, Event, Finished
from emissary_lib.protocol.session.session import Outgoing, Session
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.carried import CarriedConnection
from emissary_lib.tunnel.driver import LOOK_RESET, LOOK_TAKEN
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.loopback import UNTOLD
from emissary_lib.tunnel.session_driver import Options, SessionDriver
from emissary_lib.tunnel.teller import Teller

C = TypeVar("C", bound=CarriedConnection)

#: Bytes that are moved between a socket and the multiplexer at once, at most.
_PIECE: Final = 65_536


class _Cut(NamedTuple):
    """Why the session was cut off."""

    code: Code
    reason: str


class SharedDriver(SessionDriver, Generic[C]):
    """One shared session at work; what both sides have in common.

    Args:
        session: As of :class:`SessionDriver`.
        link: As of :class:`SessionDriver`.
        mux: Its connections; only the driver touches it from now on, under its lock.
        options: The others of :class:`SessionDriver`.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(self, session: Session, link: Link, mux: Multiplexer, **options: Unpack[Options]) -> None:
        super().__init__(session, link, **options)
        self._mux = mux
        self._teller = Teller()
        self._connections: dict[int, C] = {}
        self._by_socket: dict[LocalSocket, C] = {}
        self._empty_since = self._clock()  # since when there is no connection, while there is none
        self._stream_ended = False  # the peer's
        self._cut: _Cut | None = None
        self._changed: set[C] = set()  # those whose socket may be waited for otherwise now
        self._deliverable: set[C] = set()  # those that may have bytes for a socket
        self._paused: set[C] = set()
        self._unmarked: set[C] = set()  # those with bytes that are not in the session's stream yet
        self._settling: set[C] = set()  # their users are lost, and what they wrote is on its way
        self._notices: list[C] = []  # those that were cut off, and whose watcher was not told yet
        self._closing: list[tuple[C, bool]] = []  # whose socket to close, and if by a reset
        self._posts: deque[Callable[[float], None]] = deque()
        self._returned = False  # the driver has, or is about to: nobody else looks at what is posted

    @property
    def connections(self) -> int:
        """How many there are now. Any thread."""
        return len(self._connections)

    def abort_connection(self, connection: C, code: Code) -> None:
        """Cut a connection off, or give a dial up; what is under way is dropped, and its socket reset.

        From any thread; does not block.
        """
        self._post(lambda now: self._abort(connection, code))

    def _abort(self, connection: C, code: Code) -> None:
        """See :meth:`abort_connection`. Requires the lock."""
        if connection.closed:
            return
        if not connection.cut:
            connection.code = connection.code or code
            connection.missing = connection.sent - connection.marks.arrived(self._session.acked)
            connection.cut = True
        self._close(connection, resets=True)

    def _post(self, change: Callable[[float], None]) -> None:
        """Have the driver, or the reader, change something. From any thread; does not block.

        A user's thread does not do so itself: a signal's handler may raise in it at any moment, and what was
        begun then would be left half done for all connections.
        """
        self._posts.append(change)
        if self._returned:
            with self._lock:
                self._make_posted(self._clock())
        else:
            self._wakeup.wake()

    def _make_posted(self, now: float) -> None:
        assert self._lock.locked()
        while self._posts:
            self._posts.popleft()(now)

    # -- of either side -------------------------------------------------------------------------

    @abstractmethod
    def _on_mux_event(self, event: mux_events.Event, now: float) -> None:
        """Something that only dialer or relay is told has happened. Requires the lock."""

    @abstractmethod
    def _on_handed_over(self, connection: C, sock: LocalSocket, now: float) -> None:
        """The peer's stream has ended, and the socket was given all of it. Requires the lock."""

    @abstractmethod
    def _on_clock(self, now: float) -> None:
        """Do what the clock makes due; nothing if nothing is. Requires the lock."""

    @abstractmethod
    def _due_at(self) -> float:
        """When :meth:`_on_clock` has something to do; infinity for never. Requires the lock."""

    # -- what is known of a connection; this requires the lock ------------------------------------

    def _arrived(self, connection: C) -> int:
        """How many of the user's bytes the peer has."""
        return connection.marks.arrived(self._session.acked)

    def _mark(self, connection: C) -> None:
        """Note where the user's bytes are in the session's stream, as far as they are there."""
        unsent = self._mux.unsent(connection.stream)
        connection.marks.note(connection.sent - unsent, self._session.written + self._mux.framed)
        if not unsent:
            self._unmarked.discard(connection)

    # -- bytes ----------------------------------------------------------------------------------

    def _move(self, now: float) -> None:
        self._make_posted(now)
        self._feed(now)
        self._mux.handle_timeout(now, away=not self._session.may_send)
        self._on_clock(now)
        self._take_events(now)
        self._deliver(now)
        self._take_events(now)  # of connections whose users have taken all

    def _feed(self, now: float) -> None:
        """The session's stream into the multiplexer, which takes all of it."""
        if self._cut:
            return
        try:
            while data := bytes(self._session.peek()):
                self._mux.receive(data, now)
                self._session.consume(len(data), now)
            if self._session.alive and self._session.receive_ended and not self._stream_ended:
                self._stream_ended = True
                self._mux.receive_eof()
        except RemoteProtocolError as exc:
            self._cut = _Cut(exc.code, str(exc))  # which the multiplexer has told of each connection
            self._session.abort(exc.code, str(exc), now)

    def _take_events(self, now: float) -> None:
        while (event := self._mux.next_event()) is not None:
            self._take_event(event, now)

    def _take_event(self, event: mux_events.Event, now: float) -> None:
        match event:
            case mux_events.Readable(stream=stream):
                if connection := self._connections.get(stream):
                    self._deliverable.add(connection)
            case mux_events.Left(stream=stream, lost=lost):
                if connection := self._connections.get(stream):
                    self._settle(connection, lost)
            case mux_events.CutOff(stream=stream, code=code):
                if connection := self._connections.get(stream):
                    connection.code = connection.code or code
                    connection.whole = event.whole
                    self._cut_off(connection, event.lost, now)
            case mux_events.Closed(stream=stream):
                if connection := self._connections.get(stream):
                    self._close(connection, resets=False)
            case mux_events.Writable():
                pass  # never more is given to the multiplexer than it has room for
            case _:
                self._on_mux_event(event, now)

    def _deliver(self, now: float) -> None:
        """Hand received bytes to the sockets, as many as they take."""
        for connection in list(self._deliverable):
            sock = connection.socket
            if sock is None or connection.closed:
                continue
            self._deliver_to(connection, sock, now)
            if not self._mux.peek(connection.stream, 1):
                self._deliverable.discard(connection)

    def _deliver_to(self, connection: C, sock: LocalSocket, now: float) -> None:
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
        elif connection.cut:
            self._look_taken(connection, sock, now)
        elif self._mux.receive_ended(connection.stream):
            sock.end_write()
            self._on_handed_over(connection, sock, now)

    def _look_taken(self, connection: C, sock: LocalSocket, now: float) -> None:
        """A socket that is to be reset was given all: reset it once the user's kernel has it."""
        if not sock.tells:
            connection.reset_at = min(connection.reset_at, now + UNTOLD)
        elif sock.taken:
            self._close(connection, resets=True)
        else:
            connection.look_at = now + LOOK_TAKEN

    def _read(self, connection: C, now: float) -> None:
        """Take what the user has written, as much as there is room for."""
        sock = connection.socket
        if sock is None or sock.gone or not connection.reads:
            return
        self._changed.add(connection)
        while room := min(self._mux.send_room(connection.stream), _PIECE):
            try:
                data = sock.receive(room)
            except OSError as exc:
                self._socket_failed(connection, exc, now)
                return
            if data:
                connection.read_at = now
                connection.sent += len(data)
                self._mux.send_data(connection.stream, data)
                self._unmarked.add(connection)
            elif data is not None or connection.draining:
                connection.user_ended = data is not None
                connection.eof_queued = True
                self._mux.send_eof(connection.stream)
                return
            if not data or not connection.draining:
                break
        if not self._mux.send_room(connection.stream):
            connection.paused = True
            self._paused.add(connection)

    def _messages(self, now: float) -> list[Outgoing]:
        messages: list[Outgoing] = []
        while True:
            while self._pump(now):
                pass  # all that there is room for, so that messages are full
            sent = self._session.messages_to_send(now)
            messages += sent
            if not sent:
                break
        for connection in [each for each in self._settling if self._arrived(each) >= each.sent]:
            self._close(connection, resets=True)
        return messages

    def _pump(self, now: float) -> bool:
        """What the multiplexer has to send into the session, as much as may wait there; whether any was."""
        if not self._session.alive:
            return False
        room = min(self._session.send_room, SESSION_BACKLOG - self._session.unsent)
        data = self._mux.data_to_send(room) if room > 0 else b""
        if data:
            self._session.send_data(data)
            for connection in list(self._unmarked):
                self._mark(connection)
            self._take_events(now)
            self._deliver(now)
        for connection in list(self._paused):
            if self._mux.send_room(connection.stream) >= self._mux.unsent(connection.stream):
                self._resume(connection, now)
        self._end_if_done()
        return bool(data)

    def _resume(self, connection: C, now: float) -> None:
        """Half of its buffer is free again, or it takes nothing any more; what waits is read at once."""
        connection.paused = False
        self._paused.discard(connection)
        self._changed.add(connection)
        self._read(connection, now)

    def _end_if_done(self) -> None:
        """End our stream, if that is to be: the relay's ends behind the dialer's."""
        if self._stream_ended and not self._session.send_ended and self._mux.idle:
            self._session.send_eof()

    # -- ends -----------------------------------------------------------------------------------

    def _on_session_event(self, event: Event, now: float) -> None:
        if isinstance(event, Aborted):
            self._cut_all(event.code, event.reason, now)
        elif isinstance(event, Finished) and event.code is Code.OK:
            # Our stream has ended, so that nothing else is open; and all of it has arrived.
            for connection in list(self._settling):
                self._close(connection, resets=True)

    def _cut_all(self, code: Code, reason: str, now: float) -> None:
        """The session was cut off, and its connections with it."""
        self._cut = self._cut or _Cut(code, reason or MEANINGS[code])
        self._mux.cut_off_all(code)
        self._take_events(now)
        for connection in list(self._settling):
            self._leave(connection, connection.sent - self._arrived(connection))
        for connection in self._connections.values():  # those that were cut off before, too
            connection.reset_at = min(connection.reset_at, self._shutdown.drain_deadline)
        self._deliver(now)

    def _cut_off(self, connection: C, lost: int, now: float) -> None:
        """A connection was cut off, by the peer or with the session; ``lost`` was not taken, as is known."""
        connection.cut = True
        connection.missing = lost
        if self._cut and self._cut.code is connection.code:
            # Nobody has said how much its user took. What has arrived is not known to be lost.
            connection.reason = self._cut.reason
            connection.missing = min(lost, connection.sent - self._arrived(connection))
        connection.lost = connection.missing + connection.in_kernel
        ended = connection.eof_queued
        connection.was_untaken = ended and lost > 0 and not (connection.lost or connection.whole)
        if self._shutdown.bounded:
            connection.reset_at = now + LINGER
        if connection.opened and not (connection.socket and connection.socket.gone):
            self._notices.append(connection)
            self._deliverable.add(connection)
            self._changed.add(connection)
            self._unmarked.discard(connection)
        else:
            self._close(connection, resets=True)

    def _socket_failed(self, connection: C, exc: OSError, now: float) -> None:
        """The user's connection broke."""
        sock = connection.socket
        assert sock is not None
        sock.gone = True
        connection.left_unread = sock.recv_queue
        if connection.cut:
            self._close(connection, resets=True)
            return
        connection.leaving = True
        connection.code = self.local_code
        connection.reason = f"{exc.strerror or exc}"
        self._notices.append(connection)
        self._changed.add(connection)
        self._mux.user_lost(connection.stream, self.local_code, now, unread=connection.left_unread)
        self._take_events(now)

    def _settle(self, connection: C, lost: int) -> None:
        """All that a lost user had written went out, but ``lost`` of it: wait until that has arrived."""
        if self._cut:
            self._leave(connection, connection.sent - self._arrived(connection))
        elif lost:
            self._leave(connection, lost)
        else:
            self._mark(connection)
            self._settling.add(connection)

    def _leave(self, connection: C, missing: int) -> None:
        """A connection whose user is lost is over."""
        connection.missing = missing
        self._close(connection, resets=True)

    def _close(self, connection: C, *, resets: bool) -> None:
        """The connection is over but for its socket, which the driver closes."""
        if connection.cut:
            self._mux.reset(connection.stream, connection.code)  # which forgets what was not taken
        self._forget(connection, resets=resets)

    def _forget(self, connection: C, *, resets: bool) -> None:
        if connection.closed:
            return
        if connection.cut or connection.leaving:
            connection.left_unread = connection.in_kernel
            connection.lost = connection.missing + connection.left_unread
        connection.closed = True
        del self._connections[connection.stream]
        if connection.socket is not None:
            del self._by_socket[connection.socket]
        if not self._connections:
            self._empty_since = self._clock()
        for group in (self._changed, self._deliverable, self._paused, self._unmarked, self._settling):
            group.discard(connection)
        self._closing.append((connection, resets))

    def _add(self, connection: C) -> C:
        assert self._lock.locked()
        self._connections[connection.stream] = connection
        return connection

    def _tie(self, connection: C, sock: socket.socket, now: float) -> None:
        """Its socket is there. Requires the lock."""
        connection.socket = LocalSocket(sock)
        self._by_socket[connection.socket] = connection
        self._touch(connection, now)

    def _touch(self, connection: C, now: float) -> None:
        """Its socket, if it is there, may be used from now on. Requires the lock."""
        self._changed.add(connection)
        self._deliverable.add(connection)
        if connection.draining:
            self._read(connection, now)

    # -- the driver -----------------------------------------------------------------------------

    def _prepare(self) -> list[Callable[[], None]]:
        actions: list[Callable[[], None]] = [each.cut_notice.tell for each in self._notices]
        self._notices.clear()
        for connection in self._changed:
            sock, before, wanted = connection.socket, connection.interest, self._wanted(connection)
            if sock is not None and wanted != before:
                connection.interest = wanted
                actions.append(_registration(sock, self._selector, before, wanted))
            self._look_for_reset_later(connection)
        self._changed.clear()
        for connection, resets in self._closing:
            actions.append(self._closer(connection, resets))
        self._closing.clear()
        return actions

    def _closer(self, connection: C, resets: bool) -> Callable[[], None]:
        before, connection.interest = connection.interest, 0

        def close() -> None:
            connection.cut_notice.tell()
            if (sock := connection.socket) is not None:
                if before:
                    sock.register(self._selector, before, 0)
                if resets:
                    sock.reset()
                else:
                    sock.close()
            self._finish(connection)

        return close

    @staticmethod
    def _wanted(connection: C) -> int:
        sock = connection.socket
        if sock is None or sock.gone or connection.closed:
            return 0
        reads = connection.reads and not connection.paused
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if sock.blocked else 0)

    def _interests_changed(self) -> bool:
        changed = any(self._wanted(each) != each.interest for each in self._changed)
        return changed or bool(self._closing or self._notices)

    def _on_ready(self, ready: Sequence[tuple[Any, int]], now: float) -> None:
        for sock, events in ready:
            connection = self._by_socket.get(sock)
            if connection is None:
                continue  # it was closed meanwhile
            self._changed.add(connection)
            if events & selectors.EVENT_WRITE:
                sock.blocked = False
                self._deliverable.add(connection)
            if events & selectors.EVENT_READ:
                self._read(connection, now)
        for connection in [each for each in self._connections.values() if now >= each.due_at]:
            self._look(connection, now)

    def _look(self, connection: C, now: float) -> None:
        """Something is due at its socket that no event tells of."""
        connection.look_at = math.inf
        sock = connection.socket
        if now >= connection.reset_at:
            self._close(connection, resets=True)
            return
        if sock is None or sock.gone:
            return
        if not connection.interest and (error := sock.pending_error()):
            self._socket_failed(connection, error, now)
            return
        self._deliverable.add(connection)  # which looks at what was taken, too
        self._look_for_reset_later(connection)

    def _look_for_reset_later(self, connection: C) -> None:
        """No event tells that a socket which is not waited for was reset."""
        sock = connection.socket
        if sock is not None and not (sock.gone or connection.interest) and connection.opened:
            connection.look_at = min(connection.look_at, self._clock() + LOOK_RESET)

    def _undelivered(self) -> bool:
        return bool(self._closing) or bool(self._connections)

    def _socket_timeout(self, now: float) -> float:
        times = [self._shutdown.next_timeout(now, waits=False), self._due_at()]
        times += [each.due_at for each in self._connections.values()]
        if (at := self._mux.next_timeout()) is not None:
            times.append(at)
        return min(times)

    def _close_sockets(self) -> None:
        self._returned = True  # before what was posted is made: what comes later, its own thread makes
        with self._lock:
            self._make_posted(self._clock())
            code = self._aborted.code if self._aborted else self._session.role.gone
            for connection in list(self._connections.values()):
                if not (connection.cut or connection.leaving):  # the driver has failed
                    connection.cut = True
                    connection.code, connection.reason = code, MEANINGS[code]
                    connection.missing = connection.sent - self._arrived(connection)
                self._forget(connection, resets=True)
            closing, self._closing = self._closing, []
            left = self._shutdown.patience(self._clock())
        deadline = Deadline(LINGER if left is None else left, self._clock)
        for connection, resets in closing:
            connection.cut_notice.tell()
            if (sock := connection.socket) is not None:
                with contextlib.suppress(OSError):
                    if resets and not sock.gone:
                        sock.reset_after_drain(deadline)
                    elif resets:
                        sock.reset()
                    else:
                        sock.close()
            self._finish(connection)
        self._teller.close()

    def _finish(self, connection: C) -> None:
        """It is over, and its socket closed. Without the lock."""
        connection.finish()
        self.tell(connection.over_notice.tell)

    def tell(self, call: Callable[[], None]) -> None:
        """Have something told to the program, which may log, without the session waiting for it."""
        self._teller.tell(call)


def _registration(
    sock: LocalSocket, selector: selectors.BaseSelector, before: int, wanted: int
) -> Callable[[], None]:
    return lambda: sock.register(selector, before, wanted)
