"""Hides from a Python what Windows' lacks, before anything else is imported: for a folder in PYTHONPATH.

So all that such a Python starts has it hidden too. What this cannot show is how Windows itself behaves: its
sockets, its consoles, its files.

The names are those that typeshed has for Linux and not for Windows, as far as a network program may want
them. Left in is what Python's own library and pytest ask for on Linux (``os.WNOHANG``, ``os.posix_spawn``,
``os.getuid``, ``signal.SIGKILL``); ``mypy --platform win32`` finds those in ours.
"""

from __future__ import annotations

import errno
import importlib
import os
import select
import selectors
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

#: Modules that take what they need of Linux while they are imported; on Windows they take others.
_BEFORE: Final = (
    "asyncio",
    "concurrent.futures",
    "http.server",
    "multiprocessing.connection",
    "psutil",
    "tempfile",
)

_MODULES: Final = ("fcntl", "termios", "tty", "pty", "resource", "pwd", "grp", "syslog", "readline", "curses")

_NAMES: Final = {
    os: """
        O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK WCONTINUED WUNTRACED chown ctermid fchown fork
        forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getsid killpg
        lchown login_tty mkfifo nice openpty pidfd_open posix_fadvise pread pwrite
        register_at_fork sched_getaffinity sendfile setpgid setpgrp setsid sysconf tcgetpgrp tcsetpgrp ttyname
        uname waitid
    """,
    signal: """
        ITIMER_REAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGPIPE SIGPROF SIGQUIT SIGRTMAX SIGRTMIN
        SIGSTOP SIGPWR SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGWINCH SIG_BLOCK SIG_SETMASK
        SIG_UNBLOCK alarm pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait
        sigwait sigwaitinfo
    """,
    socket: """
        AF_UNIX MSG_DONTWAIT MSG_MORE MSG_NOSIGNAL SCM_RIGHTS SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED
        SO_REUSEPORT TCP_CORK TCP_INFO TCP_NOTSENT_LOWAT TCP_QUICKACK TCP_USER_TIMEOUT recv_fds send_fds
    """,
    select: "epoll poll POLLERR POLLHUP POLLIN POLLNVAL POLLOUT POLLPRI EPOLLERR EPOLLHUP EPOLLIN EPOLLOUT",
    selectors: "PollSelector EpollSelector",
    time: "CLOCK_BOOTTIME CLOCK_MONOTONIC CLOCK_REALTIME clock_getres clock_gettime clock_gettime_ns tzset",
}

_select: Final = select.select
_send_signal: Final = subprocess.Popen.send_signal


def _select_sockets(
    read: Iterable[Any], write: Iterable[Any], failed: Iterable[Any], timeout: float | None = None
) -> Any:
    """As ``select.select`` of Windows: for sockets alone."""
    for each in [*read, *write, *failed]:
        number = each if isinstance(each, int) else each.fileno()
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(errno.ENOTSOCK, "an operation was attempted on something that is not a socket")
    return _select(read, write, failed, timeout)


def _pair(family: int = 0, kind: int = 0, protocol: int = 0) -> tuple[socket.socket, socket.socket]:
    """As Python makes ``socketpair`` where there is no AF_UNIX."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _address = listener.accept()
    return near, far


def _send_few_signals(process: subprocess.Popen[Any], number: int) -> None:
    """As on Windows: there is nothing but an end (``kill`` sends SIGKILL here, and nothing there)."""
    if number not in (signal.SIGTERM, signal.SIGKILL):
        raise ValueError(f"Unsupported signal: {number}")
    _send_signal(process, number)


def hide() -> None:
    """Take the names away."""
    for name in _BEFORE:
        importlib.import_module(name)
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it fails
    for module, names in _NAMES.items():
        for name in names.split():
            vars(module).pop(name, None)
    replaced: tuple[tuple[Any, str, object], ...] = (
        (selectors, "DefaultSelector", selectors.SelectSelector),
        (selectors.SelectSelector, "_select", staticmethod(_select_sockets)),
        (select, "select", _select_sockets),
        (socket, "socketpair", _pair),
        (subprocess.Popen, "send_signal", _send_few_signals),
    )
    for owner, name, other in replaced:
        setattr(owner, name, other)


hide()
