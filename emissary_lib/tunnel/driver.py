"""Drives one session: a link to the peer on one side, a local TCP socket on the other.

Dialer and relay run the same code. The dialer's socket is one end of a loopback pair whose other end the
user holds (or a connection that ``forward`` accepted); the relay's is the connection to the target.

Threads: the *driver* waits for the socket and the clock, the *reader* waits for the link. Either may move
bytes: whoever has an input takes the lock, feeds the session, moves what can be moved without blocking, lets
go of the lock and then sends what the session wants sent. Nothing blocks while it holds the lock, and
messages need no order, so nobody waits for anybody.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.exceptions import (
    LinkRefusedError,
    LocalResourceError,
    TransportError,
    local_resource_error,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import ATTEMPT_TIMEOUT, LINGER, MAX_PAYLOAD
from emissary_lib.protocol.errors import ProtocolError
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Event, Finished, LinkDead
from emissary_lib.protocol.session.session import Outgoing, Session
from emissary_lib.protocol.wire.frames import FrameType, peek
from emissary_lib.transport.backoff import back_off
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.shutdown import ShutdownPolicy
from emissary_lib.tunnel.suspend import SuspendDetector
from emissary_lib.tunnel.wakeup import Wakeup

#: Seconds for which nothing must come from a program that has not ended its stream before that counts as all
#: it has written. The kernel holds the rest of a big write back until we have read, and then needs a moment.
_QUIET: Final = 0.05

#: Seconds between two looks at whether a socket that is not waited for has been reset: no event would tell.
_LOOK_RESET: Final = 1.0

#: Seconds between two looks at whether the socket's peer has taken the last bytes: no event tells of that.
_LOOK_TAKEN: Final = 0.05


class Tunnel:
    """One session at work.

    Args:
        session: The protocol state; only the tunnel touches it from now on, under its lock.
        link: To the peer and the bridge; the tunnel closes it.
        sock: A connected TCP socket; the tunnel closes it, by a reset if the session is cut off.
        on_event: Told of each event, in order, without the lock.
        shutdown: How long to wait for the socket, and for the bridge, at the end; for both if not given.
        on_idle: Told, without the lock, whenever the driver has done what it could for now.
        clock: A monotonic clock.
        sleep: Waits so many seconds between two attempts to reconnect; ``None`` to wait until the tunnel's
            end at most.
        suspend_detector: Notices that the host slept; ``None`` for one on the host's clock.
    """

    def __init__(
        self,
        session: Session,
        link: Link,
        sock: socket.socket,
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
        self._socket = LocalSocket(sock)
        self._on_event = on_event
        self._shutdown = shutdown or ShutdownPolicy()
        self._program_ended = False
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
        self._interest = 0  # selector events the driver is waiting for on the socket
        self._wakes_at: float | None = None  # when the driver wakes on its own
        self._aborted: Aborted | None = None
        self._finished = False
        self._read_at = -math.inf  # when the program's socket last gave bytes
        self._left_unread = 0
        self._user_wrote = False
        self._draining = False
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
            self.abort(self.local_code, "no thread is left for it")
            self.close()
            raise local_resource_error(exc) from exc
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Drive the session until it is over and its bytes are delivered; then close everything.

        Blocking: for the life of the tunnel. When it returns, the socket and the link are closed, and no
        thread of the tunnel is left.

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
        """Close socket and link: :meth:`run` does at its end; for a tunnel that was never run."""
        self._ended.set()
        self._link.close()
        if self._reader.ident is not None:
            self._reader.join()
        self._link.release()
        self._selector.close()
        self._wakeup.close()
        self._end_socket()

    def _end_socket(self) -> None:
        """Close, or reset if anything is missing: a stream that was cut short must never look complete."""
        if self._aborted:
            self._left_unread = self._socket.recv_queue
        if self._finished and not self._aborted and not self._undelivered():
            self._socket.close()
        elif self._socket.gone:
            self._socket.reset()
        else:
            left = self._shutdown.patience(self._clock())
            self._socket.reset_after_drain(Deadline(left, self._clock))

    def abort(self, code: Code, reason: str) -> None:
        """Cut the session off. From any thread; does not block for longer than a send."""
        self._apply(lambda now: self._session.abort(code, reason, now))

    def message_refused(self) -> None:
        """The carrier refused a message (429, 5xx, no answer). From any thread; as :meth:`abort`."""
        self._apply(self._session.message_refused)

    def peer_unknown(self) -> None:
        """The peer's connection is not known to the carrier (410). From any thread; as :meth:`abort`."""
        self._apply(self._session.peer_unknown)

    def wake(self) -> None:
        """Something outside has changed (a place in a shared budget is free). From any thread."""
        self._wakeup.wake()

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
            return not self._socket.has_unread() and self._clock() >= self._read_at + _QUIET

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

        After a cut, those that are lost.
        """
        with self._lock:
            if not (self._session.alive or self._aborted):
                return 0
            return self._session.undelivered + max(self._left_unread, self._socket.recv_queue)

    @property
    def untaken(self) -> bool:
        """Whether the relay has all that the user has written, and the target may not."""
        with self._lock:
            ended = self._program_ended or self._draining
            return self._user_wrote and ended and not (self._session.end_acked or self._session.undelivered)

    @property
    def program_ended(self) -> bool:
        """Whether the user had ended the stream, as far as is known: nobody may be left to meet an error."""
        return self._program_ended

    # -- the driver: socket and clock -----------------------------------------------------------

    def _drive(self) -> None:
        registered = 0
        while True:
            with self._lock:
                step = self._advance()
                if self._must_reset():
                    self._socket.gone = resets = True
                else:
                    resets = False
                interest = self._wanted_interest()
                self._interest = interest
                self._wakes_at = self._next_timeout()
                over = self._over()
            if interest != registered:
                self._socket.register(self._selector, registered, interest)
                registered = interest
            if resets:
                self._socket.reset()
            self._carry_out(step)
            if over:
                return
            self._on_idle()
            timeout = None if self._wakes_at is None else max(0.0, self._wakes_at - self._clock())
            readable = False
            for key, events in self._selector.select(self._suspend_detector.cap(timeout)):
                if key.fileobj is self._wakeup:
                    self._wakeup.clear()
                else:
                    readable = bool(events & selectors.EVENT_READ)
                    self._socket.blocked = self._socket.blocked and not events & selectors.EVENT_WRITE
            self._driver_turn(readable)

    def _driver_turn(self, readable: bool) -> None:
        with self._lock:
            now = self._clock()
            if self._suspend_detector.look():
                self._session.on_suspend()
            if readable or self._draining:
                self._read_socket(now)
            elif not self._interest and not self._socket.gone:
                self._look_for_reset(now)
            self._session.handle_timeout(now)

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

    def _next_timeout(self) -> float | None:
        assert self._lock.locked()
        now = self._clock()
        waits = not self._socket.gone and not self._undelivered()
        times = [self._session.next_timeout(), self._shutdown.next_timeout(now, waits=waits)]
        if self._session.alive and not self._socket.gone and not self._wanted_interest():
            times.append(now + _LOOK_RESET)
        if self._session.end_waits and self._session.receive_ended and not self._socket.gone:
            times.append(now + _LOOK_TAKEN)
        first = min(at for at in times if at is not None)
        return None if first == math.inf else first

    def _undelivered(self) -> bool:
        return not self._socket.gone and len(self._session.peek()) > 0

    def _over(self) -> bool:
        return self._shutdown.over(self._clock(), delivered=not self._undelivered())

    def _must_reset(self) -> bool:
        if self._aborted is None or self._socket.gone or not self._shutdown.bounded:
            return False
        taken = not self._undelivered() and self._socket.taken
        return self._shutdown.resets(self._clock(), taken=taken)

    # -- the reader: the link -------------------------------------------------------------------

    def _read_link(self) -> None:
        try:
            while True:
                try:
                    text = self._link.recv()
                except TransportError as exc:
                    if not self._reconnect(str(exc)):
                        return
                else:
                    self._receive(text)
        except BaseException as exc:  # nobody else reads: the tunnel must not wait for what never comes
            self._end_refused(Code.PROTOCOL_ERROR, repr(exc))
            raise

    def _receive(self, text: str) -> None:
        def receive(now: float) -> None:
            if self._session.role is Role.DIALER and _is_last_word(text):
                self._hear_out(now)
            self._session.receive_message(text, now)

        self._apply(receive)

    def _hear_out(self, now: float) -> None:
        """Read what the program has written, and ended, by now: the driver may not have got to it.

        Whether anything is missing depends on that (docs/protocol.md rule 6-22).
        """
        while not self._socket.gone and self._read_socket(now):
            pass

    def _reconnect(self, reason: str) -> bool:
        """Replace the connection for as long as the session wants one; whether there is one again."""
        self._apply(lambda now: self._session.link_lost(self._session.role.gone, reason, now))
        with self._lock:
            flapping = self._session.flapping
            wanted = self._session.link_deadline is not None
        if flapping and wanted:
            self._sleep(next(self._waits))
        else:
            self._waits = back_off()  # and the first attempt is made at once
        while (attempt := self._next_attempt()) is not None:
            epoch, deadline = attempt
            try:
                self._link.reconnect(epoch, deadline)
            except LinkRefusedError as exc:
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
        return sooner or self._over() or self._wanted_interest() != self._interest

    # -- shared ---------------------------------------------------------------------------------

    def _advance(self) -> tuple[list[Event], list[Outgoing]]:
        """Move what can be moved without blocking. Requires the lock; gives what to do without it."""
        assert self._lock.locked()
        now = self._clock()
        self._deliver(now)
        messages = self._session.messages_to_send(now)
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
        return events, messages

    def _deliver(self, now: float) -> None:
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

    def _carry_out(self, step: tuple[list[Event], list[Outgoing]]) -> None:
        events, messages = step
        for event in events:
            self._on_event(event)
            if isinstance(event, LinkDead):
                self._link.drop()
            elif isinstance(event, Finished) and not self._shutdown.bounded:
                # Even if the user is slow to take the last bytes. A relay says goodbye when it returns: then
                # its place among the sessions is given to another.
                self._link.close()
        # The reader meets the end of a connection that breaks here, and what was lost is sent again.
        with contextlib.suppress(TransportError):
            for message in messages:
                self._link.send(message)


def _is_last_word(text: str) -> bool:
    """Whether a message tells of the session's end."""
    try:
        return peek(text)[0] in (FrameType.RESET, FrameType.ENDED)
    except ProtocolError:  # the gateway's own, or none at all: the session says so
        return False
