"""A local TCP port that leads to a target: for drivers and tools that take no socket."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from emissary_lib.exceptions import EmissaryError
from emissary_lib.tunnel.loopback import reset

logger = logging.getLogger("emissary_lib.forward")
logger.addHandler(logging.NullHandler())

#: Seconds before another try when a connection could not be accepted: no descriptor, no memory.
_PAUSE: Final = 0.1


class Forward:
    """Accepts any number of connections at once and hands each to ``serve``; a context manager.

    A connection whose dial fails, or whose tunnel is cut off, is reset, and the cause is logged (logger
    ``emissary_lib.forward``) and kept in :attr:`last_error`; the others, and the listener, go on.

    Args:
        listen: Local address to listen on; port 0 takes a free one.
        serve: Called in a thread of its own for each accepted connection; owns the socket if it returns.

    Attributes:
        last_error: Why the newest connection failed that did; ``None`` if none has.
    """

    def __init__(self, listen: tuple[str, int], serve: Callable[[socket.socket], None]) -> None:
        self._listen = listen
        self._serve = serve
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.last_error: EmissaryError | None = None

    def __enter__(self) -> tuple[str, int]:
        """Listen; gives the address.

        Raises:
            OSError: The address is in use, or not of this machine: at once.
        """
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._thread = threading.Thread(
            target=self._accept, args=(self._listener,), name="emissary-forward", daemon=True
        )
        self._thread.start()
        address = self._listener.getsockname()
        return str(address[0]), int(address[1])

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; connections that were accepted live on until they are closed."""
        self.close()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._listener is None or self._thread is None:
            return
        self._closing.set()
        # Unlike a close, this wakes the thread that waits in accept.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # systems that refuse it on a listener wake the thread by the close
            self._listener.close()
        self._thread.join()
        self._listener.close()
        self._listener = self._thread = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _address = listener.accept()
            except OSError as exc:
                if self._closing.is_set():
                    return
                logger.warning("a connection could not be accepted: %s", exc)
                self._closing.wait(_PAUSE)
                continue
            thread = threading.Thread(
                target=self._serve_one, args=(sock,), name="emissary-forwarded", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as exc:  # no thread is left
                logger.warning("a forwarded connection failed: %s", exc)
                reset(sock)

    def _serve_one(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(sock)
        except EmissaryError as exc:
            self.last_error = exc
            logger.warning("a forwarded connection failed: %s", exc)
            reset(sock)
        except OSError as exc:  # it is gone already, or no descriptor is left
            logger.warning("a forwarded connection failed: %s", exc)
            reset(sock)
        except BaseException:
            reset(sock)  # closing it by chance, much later, would look like an end of file
            raise
