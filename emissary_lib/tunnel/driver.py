"""Drives a session of one connection: one local TCP socket.

The dialer's socket is one end of a loopback pair whose other end the user holds (or a connection that
``forward`` accepted); the relay's is the connection to the target.
"""

from __future__ import annotations

import math
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Unpack

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_PAYLOAD
from emissary_lib.protocol.errors import ProtocolError
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.wire.frames import FrameType, peek
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.session_driver import Options, SessionDriver

#: Seconds for which nothing must come from a program that has not ended its stream before that counts as all
#: it has written. The kernel holds the rest of a big write back until we have read, and then needs a moment.
QUIET: Final = 0.05

#: Seconds between two looks at whether a socket that is not waited for has been reset: no event would tell.
LOOK_RESET: Final = 1.0

#: Seconds between two looks at whether the socket's peer has taken the last bytes: no event tells of that.
LOOK_TAKEN: Final = 0.05


class Tunnel(SessionDriver):
    """One session at work, with its socket.

    Args:
        session: As of :class:`SessionDriver`.
        link: As of :class:`SessionDriver`.
        sock: A connected TCP socket; the tunnel closes it, by a reset if the session is cut off.
        options: The others of :class:`SessionDriver`.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(self, session: Session, link: Link, sock: socket.socket, **options: Unpack[Options]) -> None:
        self._socket = LocalSocket(sock)
        self._interest = 0  # selector events the driver is waiting for on the socket
        self._read_at = -math.inf  # when the program's socket last gave bytes
        self._left_unread = 0
        self._user_wrote = False
        self._program_ended = False
        self._draining = False
        super().__init__(session, link, **options)

    def begin_drain(self) -> None:
        """The program exits: half-close behind what it has written, as the kernel would. From any thread."""
        self._draining = True
        self._wakeup.wake()

    @property
    def idle(self) -> bool:
        """Whether all that the user has written, the end of its stream included, has arrived.

        Never after a cut: the bridge has to be told, and the user, and then :meth:`run` returns.
        """
        with self._lock:
            if not self._session.alive:
                return self._finished and not self._aborted
            if self._session.buffered[0] or self._session.send_ended or self._draining:
                return False
            return not self._socket.has_unread() and self._clock() >= self._read_at + QUIET

    @property
    def acked(self) -> int:
        """How much of what the user has written has arrived, its end included."""
        with self._lock:
            return self._session.acked

    @property
    def progress(self) -> int:
        """Grows while what the user has written moves, here or at the peer."""
        with self._lock:
            return self._session.progress

    @property
    def loss_noticed_after(self) -> float:
        """Seconds after which what has not arrived is sent again: until then, nothing need move."""
        with self._lock:
            return self._session.loss_noticed_after

    @property
    def written(self) -> int:
        """How much the user has written, as far as it has come out of the user's socket."""
        with self._lock:
            return self._session.written + self._socket.recv_queue

    @property
    def undelivered_bytes(self) -> int:
        """Bytes that the user has written and that have not arrived, at least: the kernel may hold more.

        After a cut, those that are lost; but for TLS's last word, where nothing else is missing.
        """
        with self._lock:
            cut = self._aborted
            if self._finished and not cut:
                return 0
            unread = max(self._left_unread, self._socket.recv_queue)
            harmless = cut is not None and cut.whole and cut.code is Code.TARGET_RESET
            return unread if harmless else self._session.undelivered + unread

    @property
    def untaken(self) -> bool:
        """Whether the relay has all that the user has written, and the target may not.

        Not where the user has broken the connection itself: it did not wait for that.
        """
        with self._lock:
            if self._aborted and self._aborted.code is self.local_code:
                return False
            ended = self._program_ended or self._draining
            return self._user_wrote and ended and not (self._session.end_acked or self._session.undelivered)

    @property
    def program_ended(self) -> bool:
        """Whether the user had ended the stream, as far as is known: nobody may be left to meet an error."""
        return self._program_ended

    # -- the socket -----------------------------------------------------------------------------

    def _move(self, now: float) -> None:
        """Hand received bytes to the socket, as many as it takes."""
        while not self._socket.blocked and self._undelivered():
            try:
                sent = self._socket.send(self._session.peek())
            except OSError as exc:
                self._socket_failed(exc, now)
            else:
                self._session.consume(sent, now)
        if self._session.receive_ended:
            self._socket.end_write()
            if self._session.end_waits and not self._socket.gone and self._socket.taken:
                self._session.release_end(now)

    def _prepare(self) -> list[Callable[[], None]]:
        resets = self._must_reset()
        if resets:
            self._socket.gone = True
        before, self._interest = self._interest, self._wanted_interest()
        actions: list[Callable[[], None]] = []
        if self._interest != before:
            interest = self._interest
            actions.append(lambda: self._socket.register(self._selector, before, interest))
        if resets:
            actions.append(self._socket.reset)
        return actions

    def _on_ready(self, ready: Sequence[tuple[Any, int]], now: float) -> None:
        readable = False
        for _socket, events in ready:
            readable = bool(events & selectors.EVENT_READ)
            self._socket.blocked = self._socket.blocked and not events & selectors.EVENT_WRITE
        if readable or self._draining:
            self._read_socket(now)
        elif not self._interest and not self._socket.gone:
            self._look_for_reset(now)

    def _take_message(self, message: bytes, now: float) -> None:
        if self._session.role is Role.DIALER and _is_last_word(message):
            self._hear_out(now)
        super()._take_message(message, now)

    def _hear_out(self, now: float) -> None:
        """Read what the program has written, and ended, by now: the driver may not have got to it.

        Whether anything is missing depends on that (docs/protocol.md rule 6-22).
        """
        while not self._socket.gone and self._read_socket(now):
            pass

    def _read_socket(self, now: float) -> bool:
        """Read once, or all there is if the program exits; returns whether bytes came."""
        assert self._lock.locked()
        while room := min(self._session.send_room, MAX_PAYLOAD):
            try:
                data = self._socket.receive(room)
            except OSError as exc:
                self._socket_failed(exc, now)
                return False
            if data:
                self._read_at = now
                self._user_wrote = True
                self._session.send_data(data)
            elif data is not None or self._draining:
                self._program_ended = data is not None
                self._session.send_eof()
            if not data or not self._draining:
                return bool(data)
        return False

    def _look_for_reset(self, now: float) -> None:
        if error := self._socket.pending_error():
            self._socket_failed(error, now)

    def _socket_failed(self, exc: OSError, now: float) -> None:
        assert self._lock.locked()
        self._socket.gone = True
        unread = self._socket.recv_queue
        self._session.user_lost(self.local_code, f"{exc.strerror or exc}", now, unread=unread)

    def _wanted_interest(self) -> int:
        if self._socket.gone:
            return 0
        reads = self._session.send_room > 0
        writes = self._socket.blocked and self._undelivered()
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)

    def _interests_changed(self) -> bool:
        return self._wanted_interest() != self._interest

    def _socket_timeout(self, now: float) -> float:
        waits = not self._socket.gone and not self._undelivered()
        first = self._shutdown.next_timeout(now, waits=waits)
        if self._session.alive and not self._socket.gone and not self._wanted_interest():
            first = min(first, now + LOOK_RESET)
        if self._session.end_waits and self._session.receive_ended and not self._socket.gone:
            first = min(first, now + LOOK_TAKEN)
        return first

    def _undelivered(self) -> bool:
        return not self._socket.gone and len(self._session.peek()) > 0

    def _must_reset(self) -> bool:
        if self._aborted is None or self._socket.gone or not self._shutdown.bounded:
            return False
        taken = not self._undelivered() and self._socket.taken
        return self._shutdown.resets(self._clock(), taken=taken)

    def _close_sockets(self) -> None:
        if self._aborted:
            self._left_unread = self._socket.recv_queue
        if self._finished and not self._aborted and not self._undelivered():
            self._socket.close()
        elif self._socket.gone:
            self._socket.reset()
        else:
            left = self._shutdown.patience(self._clock())
            self._socket.reset_after_drain(Deadline(left, self._clock))


def _is_last_word(message: bytes) -> bool:
    """Whether a message tells of the session's end."""
    try:
        return peek(message)[0] in (FrameType.RESET, FrameType.ENDED)
    except ProtocolError:  # the gateway's own, or none at all: the session says so
        return False
