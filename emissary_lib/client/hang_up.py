"""A dial lasts no longer than the program that waits for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from emissary_lib.transport.deadline import EarlyDeadline


def has_hung_up(sock: socket.socket, *, at_end: bool = True) -> bool:
    """Whether nobody at the other end of a non-blocking socket cares for an answer any more.

    That is a reset, or an end of the stream before anything was written: a look at whether the port is open.
    What a program wrote before it closed has still to arrive.

    Args:
        sock: The program's connection.
        at_end: Whether such an end counts, and not a reset alone.
    """
    try:
        if not sock.recv(1, socket.MSG_PEEK) and at_end:
            return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    # Behind bytes that nobody has read, and behind an end, a reset would not show.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


class ConnectedDeadline(EarlyDeadline):
    """A dial's deadline, which has passed as soon as the program has hung up.

    Args:
        timeout: As of :class:`Deadline`.
        sock: The program's connection, non-blocking; nobody reads it before the dial is over.
        clock: A monotonic clock.
        at_end: As of :func:`has_hung_up`.

    Thread safety: any.
    """

    def __init__(
        self,
        timeout: float | None,
        sock: socket.socket,
        clock: Callable[[], float] = time.monotonic,
        *,
        at_end: bool = True,
    ) -> None:
        super().__init__(timeout, clock)
        self._sock = sock
        self._at_end = at_end
        self.hung_up = False

    def passed_early(self) -> bool:
        """Whether the program has hung up; looks."""
        if not self.hung_up and has_hung_up(self._sock, at_end=self._at_end):
            self.hung_up, self.passed_for = True, "was given up"
        return self.hung_up

    def remaining(self) -> float | None:
        """As of :class:`Deadline`."""
        return 0.0 if self.passed_early() else super().remaining()

    def passed(self) -> bool:
        """As of :class:`Deadline`."""
        return self.passed_early() or super().passed()

    def wait(self, event: threading.Event) -> None:
        """As of :class:`Deadline`."""
        while not self.passed() and not event.wait(self.cap(None)):
            pass
