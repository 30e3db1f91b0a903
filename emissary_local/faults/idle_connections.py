"""Kept HTTP connections of functions, and how they die while an environment is frozen.

Which of our connections belong to an environment, the kernel tells: its process's sockets, and their ports.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web

from emissary_local.faults import FaultEngine, Site

#: State of an open connection in ``/proc/net/tcp``. Source: proc(5), and the kernel's ``tcp_states.h``.
_ESTABLISHED: Final = "01"


class IdleConnectionFaults:
    """Lets kept connections die, as ``kept_dead`` of :class:`~emissary_local.faults.Faults` says.

    Args:
        faults: Decides and counts.
        sources: Each gives the HTTP connections of one server.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self, faults: FaultEngine, sources: Iterable[Callable[[], Iterable[asyncio.Transport]]]
    ) -> None:
        self._faults = faults
        self._sources = list(sources)
        self._rng = faults.rng(Site.FREEZE)

    def on_freeze(self, function: str, pid: int) -> None:
        """An environment of ``function`` has been stopped; its connections may die now.

        Drawn before the kernel is asked whose connections they are: that takes a millisecond for every few
        hundred sockets of this machine, and an environment is stopped after every message.
        """
        if not self._rng.draw("kept_dead"):
            return
        ports = ports_of(pid)
        for source in self._sources:
            for transport in list(source()):
                peer = transport.get_extra_info("peername")
                if peer is None or peer[1] not in ports:
                    continue
                self._faults.count("kept_dead")
                if self._rng.coin("kept_dead"):
                    transport.close()
                else:
                    transport.pause_reading()  # whatever is sent to us now, nobody answers


def transports_of(server: web.Server | None) -> Iterable[asyncio.Transport]:
    """The open connections of an aiohttp server."""
    for handler in server.connections if server is not None else ():
        transport = handler.transport
        if isinstance(transport, asyncio.Transport) and not transport.is_closing():
            yield transport


def ports_of(pid: int) -> set[int]:
    """Local ports of the IPv4 TCP connections that a process has open; empty if it is gone."""
    inodes = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
    except OSError:
        return set()
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _ESTABLISHED and row[9] in inodes}
