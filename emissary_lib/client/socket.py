"""What ``dial`` returns: a real socket that also knows its session."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from emissary_lib.exceptions import TunnelResetError
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.system import socket_error

#: Named for what the user knows: tunnels, not modules. No handler of ours: to whom the application has said
#: nothing of logging, Python prints warnings.
logger = logging.getLogger("emissary_lib.tunnel")


class SessionInfo:
    """What is known of a tunnel's session; reading it never blocks, from any thread.

    Attributes:
        id: The session id, as it stands in the bridge's log. The original Emissary's server has none: over
            that, nobody else knows it.
        target: What was dialled.
        expires_at: When the relay's time is up and the tunnel ends, in seconds since 1970 UTC; more precise
            once the end has been announced. Infinity over the original Emissary, which has no such time.
        going_away: Whether the relay has announced its end (30 s before it, docs/protocol.md section 5.6).
            The tunnel still works: finish or commit what is under way, and dial again for more.
        counters: Bytes and messages of the session so far, of all connections that share it; live, so copy it
            to keep it.
        transferred: Bytes of the user's alone over this connection, sent and received so far.
        error: Why the tunnel was cut off; ``None`` while it is open and after a clean end.
    """

    _watcher: Callable[[], None] | None = None

    def __init__(
        self,
        id: str,
        target: Target,
        expires_at: float,
        counters: Counters,
        transferred: Callable[[], tuple[int, int]],
    ) -> None:
        self._transferred = transferred
        self.id = id
        self.target = target
        self.expires_at = expires_at
        self.going_away = False
        self._announced = math.inf
        self.counters = counters
        self.error: TunnelResetError | None = None

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes of the user's alone, sent and received so far."""
        return self._transferred()

    def announce_end(self, remaining: float, unix_now: float) -> None:
        """The relay has told that its time is up in ``remaining`` seconds; for the tunnel to call."""
        if self.note_end(remaining, unix_now):
            self.warn_of_end(remaining)

    def note_end(self, remaining: float, unix_now: float) -> bool:
        """The same, and nobody is told: whether :meth:`warn_of_end` has to follow. Does not block."""
        if remaining >= self._announced:  # a copy, or one that was overtaken
            return False
        self._announced, self.going_away = remaining, True
        # Whatever tells the time takes time to arrive, so the earliest reading is the best.
        self.expires_at = min(self.expires_at, unix_now + remaining)
        return True

    def warn_of_end(self, remaining: float) -> None:
        """Log that the end has been announced, and tell whoever watches."""
        logger.warning(
            "the tunnel to %s ends in %.0f s, when its relay reaches Lambda's time limit: finish or commit "
            "what is under way, and dial again for more",
            self.target,
            remaining,
        )
        if self._watcher:
            self._watcher()

    def watch(self, announced: Callable[[], None]) -> None:
        """Have ``announced`` called whenever the end is announced, and now if it has been."""
        self._watcher = announced
        if self.going_away:
            announced()

    def __repr__(self) -> str:
        return f"<SessionInfo {self.id[:8]} to {self.target}>"


class TunnelSocket(socket.socket):
    """A connected TCP socket whose other end is the tunnel.

    Everything that takes a socket takes it: ``ssl``, ``select``, ``makefile``, drivers. The tunnel lives as
    long as the file descriptor, not as this object: ``detach`` and ``ssl`` may take it over.
    ``shutdown(SHUT_WR)`` half-closes. When the tunnel is cut off, reading and writing raise
    :class:`TunnelResetError`, which names the cause and is a ``ConnectionResetError``; whoever uses the bare
    descriptor (``ssl``, C libraries) gets a plain ``ConnectionResetError`` and finds the cause in
    ``session.error``.

    Attributes:
        session: What is known of the session; ``None`` on a ``dup`` of the socket.
    """

    session: SessionInfo | None = None

    @contextlib.contextmanager
    def _name_cause(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionResetError, BrokenPipeError) as exc:
            if self.session is not None and self.session.error is not None:
                # A fresh one each time: an error that is raised gathers a traceback, and with it whoever was
                # at work, this socket included; the session's own would keep them all.
                told = self.session.error
                raise type(told)(
                    *told.args, code=told.code, whole=told.whole, lost=told.lost, untaken=told.untaken
                ) from exc
            raise

    def _check_end(self) -> None:
        """Nothing came: the end of the stream, unless the tunnel was cut off.

        The kernel tells of a reset only once; to a thread that reads, after another that writes was told, it
        would look like a clean end.
        """
        if self.session is not None and self.session.error is not None:
            raise socket_error(errno.ECONNRESET)

    def recv(self, *args: Any) -> bytes:
        """As :meth:`socket.socket.recv`; raises where the session failed, instead of an end."""
        with self._name_cause():
            data = super().recv(*args)
            if not data and args[0]:
                self._check_end()
            return data

    def recv_into(self, buffer: Any, *args: Any, **kwargs: Any) -> int:
        """As :meth:`socket.socket.recv_into`; raises where the session failed, instead of an end."""
        with self._name_cause():
            count = super().recv_into(buffer, *args, **kwargs)
            if not count and memoryview(buffer).nbytes:
                self._check_end()
            return count

    def send(self, *args: Any) -> int:
        """As :meth:`socket.socket.send`; a failure names the session's error as its cause."""
        with self._name_cause():
            return super().send(*args)

    def sendall(self, *args: Any) -> None:
        """As :meth:`socket.socket.sendall`; a failure names the session's error as its cause."""
        with self._name_cause():
            super().sendall(*args)

    if sys.platform != "win32":

        def sendmsg(self, *args: Any) -> int:
            """As :meth:`socket.socket.sendmsg`; a failure names the session's error as its cause."""
            with self._name_cause():
                return super().sendmsg(*args)
