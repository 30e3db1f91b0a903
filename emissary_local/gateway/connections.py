"""The open connections of a gateway: who they are, how they are found, how long they live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from emissary_local.billing.meter import Way
from emissary_local.faults import FaultRng, Hop
from emissary_local.gateway.client_role import ClientRole
from emissary_local.gateway.events import Client, EventWriter
from emissary_local.limits import Limits
from emissary_local.net.wsserver import GOING_AWAY, ClientSocket


class Lifetime:
    """Ends a connection at its idle limit or at the end of its life, whichever comes first.

    Args:
        limits: ``idle`` and ``life``, in seconds.
        expire: Called once, from the event loop.

    Thread safety: none; make and use it on one running event loop.
    """

    def __init__(self, limits: Limits, expire: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = limits.idle
        self._expire = expire
        self._heard = self._loop.time()
        self._end = self._loop.call_later(limits.life, self._end_now)
        self._check = self._loop.call_later(self._idle, self._look)

    def touch(self) -> None:
        """A data message passed. Costs one clock reading: the timer is not moved until it fires."""
        self._heard = self._loop.time()

    def cancel(self) -> None:
        """The connection is gone; ``expire`` is not called any more."""
        self._end.cancel()
        self._check.cancel()

    def _look(self) -> None:
        left = self._heard + self._idle - self._loop.time()
        if left > 0:
            self._check = self._loop.call_later(left, self._look)
        else:
            self._end_now()

    def _end_now(self) -> None:
        self.cancel()
        self._expire()


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket connection, from before its ``$connect`` until its end.

    Attributes:
        socket: Its server end.
        client: Its id and what its events have in common.
        events: Writes its events.
        inbound: The hop of its messages to the function.
        outbound: The hop of posts to it.
        rng: Faults of the gateway's own steps.
        post_rng: Faults of calls of ``@connections`` about it.
        role: Who connected.
        way: What is between them and the gateway.
        last_active: When a data message last passed, seconds since 1970.
        lifetime: Its limits' timers, once open.
    """

    socket: ClientSocket
    client: Client
    events: EventWriter
    inbound: Hop
    outbound: Hop
    rng: FaultRng
    post_rng: FaultRng
    role: ClientRole
    way: Way
    last_active: float = field(default_factory=time.time)
    lifetime: Lifetime | None = None

    def touch(self) -> None:
        """A data message passed, either way."""
        self.last_active = time.time()
        if self.lifetime is not None:
            self.lifetime.touch()


class Connections:
    """The open connections by id and by socket. Unknown, not yet open and closed ones are the same: absent.

    Args:
        limits: How long they live.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_id: dict[str, Connection] = {}
        self._by_socket: dict[ClientSocket, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, connection: Connection) -> None:
        """The connection's ``$connect`` has accepted it: from now on it is found, and its time runs."""
        self._by_id[connection.client.connection_id] = connection
        self._by_socket[connection.socket] = connection
        connection.lifetime = Lifetime(
            self._limits, lambda: connection.socket.close(GOING_AWAY, "Going away")
        )

    def get(self, connection_id: str) -> Connection | None:
        """The open connection with this id."""
        return self._by_id.get(connection_id)

    def of(self, socket: ClientSocket) -> Connection | None:
        """The open connection on this socket."""
        return self._by_socket.get(socket)

    def remove(self, connection: Connection) -> None:
        """The connection has ended; posts to it answer 410 from now on."""
        self._by_id.pop(connection.client.connection_id, None)
        self._by_socket.pop(connection.socket, None)
        if connection.lifetime is not None:
            connection.lifetime.cancel()
