"""A local TCP port that leads to a target: for drivers and tools that take no socket."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from emissary_lib.client import drain
from emissary_lib.exceptions import EmissaryError, TunnelResetError, local_resource_error
from emissary_lib.transport.forked import keep_from_children
from emissary_lib.tunnel.loopback import reset, tune
from emissary_lib.tunnel.wakeup import Wakeup

#: No handler of ours: to whom the application has said nothing of logging, Python prints warnings.
logger = logging.getLogger("emissary_lib.forward")

#: Seconds before another try when a connection could not be accepted: no descriptor, no memory.
_PAUSE: Final = 0.1

#: Connections that may wait to be accepted.
_BACKLOG: Final = 128


class ForwardedAddress(tuple[str, int]):
    """Host and port that a :class:`Forward` listens on; a plain pair to whoever asks no more of it."""

    forward: Forward

    def __new__(cls, host: str, port: int, forward: Forward) -> ForwardedAddress:
        """The pair, with what listens there."""
        made = super().__new__(cls, (host, port))
        made.forward = forward
        return made

    @property
    def last_error(self) -> EmissaryError | None:
        """As :attr:`Forward.last_error`."""
        return self.forward.last_error


class Forward:
    """Accepts any number of connections at once and hands each to ``serve``; a context manager.

    A connection whose dial fails, or whose tunnel is cut off, is reset, and the cause is logged (logger
    ``emissary_lib.forward``) and kept in :attr:`last_error`; the others, and the listener, go on.

    Args:
        listen: Local address to listen on; port 0 takes a free one.
        serve: Called in a thread of its own for each accepted connection; owns the socket if it returns.
        target: Where it leads, for messages.
        owner: Whose connections they are, beside the forward's own.
        timeout: Seconds that ``serve`` may take for the dial; ``None`` for no limit.

    Attributes:
        accepted: How many connections were accepted.
        last_error: Why the newest connection failed that did; ``None`` if none has.
        on_failure: Told of each failure, once it was logged and before the connection counts as over.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        serve: Callable[[socket.socket, drain.Connection], None],
        *,
        target: str = "",
        owner: object = None,
        timeout: float | None = None,
    ) -> None:
        self._listen = listen
        self._serve = serve
        self._target = target
        self._owner = owner
        self._timeout = timeout
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Lock()
        self._closing = threading.Event()
        self._wakeup: Wakeup | None = None
        self._process = 0
        self.accepted = 0
        self.last_error: EmissaryError | None = None
        self.on_failure: Callable[[Exception], None] = lambda error: None

    def __enter__(self) -> ForwardedAddress:
        """Listen; gives the address.

        Raises:
            OSError: The address is in use, or not of this machine: at once.
            LocalResourceError: This machine has no thread left for it; an OSError.
        """
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        keep_from_children(self._listener)
        self._process = os.getpid()
        self._closing.clear()
        self._wakeup = Wakeup()
        self._thread = threading.Thread(
            target=self._accept, args=(self._listener, self._wakeup), name="emissary-forward", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as exc:  # no thread is left
            self._listener.close()
            self._wakeup.close()
            self._listener = self._thread = self._wakeup = None
            raise local_resource_error(exc) from exc
        drain.add_listener(self.stop, self._owner)
        address = self._listener.getsockname()
        return ForwardedAddress(str(address[0]), int(address[1]), self)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Stop listening, and wait until what was written to the connections so far has arrived. Idempotent.

        Connections that are still open live on until they are closed.

        Blocking: for dials that are under way, at most for their timeout; then for as long as bytes move, and
        five seconds more. What has not arrived by then still may; whoever closes the dialer, or exits, is
        told if it has not.
        """
        self.stop()
        drain.wait_until_idle(self)

    def stop(self) -> None:
        """Stop listening; whoever has connected by now is still served. Idempotent.

        In a forked child it does nothing: the port is its parent's.

        Blocking: until they were accepted.
        """
        if self._process != os.getpid():
            return
        with self._stopping:
            if self._listener is None or self._thread is None or self._wakeup is None:
                return
            self._closing.set()
            self._wakeup.wake()
            self._thread.join()
            self._listener.close()
            self._wakeup.close()
            self._listener = self._thread = self._wakeup = None
            drain.discard_listener(self.stop)

    def finish(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Stop listening, and end every connection behind what was written to it; say what is lost.

        Args:
            stopped: Whether to wait no longer.

        Returns:
            Whether anything is lost.

        Blocking: as :meth:`close`.
        """
        self.stop()
        return drain.finish(self, stopped)

    def give_up_dialling(self) -> None:
        """Stop listening, wait no longer for dials that are under way, and say so."""
        self.stop()
        drain.give_up_dialling(self)

    def _accept(self, listener: socket.socket, wakeup: Wakeup) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wakeup, selectors.EVENT_READ)
            while True:
                selector.select()
                last = self._closing.is_set()  # whoever has connected by now is accepted below
                self._accept_all(listener)
                if last:
                    return

    def _accept_all(self, listener: socket.socket) -> None:
        for _ in range(_BACKLOG + 1):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                self._failed("a connection could not be accepted: %s", exc)
                self._closing.wait(_PAUSE)
                return
            keep_from_children(sock)
            self._start(sock)

    def _start(self, sock: socket.socket) -> None:
        self.accepted += 1
        owners = (self, self._owner)
        connection = drain.begin(self._target, owners, timeout=self._timeout)
        thread = threading.Thread(
            target=self._serve_one, args=(sock, connection), name="emissary-forwarded", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # no thread is left
            self._failed("a forwarded connection failed: %s", local_resource_error(exc))
            reset(sock)
            drain.end(connection)

    def _serve_one(self, sock: socket.socket, connection: drain.Connection) -> None:
        try:
            tune(sock)
            self._serve(sock, connection)
        except TunnelResetError as exc:
            level = logging.INFO if exc.whole else logging.WARNING
            self._failed("a forwarded connection failed: %s", exc, level)
            reset(sock)
        except (EmissaryError, OSError, RuntimeError) as exc:
            # Also: it is gone already; no descriptor, or no thread, is left.
            self._failed("a forwarded connection failed: %s", exc)
            reset(sock)
        except BaseException:
            reset(sock)  # closing it by chance, much later, would look like an end of file
            raise
        finally:
            drain.end(connection)

    def _failed(self, text: str, error: Exception, level: int = logging.WARNING) -> None:
        if isinstance(error, EmissaryError):
            self.last_error = error
        logger.log(level, text, error)
        self.on_failure(error)
