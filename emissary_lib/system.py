"""What one operating system has and another lacks; nothing else in the library asks for that.

macOS and Windows are known by their documents, headers and sources alone: what is done for them was not tried
there. ``make portable`` runs the library and the command on Linux with everything hidden that Windows lacks.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final

_fcntl: Any = None
_ioctl: Any = None
_UNREAD: Any = None
_UNSENT: Any = None
try:
    import fcntl
    import termios
except ImportError:  # Windows
    pass
else:
    _fcntl = fcntl
    _ioctl = getattr(fcntl, "ioctl", None)
    _UNREAD = getattr(termios, "FIONREAD", None)
    if sys.platform != "darwin":  # where sockets do not take it: soioctl in xnu's bsd/kern/sys_socket.c
        _UNSENT = getattr(termios, "TIOCOUTQ", None)

#: macOS' numbers, which Python does not name (its sys/socket.h).
_SO_NWRITE: Final = {"darwin": 0x1024}.get(sys.platform)
_SO_NOSIGPIPE: Final = {"darwin": 0x1022}.get(sys.platform)

#: Whether the kernel tells what it holds for the peer of a TCP socket. Windows' does not: its SIO_TCP_INFO
#: counts what is under way, and leaves out what has not left yet.
TELLS_UNSENT: Final = _SO_NWRITE is not None or _UNSENT is not None

#: Linux's number is not named by every Python.
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", {"linux": 25}.get(sys.platform))

#: Of ``struct linger``: two ints, on Windows two unsigned shorts (winsock2.h).
_LINGER: Final = {"win32": "HH"}.get(sys.platform, "ii")

#: What :func:`recv_queue_bytes` counts at most where it has to look at the bytes themselves: more than a
#: kernel has that was asked to keep 128 KiB.
_PEEKED: Final = 1 << 18

#: Clocks that go on while the host sleeps. Elsewhere ``time.monotonic`` has to do; Windows' goes on.
#: Sources: clock_gettime(2) of Linux; of macOS, where CLOCK_MONOTONIC_RAW is mach_continuous_time; PEP 418.
_CLOCKS: Final = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC_RAW"}

#: Waits for a socket or two and is thrown away again: without a descriptor of its own, and on Linux and macOS
#: for any number of open ones. It costs 10 us, a bare ``select.poll`` 2, and a message of a tunnel some 300.
ShortSelector: Final[Callable[[], selectors.BaseSelector]] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)

#: Flag for ``os.open`` with which opening a named pipe does not wait for its writer; ``None`` where nothing
#: else could wait for it afterwards either, because ``select`` takes sockets alone.
OPEN_NO_WAIT: Final[int | None] = getattr(os, "O_NONBLOCK", None)

#: Whether processes are in groups that get signals, can be stopped, and tell their parent of both. On Windows
#: a console sends Ctrl-C to all that it shows, and there is nothing else of that.
JOB_CONTROL: Final = hasattr(signal, "SIGCHLD")

#: The family of Unix sockets, or ``None``: Windows has some, but Python does not let us use them there.
UNIX: Final[int | None] = getattr(socket, "AF_UNIX", None)

#: Signals that mean what programs agree on.
REALTIME_SIGNALS: Final = range(getattr(signal, "SIGRTMIN", 1), getattr(signal, "SIGRTMAX", 0) + 1)

#: Whether the mode of a file says who may read and write it. On Windows that is not so: an access list does.
FILE_MODES: Final = hasattr(os, "geteuid")


def sleepless_clock(platform: str = sys.platform) -> Callable[[], float]:
    """A monotonic clock, in seconds, that goes on while the host sleeps, as far as the platform has one."""
    number: int | None = getattr(time, _CLOCKS.get(platform, ""), None)
    read: Callable[[int], float] | None = getattr(time, "clock_gettime", None)
    if number is None or read is None:
        return time.monotonic
    try:
        read(number)
    except OSError:  # an old kernel, or a sandbox that forbids it
        return time.monotonic
    return functools.partial(read, number)


def signals(*names: str) -> tuple[int, ...]:
    """Those of the signals with these names that there are; Windows has SIGINT, SIGTERM and SIGBREAK."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def in_child(act: Callable[[], object]) -> None:
    """Have ``act`` called in each child that is forked from now on; where there is no fork, never."""
    register = getattr(os, "register_at_fork", None)
    if register is not None:
        register(after_in_child=act)


def wait_for(sock: socket.socket | int, event: int, timeout: float | None) -> bool:
    """Wait until a socket is ready for ``selectors.EVENT_READ`` or ``EVENT_WRITE``, or broken.

    Args:
        sock: A socket or its descriptor. Another thread may close it meanwhile, if it shuts it down before.
        event: One of them, or both.
        timeout: Seconds; ``None`` for no end.

    Returns:
        Whether it was in time.

    Raises:
        OSError, ValueError: It is closed.
    """
    with ShortSelector() as selector:
        selector.register(sock, event)
        return bool(selector.select(timeout))


def said_by_the_system(number: int) -> str:
    """The system's words for an error's number; Windows has them of sockets apart from all others."""
    texts: dict[int, str] = getattr(socket, "errorTab", {})
    return texts.get(number) or os.strerror(number)


