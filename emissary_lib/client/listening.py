"""Where a forwarded port listens: a TCP address, both addresses of localhost, or a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.system import UNIX, claim_port, lock

#: Host and port, or the path of a Unix socket.
LocalAddress = tuple[str, int] | str | os.PathLike[str]

#: Connections that may wait to be accepted.
BACKLOG: Final = 128

#: Both of localhost's addresses, the one that is always there first.
_LOCALHOST: Final = ("127.0.0.1", "::1")

#: Free ports of the one family that are tried for one that is free in the other as well.
_FREE_PORTS: Final = 64

#: What a machine without IPv6 says of ``::1``.
_NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

#: Seconds to wait for others that begin in the same directory.
_LOCK_WAIT: Final = 0.5

#: What libpq looks for in a directory that it is given as its host.
POSTGRES_SOCKET: Final = ".s.PGSQL."


class Listener:
    """One listening socket, non-blocking, and the file that goes away with it.

    Args:
        sock: Owned from now on.
        path: Its file, if it is a Unix socket.
    """

    def __init__(self, sock: socket.socket, path: str = "") -> None:
        sock.setblocking(False)
        self.sock = sock
        self._path = os.path.abspath(path) if path else ""
        self._made = _identity(path) if path else None
        self._process = os.getpid()

    @property
    def path(self) -> str | None:
        """The file of a Unix socket; ``None`` of a TCP address."""
        return self._path or None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; of a Unix socket what libpq takes: its directory and number, else its path and 0."""
        if not self._path:
            host, port, *_scope = self.sock.getsockname()
            return str(host), int(port)
        directory, name = os.path.split(self._path)
        number = name.removeprefix(POSTGRES_SOCKET)
        if number != name and number.isascii() and number.isdigit():
            return directory, int(number)
        return self._path, 0

    def unlink(self) -> None:
        """Remove the file, if it is still ours: nobody connects any more. Idempotent; never raises."""
        # While the socket is open, its inode cannot be another's; a forked child has no part in it.
        if self._path and self._process == os.getpid():
            with contextlib.suppress(OSError):
                if _identity(self._path) == self._made:
                    os.unlink(self._path)

    def close(self) -> None:
        """Stop listening; who has not been accepted is refused. Idempotent."""
        self.unlink()
        self.sock.close()


def check_address(where: LocalAddress) -> None:
    """Refuse what can be no local address.

    Raises:
        ConfigError: A path without a slash, with a zero byte, or where there are no Unix sockets.
    """
    if isinstance(where, tuple):
        return
    path = os.fspath(where)
    if "/" not in path or "\0" in path:
        raise ConfigError(
            f"{path!r} is no local address: want (host, port), or a Unix socket's path, with a slash in it"
        )
    if UNIX is None:
        raise ConfigError(f"{path}: Python has no Unix sockets on this system; take a port")


def listen(where: LocalAddress, port: int = 0) -> list[Listener]:
    """Listen: on ``localhost``, on both of its addresses, as far as the machine has both.

    A Unix socket's file can be used by this user alone. One that a dead process has left behind is replaced.

    Args:
        where: Host and port, 0 for a free one; or a path. A directory (it exists, or a slash ends it) stands
            for the name in it by which libpq finds a server on ``port``.
        port: The target's.

    Raises:
        ConfigError: As :func:`check_address`.
        OSError: The address is in use or not of this machine, or the path is too long, somebody else's or no
            socket. At once, and nothing is left behind.
    """
    check_address(where)
    if not isinstance(where, tuple):
        path = os.fspath(where)
        if path.endswith("/") or os.path.isdir(path):
            path = os.path.join(path, f"{POSTGRES_SOCKET}{port}")
        return [_listen_unix(path)]
    host, number = where
    if host.lower() == "localhost":
        return _listen_both(number)
    return [_listen_tcp(host, number)]


def _listen_tcp(host: str, port: int) -> Listener:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        claim_port(sock, again=True)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        return Listener(sock)
    except BaseException:
        sock.close()
        raise


def _listen_both(port: int, listen_tcp: Callable[[str, int], Listener] = _listen_tcp) -> list[Listener]:
    one, other = _LOCALHOST
    left = 0 if port else _FREE_PORTS
    while True:
        first = listen_tcp(one, port)
        try:
            return [first, listen_tcp(other, first.address[1])]
        except OSError as exc:
            if exc.errno in _NO_IPV6:
                return [first]
            first.close()
            if not left or exc.errno != errno.EADDRINUSE:
                raise
            left -= 1


def _listen_unix(path: str) -> Listener:
    assert UNIX is not None
    with _locked(path):
        _remove_stale(path)
        sock = socket.socket(UNIX, socket.SOCK_STREAM)
        try:
            try:
                sock.bind(path)
            except OSError as exc:
                if exc.errno is None:  # Python's own look at the length
                    count = len(os.fsencode(path))
                    text = f"a path of {count} bytes is too long for a Unix socket (some 100 are not)"
                    raise OSError(errno.ENAMETOOLONG, text, path) from exc
                raise
            listener = Listener(sock, path)
        except BaseException:
            sock.close()
            raise
        try:
            os.chmod(path, 0o600)  # before anybody can connect
            sock.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener


def _remove_stale(path: str) -> None:
    """Remove a socket's file that nobody listens at.

    Raises:
        OSError: Somebody does, or that cannot be told, or it is something else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is something else than a socket, which is left alone", path)
    assert UNIX is not None
    with socket.socket(UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:  # its queue is full
            pass
    raise OSError(errno.EADDRINUSE, "a process that is running listens there", path)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Nobody else of ours replaces a socket in the directory meanwhile, where it can be locked.

    Raises:
        OSError: Another process keeps it locked.
    """
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:  # not there, which bind tells; or not to be read, and then it has to do without
        yield
        return
    try:
        until = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                lock(directory)
                break
            except BlockingIOError as exc:
                if time.monotonic() >= until:
                    text = "another process keeps its directory locked"
                    raise OSError(errno.EBUSY, text, path) from exc
                time.sleep(0.005)
        yield
    finally:
        os.close(directory)
