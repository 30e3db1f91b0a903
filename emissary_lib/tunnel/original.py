"""Drives a connection over the original's transport: a WebSocket on one side, a local socket on the other.

One thread waits for both, and for the clock. Whoever asks how far it has come, from another thread, takes the
lock; nothing blocks while that is held. Source: docs/protocol.md section 12.
"""

from __future__ import annotations

import math
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.exceptions import local_resource_error
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.original.stream import MAX_MESSAGE, End, OriginalStream
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.driver import LOOK_RESET, QUIET
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.wakeup import Wakeup

#: Reads from the server, in a row, after which the other side is looked at.
_ROW: Final = 16

#: What a program meets that has ended its stream and still waits, when that end was passed on at last.
HALF_CLOSED: Final = End(
    Code.INCOMPLETE,
    "this program had ended its stream, and the target stayed silent: the original Emissary has no "
    "half-close, and what the target says from now on is lost",
)

_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


class OriginalTunnel:
    """One connection at work.

    Args:
        stream: Its state; only the driver touches it from now on, under its lock.
        link: The server's connection, behind the opening; the tunnel closes it.
        sock: A connected socket, the user's; the tunnel closes it, by a reset if the connection is cut off.
        on_end: Told how it ended before the user's socket is closed, without the lock, once.
        clock: A monotonic clock.

    Attributes:
        user_gone: Why the user's connection broke; ``None`` while it has not.

    Raises:
        OSError: No descriptor is left.

    Thread safety: :meth:`run` is for one thread; the others for any.
    """

    def __init__(
        self,
        stream: OriginalStream,
        link: ByteStream,
        sock: socket.socket,
        *,
        on_end: Callable[[End], None] = lambda end: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._link = link
        self._socket = LocalSocket(sock)
        self._on_end = on_end
        self._clock = clock
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        try:
            self._wakeup = Wakeup()
        except OSError:  # no descriptor is left
            self._selector.close()
            raise
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._interest = 0
        self._link_interest = 0
        self._draining = False
        self._aborting = False
        self._finished = False
        self._read_at = -math.inf  # when the user's socket last gave bytes
        self._moved = 0  # bytes that the server's connection took
        self._left_unread = 0
        self._program_ended = False
        self.user_gone: str | None = None

    def run_in_thread(self, drive: Callable[[], None]) -> None:
        """Have ``drive``, which calls :meth:`run`, called in a thread of its own.

        Raises:
            LocalResourceError: No thread is left; the connection was ended, and everything is closed.
        """
        try:
            threading.Thread(target=drive, name="emissary-original", daemon=True).start()
        except RuntimeError as exc:
            self._socket.reset()
            self.close()
            raise local_resource_error(exc) from exc

    def run(self) -> None:
        """Drive the connection until it is over and its bytes are delivered; then close everything.

        Blocking: for its life. When it returns, both sockets are closed.
        """
        try:
            self._drive()
        finally:
            self.close()

    def close(self) -> None:
        """Close all but the user's socket: :meth:`run` does at its end; for a tunnel that was never run."""
        self._link.shutdown()
        self._link.close()
        self._selector.close()
        self._wakeup.close()

    def abort(self) -> None:
        """End it: nobody will use it. Does not block."""
        self._aborting = True
        self._wakeup.wake()

    # -- for whoever waits for the bytes (emissary_lib.client.drain) --------------------------------

    def begin_drain(self) -> None:
        """The program exits: end the target's stream behind what was written."""
        self._draining = True
        self._wakeup.wake()

    @property
    def idle(self) -> bool:
        """Whether the target has all that the user has written, as far as is known; never after a cut."""
        with self._lock:
            if self._stream.end:
                return self._finished and self._stream.end.code is Code.OK
            if self._draining or not self._stream.complete or self._socket.gone:
                return False
            quiet = self._program_ended or self._clock() >= self._read_at + QUIET
            return quiet and (self._program_ended or not self._socket.has_unread())

    @property
    def acked(self) -> int:
        """How much of what the user has written the target has, its end included."""
        with self._lock:
            return self._stream.confirmed + self._stream.end_confirmed

    @property
    def progress(self) -> int:
        """Grows while what the user has written moves, here or there."""
        with self._lock:
            return self._stream.sent + self._moved + self._stream.confirmed

    @property
    def loss_noticed_after(self) -> float:
        """Nothing is ever sent again: the connection below sees to that."""
        return 0.0

    @property
    def written(self) -> int:
        """How much the user has written, as far as it has come out of the user's socket."""
        with self._lock:
            return self._stream.sent + self._socket.recv_queue

    @property
    def undelivered_bytes(self) -> int:
        """Bytes that the user has written and that the target is not known to have."""
        with self._lock:
            unread = max(self._left_unread, self._socket.recv_queue)
            return self._stream.sent - self._stream.confirmed + unread

    @property
    def untaken(self) -> bool:
        """Never: what is not confirmed is counted as undelivered."""
        return False

    @property
    def program_ended(self) -> bool:
        """Whether the user had ended the stream: nobody may be left to meet an error."""
        return self._program_ended

    # -- the driver ---------------------------------------------------------------------------------

    def _drive(self) -> None:
        look = False
        while True:
            with self._lock:
                more = self._turn(self._clock(), look=look)
                end = self._stream.end
                if end is None:
                    self._register()
                timeout = 0.0 if more else self._timeout()
            if end is not None:
                break
            look = not self._select(timeout)
        self._link.shutdown()  # behind an answer to the server's Close, if there was room for it
        end = self._judge(end)
        self._on_end(end)
        self._let_go(end)

    def _select(self, timeout: float | None) -> bool:
        """Wait for the sockets; whether anything has happened."""
        found = self._selector.select(timeout)
        for key, events in found:
            if key.fileobj is self._wakeup:
                self._wakeup.clear()
            elif key.fileobj is self._socket:
                self._socket.blocked = self._socket.blocked and not events & _WRITE
        return bool(found)

    def _judge(self, end: End) -> End:
        """What the end of the connection is to its user."""
        with self._lock:
            self._left_unread = unread = max(self._left_unread, self._socket.recv_queue)
        if self.user_gone is not None or self._aborting:
            return End(Code.DIALER_RESET, self.user_gone or "the dial was given up")
        if end.code is not Code.OK:
            return end
        if unread:
            return End(
                Code.INCOMPLETE, f"the server ended it with {unread} bytes of this program's not sent yet"
            )
        return HALF_CLOSED if self._stream.closed_here and not self._draining else end

    def _let_go(self, end: End) -> None:
        """Hand over what is left, and close; a stream that was cut short must never look complete."""
        if self._link_interest:
            self._selector.unregister(self._link)
        while True:
            with self._lock:
                self._hand_over(self._clock())
                with self._stream.peek() as view:
                    waits = len(view) > 0 and not self._socket.gone
                wanted = _WRITE if waits else 0
                if self._interest != wanted:
                    self._socket.register(self._selector, self._interest, wanted)
                    self._interest = wanted
            if not waits:
                break
            self._select(None)
        if self._socket.gone:
            self._socket.reset()
        elif end.code is Code.OK:
            self._socket.end_write()
            self._socket.close()
        else:
            self._socket.reset_after_drain(Deadline(None, self._clock))
        with self._lock:
            self._finished = True

    def _turn(self, now: float, *, look: bool) -> bool:
        """Move what can be moved; whether there is more that nothing would wake us for."""
        assert self._lock.locked()
        if self._aborting:
            self._stream.abort(now)
        if look and not self._socket.gone and (error := self._socket.pending_error()):
            self._user_failed(error, now)
        self._read_user(now)
        more = self._read_server(now)
        self._hand_over(now)
        self._stream.handle_timeout(now)
        self._write_server()
        return more

    def _read_user(self, now: float) -> None:
        while not (self._socket.gone or self._program_ended) and (room := self._stream.send_room):
            try:
                data = self._socket.receive(room)
            except OSError as exc:
                self._user_failed(exc, now)
                return
            if data:
                self._read_at = now
                self._stream.send_data(data, now)
            elif data is not None:
                self._program_ended = True
                self._stream.send_eof(now)
            if data is None:
                break
        if self._draining and (self._program_ended or self._stream.send_room):
            self._stream.close(now)

    def _read_server(self, now: float) -> bool:
        for _ in range(_ROW):
            if not self._stream.wants_data:
                return False
            try:
                data = self._link.read_now(MAX_MESSAGE)
            except OSError as exc:
                self._stream.cut(Code.DIALER_GONE, f"the connection to the server broke: {exc}")
                return False
            if data is None:
                return False
            self._stream.receive(data, now)
        return True

    def _hand_over(self, now: float) -> None:
        """Hand received bytes to the user, as many as it takes; to one that has gone, all of them."""
        while not self._socket.blocked:
            with self._stream.peek() as view:
                count = len(view)
                if not count:
                    return
                if not self._socket.gone:
                    try:
                        count = self._socket.send(view)
                    except OSError as exc:
                        self._user_failed(exc, now)
            self._stream.consume(count, now)

    def _write_server(self) -> None:
        while True:
            with self._stream.data_to_send() as view:
                if not view:
                    return
                try:
                    count = self._link.write_now(view)
                except OSError as exc:
                    broken = f"the connection to the server broke: {exc}"
                    break
            if not count:
                return
            self._stream.data_sent(count)
            self._moved += count
        self._stream.cut(Code.DIALER_GONE, broken)

    def _user_failed(self, exc: OSError, now: float) -> None:
        self.user_gone = exc.strerror or str(exc)
        self._left_unread = self._socket.recv_queue
        self._socket.gone, self._socket.blocked = True, False  # what still comes is read, and dropped
        self._stream.abort(now)

    def _register(self) -> None:
        stream = self._stream
        reads = bool(stream.send_room) and not self._program_ended
        with stream.peek() as waiting, stream.data_to_send() as outgoing:
            writes, link_writes = len(waiting) > 0, len(outgoing) > 0
        interest = 0 if self._socket.gone else (_READ if reads else 0) | (_WRITE if writes else 0)
        link_interest = (_READ if stream.wants_data else 0) | (_WRITE if link_writes else 0)
        if interest != self._interest:
            self._socket.register(self._selector, self._interest, interest)
            self._interest = interest
        if link_interest != self._link_interest:
            if not self._link_interest:
                self._selector.register(self._link, link_interest)
            elif link_interest:
                self._selector.modify(self._link, link_interest)
            else:
                self._selector.unregister(self._link)
            self._link_interest = link_interest

    def _timeout(self) -> float | None:
        due = self._stream.next_timeout()
        if not self._interest and not self._socket.gone:
            due = min(due, self._clock() + LOOK_RESET)
        return None if due == math.inf else max(0.0, due - self._clock())
