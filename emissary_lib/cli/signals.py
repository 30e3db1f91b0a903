"""Signals of a command: handled as long as it runs, told apart by whom they were for, and what they stop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Final

from emissary_lib.system import JOB_CONTROL, REALTIME_SIGNALS, signals

Handler = Callable[[int, FrameType | None], None]

#: What a program that runs under us is to get as if it ran in our place: all that one sends to a process, or
#: a terminal to a group. Not what tells of a fault of our own, nor what stops whoever uses the terminal from
#: the background (SIGTTIN, SIGTTOU): that goes to the group, and is right for us as well.
PASSED_ON: Final = (
    *signals("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGCONT", "SIGTSTP"),
    *signals("SIGWINCH", "SIGPWR", "SIGINFO", "SIGBREAK"),
    *REALTIME_SIGNALS,
)

#: A stop and a continuation undo each other.
_OPPOSITE: Final = dict(zip(signals("SIGTSTP", "SIGCONT"), signals("SIGCONT", "SIGTSTP"), strict=True))

#: Seconds in which signals of one kind count as one: who signals a process and then its group (timeout), or
#: one process of a group after the other (systemd), means one signal.
GATHER: Final = 0.2

#: Longest wait for the witness, in seconds, which only has to look.
_ANSWER: Final = 5.0


def heeded(numbers: Iterable[int]) -> list[int]:
    """Those that are not ignored: who starts us so (``nohup``, a shell in the background) means it."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


class Wait:
    """Waits for the next signal; see :func:`handle_signals`."""

    def __init__(self, receiver: socket.socket, sender: socket.socket) -> None:
        self._receiver = receiver
        self._sender = sender

    def __call__(self, timeout: float | None = None) -> None:
        """Wait for a signal, for :meth:`wake`, or for that many seconds."""
        select.select([self._receiver], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(4096)

    def wake(self) -> None:
        """End a wait. Any thread; also when nobody waits any more."""
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")


@contextlib.contextmanager
def handle_signals(handler: Handler, *numbers: int) -> Iterator[Wait]:
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
        try:
            yield Wait(receiver, sender)
        finally:
            for number, former in before.items():
                signal.signal(number, former)
            signal.set_wakeup_fd(former_fd)


class Gathered:
    """Signals that have come and of which is yet to be found out whom they were for; pure.

    Each is due :data:`GATHER` after the first of its kind; those that come until it is taken are the same
    one. What comes while it is found out whom that one was for is another, so that nothing is lost. A stop
    and a continuation cancel each other, as they do in the kernel.
    """

    def __init__(self) -> None:
        self._due: dict[int, float] = {}

    def came(self, number: int, now: float) -> None:
        """A signal came."""
        self._due.pop(_OPPOSITE.get(number, 0), None)
        self._due.setdefault(number, now + GATHER)

    def take(self, now: float) -> list[int]:
        """Take out those of which it is to be found out by this time."""
        # A handler may run between any two of these steps: what it adds meanwhile stays.
        due = [number for number, at in list(self._due.items()) if at <= now]
        return [number for number in due if self._due.pop(number, None) is not None]

    def seconds(self, now: float) -> float | None:
        """Seconds until the next is due; None if there is none."""
        first = min(self._due.values(), default=None)
        return None if first is None else max(0.0, first - now)


#: Runs as a process of its own. Its signals are blocked: each stays pending until somebody asks for it.
_WITNESS: Final = """\
import os, signal
while question := os.read(0, 1):
    seen = question[0] in signal.sigpending()
    if seen:
        signal.sigwait([question[0]])
    os.write(1, b"\\1" if seen else b"\\0")
"""


class Witness:
    """A process of our group that does nothing but get the signals which the group gets; a context manager.

    A terminal, ``kill`` with a negative number and a shell send a signal to all processes of a group at once,
    ``kill PID`` and ``docker stop`` to one. No system tells the receiver which it was. But what this
    process got as well, a program in the same group has got, too.

    It is an interpreter of its own and not a fork, so that who looks for us by name does not find it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Witness:
        if sys.platform == "win32" or not JOB_CONTROL:  # the one tells mypy the other
            return self
        former = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        try:
            self._process = subprocess.Popen(
                [os.path.realpath(sys.executable), "-I", "-S", "-c", _WITNESS],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:  # no process is left for it: then everything is passed on
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            with self._process as process:  # closes its pipes, which ends it, and waits
                process.kill()

    def saw(self, number: int) -> bool:
        """Whether the signal has come to our group, since it was asked for the last time.

        Where there are no groups, it has: a Windows console sends to all that it shows.

        Blocking: for as long as it takes to answer; nothing that it waits for.
        """
        if not JOB_CONTROL:
            return True
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            return False
        try:
            self._process.stdin.write(bytes([number]))
            if select.select([self._process.stdout], [], [], _ANSWER)[0]:
                return self._process.stdout.read(1) == b"\1"
        except OSError:
            pass
        self.__exit__()  # somebody has stopped or ended it
        self._process = None
        return False


def stop_as(number: int) -> None:
    """Stop as our child was stopped, so that whoever waits for us can go on with something else.

    A terminal's stop is not for a group that nobody could continue, and the kernel sees to that. SIGSTOP is
    taken over only if somebody at a terminal waits for us: elsewhere it is meant for the child alone.

    Blocking: until we are continued.
    """
    if sys.platform == "win32":
        return
    if number == signal.SIGSTOP:
        if in_foreground():
            signal.pthread_kill(threading.get_ident(), number)
        return
    former = signal.signal(number, signal.SIG_DFL)
    signal.pthread_kill(threading.get_ident(), number)  # to this thread: it is stopped before this returns
    signal.signal(number, former)


def in_foreground() -> bool:
    """Whether we are what runs in the foreground of our terminal; that is job control's to say."""
    if sys.platform == "win32":
        return False
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
