"""Connects to whichever of a name's addresses answers first (RFC 8305, "Happy Eyeballs").

A gateway has IPv4 and IPv6 addresses, and often only one of the two is of use: a VPC whose only way out is an
egress-only internet gateway swallows IPv4 without a word, many a laptop's network IPv6. To try one after the
other would cost a whole timeout with every connection.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from emissary_lib.system import pending_error
from emissary_lib.transport.deadline import LOOK

#: Seconds before another address is tried beside those that have not answered (RFC 8305 section 5).
CONNECTION_ATTEMPT_DELAY: Final = 0.25

#: As ``socket.getaddrinfo`` gives it: family, type, protocol, canonical name, address.
Found = tuple[int, int, int, str, Any]

#: Level, name and value, for ``setsockopt``.
Option = tuple[int, int, int]


def connect(
    address: tuple[str, int],
    timeout: float | None,
    *,
    options: Iterable[Option] = (),
    resolve: Callable[..., Sequence[Found]] | None = None,
    given_up: Callable[[], bool] | None = None,
) -> socket.socket:
    """Connect as ``socket.create_connection`` does, but to the first of the addresses that answers.

    Args:
        address: Host and port.
        timeout: Seconds for all of them together, and then the socket's own; ``None`` for no end. The
            look-up of the name is not bounded.
        options: Set on each socket before it connects.
        resolve: Looks the name up; ``None`` for ``socket.getaddrinfo``.
        given_up: Whether to wait no longer, which is then a TimeoutError; ``None`` if that cannot be.

    Raises:
        TimeoutError: None of them has connected in time.
        OSError: None of them can be connected to; the error of the last. ``socket.gaierror``: no such name.

    Blocking: for as long as ``timeout`` allows. Thread safety: any.
    """
    found = (resolve or socket.getaddrinfo)(*address, type=socket.SOCK_STREAM)
    connecting = _Connecting(interleave_families(found), tuple(options), timeout, given_up)
    try:
        sock = connecting.run()
    finally:
        connecting.close()
    sock.settimeout(timeout)
    return sock


def interleave_families(found: Sequence[Found]) -> list[Found]:
    """One family after the other, beginning with the system's choice (RFC 8305 section 4)."""
    families: dict[int, list[Found]] = {}
    for each in found:
        families.setdefault(each[0], []).append(each)
    rounds = itertools.zip_longest(*families.values())
    return [each for several in rounds for each in several if each is not None]


class _Connecting:
    """The attempts under way, and those still to begin."""

    def __init__(
        self,
        addresses: list[Found],
        options: tuple[Option, ...],
        timeout: float | None,
        given_up: Callable[[], bool] | None,
    ) -> None:
        self._left = deque(addresses)
        self._options = options
        self._until = None if timeout is None else time.monotonic() + timeout
        self._given_up = given_up
        self._next_at = time.monotonic()
        self._running = selectors.DefaultSelector()
        self._failure = OSError("the name has no address")

    def run(self) -> socket.socket:
        while True:
            if self._left and (time.monotonic() >= self._next_at or not self._running.get_map()):
                self._begin(*self._left.popleft())
                continue  # it may have failed at once, and have been the last
            if not self._running.get_map():
                raise self._failure
            for key, _ in self._running.select(self._wait()):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                self._running.unregister(sock)
                failure = pending_error(sock)
                if failure is None:
                    return sock
                self._on_failure(sock, failure)
            if self._is_over():
                raise TimeoutError("timed out")

    def close(self) -> None:
        """Give up the attempts that are still under way."""
        for key in list(self._running.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._running.close()

    def _begin(self, family: int, kind: int, protocol: int, _name: str, address: Any) -> None:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as exc:  # a system without IPv6
            self._failure = exc
            return
        try:
            sock.setblocking(False)
            for option in self._options:
                sock.setsockopt(*option)
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._on_failure(sock, exc)
            return
        self._next_at = time.monotonic() + CONNECTION_ATTEMPT_DELAY
        self._running.register(sock, selectors.EVENT_WRITE)

    def _on_failure(self, sock: socket.socket, failure: OSError) -> None:
        """The next one need not wait for its turn."""
        sock.close()
        self._failure, self._next_at = failure, time.monotonic()

    def _is_over(self) -> bool:
        late = self._until is not None and time.monotonic() >= self._until
        return late or (self._given_up is not None and self._given_up())

    def _wait(self) -> float | None:
        look = None if self._given_up is None else time.monotonic() + LOOK
        times = [self._until, look, self._next_at if self._left else None]
        return min((max(0.0, at - time.monotonic()) for at in times if at is not None), default=None)
