"""Connects to the targets that a shared session asks for, each in a thread of its own, and logs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.limits import MAX_CONNECTIONS
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from emissary_lib.tunnel.shared_relay import RequestedConnection
from functions.common import logs
from functions.relay.connector import Connected

#: Attempts to connect at once, those included that nobody wants any more but that a name server holds up.
MAX_ATTEMPTS: Final = 2 * MAX_CONNECTIONS


class Requests:
    """The requests of one shared session.

    Args:
        session: Its id, for the log.
        key_id: The key that opened it, for the log; ``None`` if the bridge did not say.
        connect: Connects to a target within the deadline, which passes early if nobody wants it any more.
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
        with self._lock:
            room = len(self._attempts) < MAX_ATTEMPTS
            if room:
                self._attempts.add(thread)
        try:
            if room:
                thread.start()
                return
        except RuntimeError:  # no thread is left
            self._forget(thread)
        connection.decline()

    def join(self, timeout: float) -> None:
        """Wait for attempts that are under way: nothing may be left to a frozen environment."""
        patience = Deadline(timeout)
        with self._lock:
            threads = list(self._attempts)
        for thread in threads:
            thread.join(patience.remaining())

    def _attempt(self, connection: RequestedConnection, deadline: AbortableDeadline) -> None:
        began = time.monotonic()
        try:
            connected = self._connect(connection.target, deadline)
        except Exception as exc:  # else the dialer would wait for an answer that never comes
            logs.error("connecting to the target failed", exc)
            connected = Connected(Code.TARGET_FAILED)
        self._answer(connection, connected, began)
        self._forget(threading.current_thread())

    def _answer(self, connection: RequestedConnection, connected: Connected, began: float) -> None:
        outcome = connected.code.name
        if connected.sock is None:
            connection.refuse(connected.code)
        else:
            connection.watch_over(lambda: self._record(connection, began))
            if not connection.accept(connected.sock):
                outcome = "GIVEN_UP"
        logs.info(
            "connected" if outcome == Code.OK.name else "not connected",
            session=self._session,
            key_id=self._key_id,
            target=str(connection.target),
            code=outcome,
            seconds=round(time.monotonic() - began, 3),
        )

    def _record(self, connection: RequestedConnection, began: float) -> None:
        if not connection.opened:
            return
        logs.info(
            "connection ended",
            session=self._session,
            key_id=self._key_id,
            target=str(connection.target),
            code=connection.code.name,
            seconds=round(time.monotonic() - began, 3),
            dialer_bytes=connection.received,
            relay_bytes=connection.sent,
        )

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._attempts.discard(thread)
