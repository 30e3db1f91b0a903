"""Dials for asyncio: a thread waits for the tunnel, and the running loop gets its socket."""

from __future__ import annotations

import asyncio
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

from emissary_lib.client.socket import SessionInfo, TunnelSocket
from emissary_lib.exceptions import ConfigError, local_resource_error
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.system import reset_on_close
from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from emissary_lib.tunnel.loopback import reset

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)

#: Opens a tunnel; blocks until the deadline at most.
DialSocket = Callable[[Deadline], TunnelSocket]

#: By both addresses of the tunnel's socket: of what every loop and every transport tells, TLS or not, these
#: alone are the socket's own as long as it is open.
_sessions: Final[weakref.WeakValueDictionary[tuple[object, object], SessionInfo]] = (
    weakref.WeakValueDictionary()
)


def tls_arguments(
    context: ssl.SSLContext | bool | None, server_hostname: str | None, target: Target
) -> dict[str, Any]:
    """What a loop's ``create_connection`` takes for TLS to ``target``; checked, because it does so too late.

    Raises:
        ConfigError: They are none, or say nothing without each other.
    """
    if not (context is None or isinstance(context, ssl.SSLContext | bool)):
        raise ConfigError(f"ssl={context!r} is no context: give an ssl.SSLContext, True or None")
    if not (server_hostname is None or isinstance(server_hostname, str)):
        raise ConfigError(f"server_hostname={server_hostname!r} is no name")
    if not context:
        if server_hostname is not None:
            raise ConfigError("server_hostname says nothing without ssl: give both, or neither")
        return {}
    return {
        "ssl": context,
        "server_hostname": target.host if server_hostname is None else server_hostname,
    }


async def open_connection(
    dial: DialSocket, timeout: float | None, limit: int, tls: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over a new tunnel, as of :func:`asyncio.open_connection`."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)  # before the dial: it may refuse the limit
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await create_connection(dial, timeout, lambda: protocol, tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_connection(
    dial: DialSocket,
    timeout: float | None,
    protocol_factory: Callable[[], _Protocol],
    tls: dict[str, Any],
) -> tuple[asyncio.Transport, _Protocol]:
    """Transport and protocol over a new tunnel, as of the loop's ``create_connection``."""
    loop = asyncio.get_running_loop()
    sock = await _dial(dial, timeout)
    try:
        protocol = protocol_factory()  # the loop would leave the socket open if it raised
    except BaseException:
        reset(sock)
        raise
    try:
        return await loop.create_connection(lambda: protocol, sock=sock, **tls)
    except asyncio.CancelledError:
        reset_on_close(sock)  # as before it was open; its transport is about to close it
        raise


def session_of(connection: asyncio.BaseTransport | asyncio.StreamWriter) -> SessionInfo:
    """What is known of the tunnel below a transport or a writer.

    Raises:
        ConfigError: It is none of a tunnel's.
    """
    addresses = connection.get_extra_info("sockname"), connection.get_extra_info("peername")
    try:
        return _sessions[addresses]
    except (KeyError, TypeError):
        raise ConfigError(f"{connection!r} is not over a tunnel of a dialer's") from None


async def _dial(dial: DialSocket, timeout: float | None) -> TunnelSocket:
    sock = await _Dialling(dial, timeout).result()
    assert sock.session
    _sessions[sock.getsockname(), sock.getpeername()] = sock.session
    return sock


class _Dialling:
    """A dial in a thread of its own: the loop's executor has few, and others' work would wait for them.

    Whatever comes of it is nobody's until :meth:`result` takes it; a future that holds it would lose it when
    the task is cancelled, or the loop closed, between its result and its waiter.

    Args:
        dial: What to do.
        timeout: Seconds for it; ``None`` for no limit.
    """

    def __init__(self, dial: DialSocket, timeout: float | None) -> None:
        self._dial = dial
        self._deadline = AbortableDeadline(timeout)
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._lock = threading.Lock()
        self._outcome: list[TunnelSocket | BaseException] = []
        self._given_up = False

    async def result(self) -> TunnelSocket:
        """The tunnel's socket; raises what the dial raises. To cancel it gives the dial up, for good."""
        try:
            threading.Thread(target=self._run, name="emissary-dial", daemon=True).start()
        except RuntimeError as exc:  # no thread is left
            raise local_resource_error(exc) from exc
        try:
            await self._ended
        except BaseException:  # GeneratorExit too: the loop is gone
            self._give_up()
            raise
        with self._lock:
            outcome = self._outcome.pop()
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        finally:
            del outcome  # its traceback leads to this frame

    def _run(self) -> None:
        try:
            self._outcome.append(self._dial(self._deadline))
        except BaseException as exc:
            self._outcome.append(exc)
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop was closed
            self._give_up()
        if self._given_up:
            self._give_up()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _give_up(self) -> None:
        self._given_up = True
        self._deadline.abort()
        with self._lock:
            outcome = self._outcome.pop() if self._outcome else None
        if isinstance(outcome, TunnelSocket):
            reset(outcome)
