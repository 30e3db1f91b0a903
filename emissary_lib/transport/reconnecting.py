"""A transport whose WebSocket can be replaced (docs/protocol.md section 5.2)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from emissary_lib.deadline import Deadline
from emissary_lib.exceptions import GatewayRefusedError, LinkRefusedError
from emissary_lib.transport.base import MessageTransport

_THROTTLED: Final = 429
_SERVER_ERRORS: Final = 500


class ReconnectingTransport:
    """A :class:`MessageTransport` over the newest of several connections.

    Args:
        transport: The first connection.
        connect: Opens the next one, given its epoch and a deadline; raises what ``websocket.connect`` does.

    Thread safety: :meth:`reconnect` and :meth:`recv` are for one thread; the others for any.
    """

    def __init__(
        self, transport: MessageTransport, connect: Callable[[int, Deadline], MessageTransport]
    ) -> None:
        self._current = transport
        self._connect = connect
        self._lock = threading.Lock()
        self._closed = False

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        """Replace the connection.

        Raises:
            LinkRefusedError: The bridge will not have us back: definite.
            GatewayRefusedError: The gateway is throttled or broken; try again.
            GatewayUnreachableError: No answer; try again.
            TimeoutError: The deadline passed.
        """
        try:
            fresh = self._connect(epoch, deadline)
        except GatewayRefusedError as exc:
            if exc.http_status == _THROTTLED or exc.http_status >= _SERVER_ERRORS:
                raise
            raise LinkRefusedError(f"the session is over: {exc}") from exc
        with self._lock:
            old, self._current = self._current, fresh
            closed = self._closed
        old.abort()
        old.release()
        if closed:
            fresh.close()

    def send(self, text: str) -> None:
        self._current.send(text)

    def recv(self, timeout: float | None) -> str:
        return self._current.recv(timeout)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            current = self._current
        current.close()

    def abort(self) -> None:
        self._current.abort()

    def release(self) -> None:
        self._current.release()
