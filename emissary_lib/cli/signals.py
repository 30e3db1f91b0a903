"""Signal handlers that last as long as a command runs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def handle_signals(handler: Handler, *numbers: signal.Signals) -> Iterator[Callable[[], None]]:
    """Have ``handler`` called for these signals while the context lasts.

    Gives a function that waits for the next of them. Waiting in ``Event.wait`` or ``Popen.wait`` would not
    do: a signal that comes just before the call into the kernel interrupts nothing, and its handler would
    only be called once something else ends the wait.

    Raises:
        ValueError: If called outside the main thread.
    """
    receiver, sender = socket.socketpair()
    with receiver, sender:
        receiver.setblocking(False)
        sender.setblocking(False)
        former_fd = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, handler) for number in numbers}

        def wait() -> None:
            select.select([receiver], [], [])
            with contextlib.suppress(BlockingIOError):
                receiver.recv(4096)

        try:
            yield wait
        finally:
            for number, former in before.items():
                signal.signal(number, former)
            signal.set_wakeup_fd(former_fd)


def typed_at_our_terminal() -> bool:
    """Whether a SIGINT that just came is the terminal's, which sends it to our children as well.

    Python does not tell who sent a signal. Whoever is in the foreground of a terminal gets it from there.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
