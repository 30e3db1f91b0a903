"""Connects to the targets that a shared session asks for, each in a thread of its own, and tells of them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.limits import MAX_CONNECTIONS
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from emissary_lib.tunnel.loopback import reset, tcp_pair
from emissary_lib.tunnel.shared_relay import RequestedConnection
from functions.common import logs, metrics
from functions.common.metrics import Metric
from functions.relay.connecting import outcome_of
from functions.relay.connector import Connected

#: Attempts to connect at once, those included that nobody wants any more but that a name server holds up.
MAX_ATTEMPTS: Final = 2 * MAX_CONNECTIONS

#: What is logged as the outcome of a request that the dialer gave up, or that nothing was done for.
_GIVEN_UP: Final = "GIVEN_UP"
_DECLINED: Final = "DECLINED"


class Requests:
    """The requests of one shared session.

    Args:
        session: Its id, for the log.
        key_id: The key that opened it, for the log; ``None`` if the bridge did not say.
        connect: Connects to a target that the allow-list admits, within the deadline, which passes early if
            nobody wants the connection any more.
        timeout: Seconds for each attempt.

    Thread safety: any.
    """

    def __init__(
        self,
        session: str,
        key_id: int | None,
        connect: Callable[[Target, Deadline], Connected],
        timeout: float,
    ) -> None:
        self._session = session
        self._key_id = key_id
        self._connect = connect
        self._timeout = timeout
        self._lock = threading.Lock()
        self._attempts: set[threading.Thread] = set()

    def serve(self, connection: RequestedConnection) -> None:
        """A request came: connect, and answer it. Does not block."""
        deadline = AbortableDeadline(self._timeout)
        connection.watch_cut(deadline.abort)
        thread = threading.Thread(
            target=self._attempt, args=(connection, deadline), name="emissary-connector", daemon=True
        )
        with self._lock, contextlib.suppress(RuntimeError):  # no thread is left
            if len(self._attempts) < MAX_ATTEMPTS:
                thread.start()  # it forgets itself under the lock, and so not before it is known
                self._attempts.add(thread)
                return
        connection.decline()
        self._log("not connected", connection, _DECLINED, began=time.time())

    def join(self, timeout: float) -> None:
        """Wait for attempts that are under way: nothing may be left to a frozen environment.

        Blocking: until then, at most for ``timeout`` seconds.
        """
        patience = Deadline(timeout)
        with self._lock:
            threads = list(self._attempts)
        for thread in threads:
            thread.join(patience.remaining())

    def _attempt(self, connection: RequestedConnection, deadline: AbortableDeadline) -> None:
        began = time.time()
        try:
            connected = outcome_of(lambda: self._connect(connection.target, deadline), session=self._session)
            self._answer(connection, connected, began)
        finally:
            self._forget(threading.current_thread())

    def _answer(self, connection: RequestedConnection, connected: Connected, began: float) -> None:
        sock = _reset_connection() if connected.code is Code.TARGET_RESET else connected.sock
        if sock is None:
            outcome = connected.code.name if connection.refuse(connected.code) else _GIVEN_UP
        elif connection.accept(sock):
            self._log("connected", connection, Code.OK.name, began=began)
            took = max(0.0, time.time() - began)
            metrics.put({Metric.CONNECTION_OPENED: 1, Metric.CONNECTION_MILLISECONDS: took * 1000})
            connection.watch_over(lambda: self._record(connection, began))
            return
        else:
            outcome = _GIVEN_UP
        self._log("not connected", connection, outcome, began=began)
        metrics.count(Metric.CONNECTION_FAILED)

    def _record(self, connection: RequestedConnection, began: float) -> None:
        """The record of a connection that is over (docs/protocol.md 11.7-1)."""
        self._log(
            "connection ended",
            connection,
            connection.code.name,
            began=began,
            started=began,
            ended=time.time(),
            dialer_bytes=connection.received,
            relay_bytes=connection.sent,
        )
        if connection.code is not Code.OK:
            metrics.count(Metric.CONNECTION_FAILED)

    def _log(
        self, text: str, connection: RequestedConnection, code: str, *, began: float, **fields: float
    ) -> None:
        logs.info(
            text,
            session=self._session,
            key_id=self._key_id,
            target=str(connection.target),
            code=code,
            duration_s=round(max(0.0, time.time() - began), 3),
            **fields,
        )

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._attempts.discard(thread)


def _reset_connection() -> socket.socket:
    """Stands in for one that the target has accepted, and reset before anybody looked.

    No answer to a request has a code for that (docs/protocol.md 11.3-4): it is opened, and then cut off.
    """
    near, far = tcp_pair()
    reset(far)
    return near
