"""Ends WebSocket connections on purpose, in the ways in which networks do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from emissary_local.errors import LocalCloudError
from emissary_local.faults import HOWS, SIDES, FaultEngine
from emissary_local.gateway.connections import Connection, Connections
from emissary_local.limits import Limits
from emissary_local.net.wsserver import GOING_AWAY, ClientSocket


class Disconnects:
    """Cuts open connections.

    Args:
        connections: The open ones.
        faults: Counts the cuts.
        limits: ``time_scale``, for the silent ones.

    Thread safety: none; use it on one event loop.
    """

    def __init__(self, connections: Connections, faults: FaultEngine, limits: Limits) -> None:
        self._connections = connections
        self._faults = faults
        self._limits = limits
        # A transport that is not read has nobody else to keep it from being collected, and so closed.
        self._silent: dict[ClientSocket, asyncio.TimerHandle] = {}

    def cut(self, side: str, how: str, which: str | int | None = None) -> int:
        """Cut connections now.

        Args:
            side: One of :data:`SIDES`. ``both`` takes a dialer's connection and its session's relay's.
            how: One of :data:`HOWS`.
            which: None: all of that side. A number: the one that was opened as the number-th of those still
                open, from 0, negative ones from the end; with ``both`` the dialers are counted. A text: the
                connection with this id, whatever its side (with ``both``: and the other end of its session).

        Returns:
            How many connections were cut.

        Raises:
            LocalCloudError: If there is no such side or way.
        """
        if side not in SIDES or how not in HOWS:
            raise LocalCloudError(
                f"cannot cut {side!r} by {how!r}; want one of {', '.join(SIDES)}, by one of {', '.join(HOWS)}"
            )
        chosen = list(self._chosen(side, which))
        for connection in chosen:
            self._end(connection, how)
        return len(chosen)

    def of_side(self, side: str) -> list[Connection]:
        """The open connections of ``dialer`` or ``relay`` that still speak, oldest first."""
        return [each for each in self._connections if each.role.side == side and not each.socket.is_silent]

    def close(self) -> None:
        """Give up waiting for silent connections to be noticed."""
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()

    def _chosen(self, side: str, which: str | int | None) -> Iterable[Connection]:
        if isinstance(which, str):
            found = self._connections.get(which)
            firsts = [found] if found is not None and not found.socket.is_silent else []
        else:
            firsts = self.of_side("relay" if side == "relay" else "dialer")
            if which is not None:
                firsts = firsts[which : which + 1 or None]
        if side != "both":
            return firsts
        if which is None:
            return [*firsts, *self.of_side("relay")]
        return [*firsts, *(other for first in firsts for other in self._others(first))]

    def _others(self, connection: Connection) -> Iterable[Connection]:
        role = connection.role
        other = self.of_side("dialer" if role.side == "relay" else "relay")
        return [each for each in other if role.session and each.role.session == role.session]

    def _end(self, connection: Connection, how: str) -> None:
        socket = connection.socket
        self._faults.count("silence" if how == "silent" else f"cut_{how.replace('-', '_')}")
        if how == "close":
            socket.close(GOING_AWAY, "Going away")
        elif how == "reset":
            socket.reset()
        elif how == "mid-frame":
            socket.break_off()
        else:
            socket.silence()
            seconds = self._faults.faults.silence_seconds * self._limits.time_scale
            self._silent[socket] = asyncio.get_running_loop().call_later(seconds, socket.give_up)
