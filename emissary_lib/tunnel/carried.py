"""One connection of a shared session and its local socket: plain facts, and who is told of its end."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.tunnel.arrival import ArrivalMarks
from emissary_lib.tunnel.local_socket import LocalSocket


class Notice:
    """Tells one listener, once, that something has happened.

    Thread safety: any; no lock is held while the listener is called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False
        self._listener: Callable[[], None] = lambda: None

    def watch(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called when it happens; now if it has."""
        with self._lock:
            if not self._told:
                self._listener = listener
                return
        listener()

    def tell(self) -> None:
        """It has happened. Idempotent."""
        with self._lock:
            if self._told:
                return
            self._told = True
        self._listener()


class CarriedConnection:
    """What dialer and relay know of a connection; see their subclasses for what can be done with it.

    Attributes:
        target: Where it leads.
        sent: Bytes that its user has written so far.
        received: Bytes that its user was given so far.
        code: Why it was cut off or refused; ``OK`` while it is open, and after a clean end.
        reason: The same in words, where somebody has said more than the code; else empty. Where the session
            was cut off, it never is.
        whole: Whether a cut has lost nothing but the end of the peer's stream.
        lost: Bytes that the user has written and that are not known to have arrived, after a cut.
        was_untaken: Whether, at a cut, the peer had all that the user had written and its target perhaps not.
        opened: Whether the relay is connected to the target.
        ended: Set when the connection is over and its socket closed.

    Thread safety: these may be read from any thread.
    """

    def __init__(self, stream: int, target: Target) -> None:
        self.target = target
        self.sent = 0
        self.received = 0
        self.code = Code.OK
        self.reason = ""
        self.whole = False
        self.lost = 0
        self.was_untaken = False
        self.opened = False
        self.ended = threading.Event()
        self.cut_notice = Notice()
        self.over_notice = Notice()
        # The driver's, guarded by its lock:
        self.stream = stream
        self.socket: LocalSocket | None = None
        self.interest = 0  # selector events that the driver is waiting for
        self.paused = False  # nothing is read from the user until half of the buffer is free
        self.eof_queued = False  # and nothing is read from the user any more
        self.user_ended = False  # the user has ended its stream, as far as is known
        self.draining = False  # the user's stream is to end behind what it has written by now
        self.read_at = -math.inf  # when the user's socket last gave bytes
        self.cut = False  # by the peer, or with the session: the socket is to be reset
        self.leaving = False  # the user's connection broke: what it wrote is passed on (6-21)
        self.closed = False  # but for its socket, which the driver closes
        self.missing = 0  # after a cut: what of the bytes that were read has not arrived
        self.left_unread = 0  # of what the user wrote, when its connection broke or was cut off
        self.marks = ArrivalMarks()
        self.look_at = math.inf  # when to look at the socket, because no event tells
        self.reset_at = math.inf  # after a cut: when the user is waited for no longer

    @property
    def over(self) -> bool:
        """Whether it is over and its socket closed."""
        return self.ended.is_set()

    def transferred(self) -> tuple[int, int]:
        """Bytes of the user's, sent and received so far."""
        return self.sent, self.received

    def watch_cut(self, told: Callable[[], None]) -> None:
        """Have ``told`` called, once, when it is cut off or over; now if it is.

        The driver calls it before it resets the socket, and without a lock; it must not block.
        """
        self.cut_notice.watch(told)

    def watch_over(self, told: Callable[[], None]) -> None:
        """Have ``told`` called, once, when it is over and its socket closed; now if it is.

        It is called without a lock, and may take its time: the driver's :class:`Teller` does so.
        """
        self.over_notice.watch(told)

    def finish(self) -> None:
        """For the driver: its socket was closed. Without a lock; who watches is to be told next."""
        self.ended.set()

    # -- for the driver, under its lock -----------------------------------------------------------

    @property
    def reads(self) -> bool:
        """Whether its user's bytes are taken: asked for, not over, and not ended."""
        return self.opened and not (self.eof_queued or self.cut or self.leaving or self.closed)

    @property
    def in_kernel(self) -> int:
        """Bytes that the user has written and that nobody has read; after its end, of a cut connection."""
        if self.socket is None or self.closed:
            return self.left_unread
        return max(self.left_unread, self.socket.recv_queue)

    @property
    def due_at(self) -> float:
        """When something is to be done about it though nothing has happened."""
        return min(self.look_at, self.reset_at)
