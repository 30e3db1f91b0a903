"""A local address that leads to a target: for drivers and tools that take no socket."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol

from emissary_lib.client import drain
from emissary_lib.client.hang_up import ConnectedDeadline
from emissary_lib.client.listening import BACKLOG, Listener, LocalAddress, listen
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import NOTHING_LEFT, EmissaryError, TunnelResetError, local_resource_error
from emissary_lib.transport.forked import keep_from_children
from emissary_lib.tunnel.loopback import reset, tune
from emissary_lib.tunnel.wakeup import Wakeup

#: No handler of ours: to whom the application has said nothing of logging, Python prints warnings.
logger = logging.getLogger("emissary_lib.forward")

#: Seconds before another try when a connection could not be accepted: no descriptor, no memory.
_PAUSE: Final = 0.1


class _Listening(Protocol):
    @property
    def address(self) -> tuple[str, int]: ...
    @property
    def path(self) -> str | None: ...


class ForwardedAddress(tuple[str, int]):
    """Host and port that a :class:`Forward` listens on; a plain pair to whoever asks no more of it.

    Of a Unix socket they are what libpq takes for host and port, where the file has the name that it looks
    for; else the path and 0.

    Attributes:
        forward: What listens.
        path: The Unix socket's; ``None`` of a port.
        every: All addresses that it listens on: two of ``localhost``.
    """

    forward: Forward
    path: str | None
    every: tuple[tuple[str, int], ...]

    def __new__(cls, forward: Forward, listeners: Sequence[_Listening]) -> ForwardedAddress:
        """The pair, with what listens there."""
        made = super().__new__(cls, listeners[0].address)
        made.forward = forward
        made.path = listeners[0].path
        made.every = tuple(listener.address for listener in listeners)
        return made

    @property
    def last_error(self) -> EmissaryError | None:
        """As :attr:`Forward.last_error`."""
        return self.forward.last_error


class Happening(enum.Enum):
    """What becomes of a forwarded connection; the last three are an end of it."""

    OPENED = "opened"
    GOING_AWAY = "going_away"
    FAILED = "failed"
    CLOSED = "closed"
    GIVEN_UP = "given_up"

    @property
    def ends(self) -> bool:
        """Whether nothing more happens to the connection."""
        return self in (Happening.FAILED, Happening.CLOSED, Happening.GIVEN_UP)


class Forwarded:
    """One connection that was accepted.

    Args:
        connection: What waits for its bytes at the end.
        deadline: Of its dial; passes when the program hangs up.
        on_happening: As of :class:`Forward`.

    Attributes:
        session: What is known of its session, once it is dialled.
        error: Why it failed, if it did.
    """

    def __init__(
        self,
        connection: drain.Connection,
        deadline: ConnectedDeadline,
        on_happening: Callable[[Happening, Forwarded], None],
    ) -> None:
        self.connection = connection
        self.deadline = deadline
        self.session: SessionInfo | None = None
        self.error: Exception | None = None
        self._on_happening = on_happening

    def opened(self, session: SessionInfo, tunnel: drain.Drainable) -> None:
        """It is dialled; for whoever serves it to call."""
        self.connection.carry(tunnel)
        self.session = session
        self.tell(Happening.OPENED)
        session.watch(lambda: self.tell(Happening.GOING_AWAY))

    def tell(self, happening: Happening) -> None:
        """Tell whoever watches."""
        self._on_happening(happening, self)


class Forward:
    """Accepts any number of connections at once and hands each to ``serve``; a context manager.

    A connection whose dial fails, or whose tunnel is cut off, is reset, and the cause is logged (logger
    ``emissary_lib.forward``) and kept in :attr:`last_error`; the others, and the listener, go on. A Unix
    socket has no resets: who has read all that was sent before meets an end of file.

    A program that hangs up while its connection is dialled has the dial given up, unless it wrote something
    and closed in good order.

    Where no descriptor is left for a connection, it is reset as well, not left to wait; the listener has one
    in reserve for that.

    Args:
        where: As of :func:`.listening.listen`.
        serve: Called in a thread of its own for each accepted connection; owns the socket if it returns.
        target: Where it leads, for messages.
        target_port: Its port, which names a Unix socket in a directory.
        owner: Whose connections they are, beside the forward's own.
        timeout: Seconds that ``serve`` may take for the dial; ``None`` for no limit.

    Attributes:
        accepted: How many connections were accepted.
        gives_up_at_end: Whether an end of the stream is reason enough to give a dial up; else a reset alone
            is, and whoever only looks whether the port is open is told whether the target can be reached.
        last_error: Why the newest connection failed that did; ``None`` if none has.
        on_failure: Told of each failure, once it was logged and before the connection counts as over.
        on_happening: Told of each :class:`Happening`; from any thread, several at once. Must not raise.
    """

    def __init__(
        self,
        where: LocalAddress,
        serve: Callable[[socket.socket, Forwarded], None],
        *,
        target: str = "",
        target_port: int = 0,
        owner: object = None,
        timeout: float | None = None,
    ) -> None:
        self._where = where
        self._serve = serve
        self._target = target
        self._target_port = target_port
        self._owner = owner
        self._timeout = timeout
        self._listeners: list[Listener] = []
        self._thread: threading.Thread | None = None
        self._stopping = threading.Lock()
        self._closing = threading.Event()
        self._wakeup: Wakeup | None = None
        self._reserve: socket.socket | None = None
        self._ailing = False  # the newest attempt to accept failed, which was said
        self._process = 0
        self.accepted = 0
        self.last_error: EmissaryError | None = None
        self.gives_up_at_end = True
        self.on_failure: Callable[[Exception], None] = lambda error: None
        self.on_happening: Callable[[Happening, Forwarded], None] = lambda happening, connection: None

    def __enter__(self) -> ForwardedAddress:
        """Listen; gives the address.

        Raises:
            OSError: The address is in use, or not of this machine; a Unix socket's path is too long, or what
                is there is no socket of a dead process. At once, and nothing is left behind.
            LocalResourceError: This machine has no descriptor or thread left for it; an OSError.
        """
        listeners: list[Listener] = []
        with contextlib.ExitStack() as undo:
            try:
                listeners = listen(self._where, self._target_port)
                for listener in listeners:
                    undo.callback(listener.close)
                    keep_from_children(listener.sock)
                self._process = os.getpid()
                self._closing.clear()
                self._wakeup = Wakeup()
                undo.callback(self._wakeup.close)
                selector = undo.enter_context(selectors.DefaultSelector())
                for listener in listeners:
                    selector.register(listener.sock, selectors.EVENT_READ)
                selector.register(self._wakeup, selectors.EVENT_READ)
                undo.callback(self._use_reserve)
                self._reserve = socket.socket()
                keep_from_children(self._reserve)
                self._thread = threading.Thread(
                    target=self._accept, args=(listeners, selector), name="emissary-forward", daemon=True
                )
                self._thread.start()
            except BaseException as exc:
                self._thread = self._wakeup = None
                if isinstance(exc, RuntimeError):  # no thread is left
                    raise local_resource_error(exc) from exc
                if isinstance(exc, OSError) and exc.errno in NOTHING_LEFT:
                    raise local_resource_error(exc) from exc
                raise
            undo.pop_all()
        self._listeners = listeners
        drain.add_listener(self.stop, self._owner)
        return ForwardedAddress(self, listeners)

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
            if not self._listeners or self._thread is None or self._wakeup is None:
                return
            for listener in self._listeners:
                listener.unlink()
            self._closing.set()
            self._wakeup.wake()
            self._thread.join()
            for listener in self._listeners:
                listener.close()
            self._wakeup.close()
            self._use_reserve()
            self._listeners = []
            self._thread = self._wakeup = None
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

    def _accept(self, listeners: list[Listener], selector: selectors.BaseSelector) -> None:
        with selector:
            while True:
                ready = {key.fileobj for key, _events in selector.select()}
                last = self._closing.is_set()  # whoever has connected by now is accepted below
                for listener in listeners:
                    if last or listener.sock in ready:
                        self._accept_all(listener.sock, somebody_waits=listener.sock in ready)
                if last:
                    return

    def _accept_all(self, listener: socket.socket, *, somebody_waits: bool) -> None:
        for _ in range(BACKLOG + 1):
            try:
                sock, refused = self._accept_one(listener)
            except BlockingIOError:
                return
            except OSError as exc:
                if not somebody_waits:  # without a descriptor, that is said whether anybody does or not
                    return
                if not self._ailing:
                    problem = local_resource_error(exc) if exc.errno in NOTHING_LEFT else exc
                    self._failed("a connection could not be accepted: %s", problem)
                self._ailing = True
                self._closing.wait(_PAUSE)
                return
            self._ailing = somebody_waits = False
            keep_from_children(sock)
            self._start(sock, refused)
            self._keep_in_reserve()

    def _accept_one(self, listener: socket.socket) -> tuple[socket.socket, Exception | None]:
        """Accept; if there is no descriptor, with the one in reserve: the error is what to refuse it with."""
        try:
            return listener.accept()[0], None
        except OSError as exc:
            if exc.errno not in NOTHING_LEFT or self._reserve is None:
                raise
            error = local_resource_error(exc)
        self._use_reserve()
        try:
            return listener.accept()[0], error
        finally:
            self._keep_in_reserve()

    def _keep_in_reserve(self) -> None:
        """Keep a descriptor, if there is none yet, and one to be had."""
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = socket.socket()
                keep_from_children(self._reserve)

    def _use_reserve(self) -> None:
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.close()

    def _start(self, sock: socket.socket, refused: Exception | None = None) -> None:
        sock.setblocking(False)
        owners = (self, self._owner)
        connection = drain.begin(self._target, owners, timeout=self._timeout)
        self.accepted += 1
        deadline = ConnectedDeadline(self._timeout, sock, at_end=self.gives_up_at_end)
        accepted = Forwarded(connection, deadline, self.on_happening)
        thread = threading.Thread(
            target=self._serve_one, args=(sock, accepted), name="emissary-forwarded", daemon=True
        )
        try:
            if refused is None:
                thread.start()
        except RuntimeError as exc:  # no thread is left
            refused = local_resource_error(exc)
        if refused is not None:
            self._connection_failed(accepted, refused)
            reset(sock)
            drain.end(connection)

    def _serve_one(self, sock: socket.socket, accepted: Forwarded) -> None:
        try:
            tune(sock)
            self._serve(sock, accepted)
            accepted.tell(Happening.CLOSED)
        except TunnelResetError as exc:
            self._connection_failed(accepted, exc, logging.INFO if exc.whole else logging.WARNING)
            self._let_go(sock, accepted, exc)
        except (EmissaryError, OSError, RuntimeError) as exc:
            # Also: it is gone already; no descriptor, or no thread, is left.
            if not isinstance(exc, EmissaryError) and getattr(exc, "errno", None) in NOTHING_LEFT:
                exc = local_resource_error(exc)
            if accepted.deadline.hung_up and accepted.session is None:
                target = accepted.connection.target
                logger.info("a connection to %s was given up: the program has hung up", target)
                accepted.tell(Happening.GIVEN_UP)
            else:
                self._connection_failed(accepted, exc)
            self._let_go(sock, accepted, exc)
        except BaseException:
            accepted.tell(Happening.FAILED)
            reset(sock)  # closing it by chance, much later, would look like an end of file
            raise
        finally:
            drain.end(accepted.connection)

    def _let_go(self, sock: socket.socket, accepted: Forwarded, error: Exception) -> None:
        """Close the socket of a connection that failed; that was logged."""
        reset(sock)

    def _connection_failed(self, accepted: Forwarded, error: Exception, level: int = logging.WARNING) -> None:
        accepted.error = error
        self._failed("a forwarded connection failed: %s", error, level)
        accepted.tell(Happening.FAILED)

    def _failed(self, text: str, error: Exception, level: int = logging.WARNING) -> None:
        if isinstance(error, EmissaryError):
            self.last_error = error
        logger.log(level, text, error)
        self.on_failure(error)