def socket_error(number: int) -> OSError:
    """The error of that number, in the system's words."""
    return OSError(number, said_by_the_system(number))


def waiter(sock: socket.socket, sink: int) -> Callable[[], bool]:
    """Gives a function that waits until a socket can be read; False once nobody is left to read the sink.

    A system without poll(2) tells of that only when something is written.

    Args:
        sock: The socket.
        sink: A descriptor that is written to, of any kind.
    """
    if not hasattr(select, "poll"):
        return lambda: bool(select.select([sock], [], []))
    names: Any = select
    poll = names.poll()
    poll.register(sock, names.POLLIN)
    poll.register(sink, 0)  # errors and hang-ups are always told

    def wait() -> bool:
        while True:
            events = dict(poll.poll())
            if events.get(sink, 0) & (names.POLLERR | names.POLLHUP):
                return False
            if sock.fileno() in events:
                return True
            poll.unregister(sink)  # of a kind that cannot be asked

    return wait


def pending_error(sock: socket.socket) -> OSError | None:
    """What broke a non-blocking socket, if that has not been told yet; tells it once."""
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return socket_error(number)
    # Windows keeps the outcome of a connect there, not the reset of a connection.
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError as exc:
        return exc
    return None


def send_queue_bytes(sock: socket.socket) -> int | None:
    """Bytes that the kernel still holds for the peer of a TCP socket; ``None`` where it does not tell.

    Raises:
        OSError, ValueError: The socket is closed.
    """
    if not TELLS_UNSENT:
        return None
    if _SO_NWRITE is not None:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    return _asked(sock, _UNSENT)


def recv_queue_bytes(sock: socket.socket) -> int:
    """Bytes that have come and were not read; 0 of a socket that is closed.

    Where the kernel does not tell, at most 256 KiB, and none once the connection is broken.
    """
    try:
        if _UNREAD is not None:
            return _asked(sock, _UNREAD)
        return len(sock.recv(_PEEKED, socket.MSG_PEEK)) if wait_for(sock, selectors.EVENT_READ, 0.0) else 0
    except (OSError, ValueError):
        return 0


def _asked(sock: socket.socket, request: int) -> int:
    (count,) = struct.unpack("i", _ioctl(sock, request, bytes(4)))
    return int(count)


def never_sigpipe(sock: socket.socket) -> int:
    """Have sending to a peer that has left fail, and nothing else; gives flags for ``send``.

    A program that takes SIGPIPE as it comes (many tools do) must not die of a connection of ours.
    """
    if _SO_NOSIGPIPE is not None:
        with contextlib.suppress(OSError):  # it is broken already
            sock.setsockopt(socket.SOL_SOCKET, _SO_NOSIGPIPE, 1)
    return getattr(socket, "MSG_NOSIGNAL", 0)


def writable_when_sent(sock: socket.socket) -> None:
    """Have a TCP socket be writable only once nothing is left unsent, where there is such a setting."""
    if _TCP_NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 1)


def patience_options(silence: float, unanswered: float) -> list[tuple[int, int, int]]:
    """How long a TCP connection is patient with its peer, as far as there are settings for that.

    Args:
        silence: Seconds without a word after which the kernel asks whether it is still there.
        unanswered: Seconds after which what was sent and is not acknowledged breaks the connection.

    Returns:
        Level, name and value of each, for ``setsockopt``.
    """
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # the latter on macOS
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if idle is not None:
        options.append((socket.IPPROTO_TCP, idle, int(silence)))
    if (limit := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        options.append((socket.IPPROTO_TCP, limit, int(unanswered * 1000)))
    return options


def never_give_up(sock: socket.socket) -> None:
    """Take back the limit that :func:`patience_options` sets to what is unacknowledged; never raises.

    The kernel counts a window that stays shut as well, though the peer answers. Without the limit it gives
    up only a peer that answers nothing at all: after some 15 minutes on Linux.
    """
    if (limit := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        with contextlib.suppress(OSError):  # it is broken already
            sock.setsockopt(socket.IPPROTO_TCP, limit, 0)


def reset_on_close(sock: socket.socket) -> None:
    """Have ``close`` reset a TCP connection; never raises."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))


def lock(descriptor: int) -> None:
    """Lock what is open there, a file or a directory, until it is closed; where there are no locks, nothing.

    Raises:
        BlockingIOError: Another process has it locked, or another descriptor of this one.
    """
    if _fcntl is None:
        return
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        pass


def claim_port(listener: socket.socket, again: bool = False) -> None:
    """Have nobody else listen on the port that this is bound to next; call it before ``bind``.

    Elsewhere that is so unless asked for otherwise; on Windows whoever sets SO_REUSEADDR gets a port that is
    in use, and the connections with it.

    Args:
        listener: Not bound yet.
        again: Take also a port whose last listener has just gone: Windows gives it, others want SO_REUSEADDR.
    """
    if (exclusive := getattr(socket, "SO_EXCLUSIVEADDRUSE", None)) is not None:
        listener.setsockopt(socket.SOL_SOCKET, exclusive, 1)
    elif again:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
