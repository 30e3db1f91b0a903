"""A transport whose WebSocket can be replaced (docs/protocol.md section 5.2)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from emissary_lib.exceptions import GatewayRefusedError, LinkClosedError, LinkRefusedError
from emissary_lib.protocol.codes import Code
from emissary_lib.transport.backoff import may_be_the_gateways, may_pass
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import AbortableDeadline, Deadline

_UNAUTHENTICATED: Final = (401, 403)


class ReconnectingTransport:
    """A :class:`MessageTransport` over the newest of several connections.

    Args:
        transport: The first connection.
        connect: Opens the next one, given its epoch and a deadline; raises what ``websocket.connect`` does,
            or LinkRefusedError where it knows what is wrong with the credentials.

    Thread safety: :meth:`reconnect` and :meth:`recv` are for one thread; the others for any.
    """

    def __init__(
        self, transport: MessageTransport, connect: Callable[[int, Deadline], MessageTransport]
    ) -> None:
        self._current = transport
        self._connect = connect
        self._lock = threading.Lock()
        self._closed = False
        self._attempt: AbortableDeadline | None = None  # under way

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        """Replace the connection. :meth:`close` ends an attempt that is under way at once.

        Raises:
            LinkClosedError: It was closed before.
            LinkRefusedError: The bridge will not have us back: definite, if it is certain. Its code is
                AUTHENTICATION_FAILED if that is for our credentials (401, 403), else UNKNOWN_SESSION.
            GatewayRefusedError: The gateway is throttled or broken; try again.
            GatewayUnreachableError: No answer; try again.
            TimeoutError: The deadline passed.
        """
        try:
            fresh = self._connect(epoch, self._begin_attempt(deadline))
        except GatewayRefusedError as exc:
            if may_pass(exc.http_status):
                raise
            code = Code.AUTHENTICATION_FAILED if exc.http_status in _UNAUTHENTICATED else Code.UNKNOWN_SESSION
            certain = not may_be_the_gateways(exc.http_status)
            raise LinkRefusedError(f"the session is over: {exc}", code=code, certain=certain) from exc
        finally:
            with self._lock:
                self._attempt = None
        with self._lock:
            old, self._current = self._current, fresh
            closed = self._closed
        old.abort()
        old.release()
        if closed:
            fresh.close()

    def _begin_attempt(self, deadline: Deadline) -> AbortableDeadline:
        attempt = AbortableDeadline(deadline.remaining())
        with self._lock:
            if self._closed:
                raise LinkClosedError("closed on this side")
            self._attempt = attempt
        return attempt

    def send(self, message: bytes, timeout: float | None = None) -> None:
        """Send over the newest connection; until a reconnection has succeeded, that is the old one."""
        self._current.send(message, timeout)

    def recv(self, timeout: float | None) -> bytes:
        """The next message of the newest connection."""
        return self._current.recv(timeout)

    def close(self) -> None:
        """Say goodbye, for good: :meth:`reconnect` fails from now on, also one that is under way."""
        with self._lock:
            self._closed = True
            current, attempt = self._current, self._attempt
        if attempt is not None:
            attempt.abort()
        current.close()

    def abort(self) -> None:
        """End the newest connection; it may be replaced."""
        self._current.abort()

    def release(self) -> None:
        """Give back the newest connection; those before it were given back when they were replaced."""
        self._current.release()
