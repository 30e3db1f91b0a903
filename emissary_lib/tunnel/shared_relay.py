"""The relay's side of a shared session: is asked for connections, and answers with sockets to their targets.

A connection is told by ``on_request``, and answered by :meth:`RequestedConnection.accept`,
:meth:`~RequestedConnection.refuse` or :meth:`~RequestedConnection.decline`.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Final, Unpack

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux import events as mux_events
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.tunnel.carried import CarriedConnection
from emissary_lib.tunnel.driver import LOOK_TAKEN
from emissary_lib.tunnel.link import Link
from emissary_lib.tunnel.local_socket import LocalSocket
from emissary_lib.tunnel.session_driver import Options
from emissary_lib.tunnel.shared_driver import SharedDriver

#: Seconds after which the dialer is told of bytes that a target took, while the end of its stream waits for
#: it (docs/protocol.md 11.4-5).
_REPORT: Final = 0.5


class RequestedConnection(CarriedConnection):
    """One connection of a shared session's, asked for by the dialer.

    Thread safety: any. Nothing blocks for longer than a send.
    """

    def __init__(self, tunnel: RelayTunnel, stream: int, target: Target) -> None:
        super().__init__(stream, target)
        self._tunnel = tunnel
        # The tunnel's, guarded by its lock:
        self.report_at = math.inf  # when to tell the dialer how far the target has got
        self.reported = 0  # bytes that the target was given when the dialer was last told

    @property
    def due_at(self) -> float:
        """As of :class:`CarriedConnection`."""
        return min(super().due_at, self.report_at)

    def accept(self, sock: socket.socket) -> bool:
        """The target is connected to, by this socket, which is owned from here on.

        Returns:
            False if the dialer has given up meanwhile; the socket was closed.
        """
        return self._tunnel.accept(self, sock)

    def refuse(self, code: Code) -> bool:
        """The target was not reached; ``code`` is one that happens while dialling.

        Returns:
            False if the dialer has given up meanwhile.
        """
        return self._tunnel.refuse(self, code)

    def decline(self) -> None:
        """Nothing can be done for it here, and nothing was."""
        self._tunnel.decline(self)


class RelayTunnel(SharedDriver[RequestedConnection]):
    """One shared session of a relay's at work.

    Args:
        session: As of :class:`SessionDriver`.
        link: As of :class:`SessionDriver`.
        mux: Its connections; only the tunnel touches it from now on, under its lock.
        on_request: Told of each request, without the lock; it must not block.
        drain_at: From when on to take no more connections, on ``clock``.
        options: The others of :class:`SessionDriver`.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(
        self,
        session: Session,
        link: Link,
        mux: RelayMultiplexer,
        *,
        on_request: Callable[[RequestedConnection], None],
        drain_at: float = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(session, link, mux, **options)
        self._relay_mux = mux
        self._on_request = on_request
        self._drain_at = drain_at
        self._told = (0, 0, 0)

    # -- connections, from any thread -----------------------------------------------------------

    def accept(self, connection: RequestedConnection, sock: socket.socket) -> bool:
        """See :meth:`RequestedConnection.accept`."""

        def tie(now: float) -> None:
            if connection.closed:
                sock.close()
                return
            connection.opened = True
            self._relay_mux.accept(connection.stream)
            self._tie(connection, sock, now)

        self._apply(tie)
        return connection.opened

    def refuse(self, connection: RequestedConnection, code: Code) -> bool:
        """See :meth:`RequestedConnection.refuse`."""
        wanted: list[bool] = []

        def answer(now: float) -> None:
            if not connection.closed:
                self._relay_mux.refuse(connection.stream, code)
                connection.code = code
                wanted.append(True)
                self._close(connection, resets=True)

        self._apply(answer)
        return bool(wanted)

    def decline(self, connection: RequestedConnection) -> None:
        """See :meth:`RequestedConnection.decline`."""

        def answer(now: float) -> None:
            if not connection.closed:
                self._relay_mux.decline(connection.stream)
                self._close(connection, resets=True)

        self._apply(answer)

    # -- the driver -----------------------------------------------------------------------------

    def _on_mux_event(self, event: mux_events.Event, now: float) -> None:
        if isinstance(event, mux_events.Requested):
            requested = self._add(RequestedConnection(self, event.stream, event.target))
            self._calls.append(lambda: self._on_request(requested))

    def _deliver_to(self, connection: RequestedConnection, sock: LocalSocket, now: float) -> None:
        super()._deliver_to(connection, sock, now)
        waits = not connection.closed and self._relay_mux.end_waits(connection.stream)
        if waits and connection.received > connection.reported and connection.report_at == math.inf:
            connection.report_at = now + _REPORT

    def _on_handed_over(self, connection: RequestedConnection, sock: LocalSocket, now: float) -> None:
        """The end counts as taken once the target's kernel has all before it (docs/protocol.md 4.1-6)."""
        if not self._relay_mux.end_waits(connection.stream):
            return
        if sock.taken:
            connection.report_at = math.inf
            self._relay_mux.release_end(connection.stream)
            self._take_events(now)
        else:
            connection.look_at = now + LOOK_TAKEN

    def _look(self, connection: RequestedConnection, now: float) -> None:
        if now >= connection.report_at:
            connection.report_at, connection.reported = math.inf, connection.received
            self._relay_mux.report(connection.stream)
        super()._look(connection, now)

    def _on_clock(self, now: float) -> None:
        if now >= self._drain_at:
            self._drain_at = math.inf
            self._relay_mux.drain()

    def _due_at(self) -> float:
        return self._drain_at if self._session.alive else math.inf

    def _pump(self, now: float) -> bool:
        moved = super()._pump(now)
        opened = sum(each.opened for each in self._connections.values())
        counts = (self._relay_mux.opened, opened, self._relay_mux.refused)
        if counts != self._told:
            self._told = counts
            self._session.tell_connections(*counts, now)
        return moved
