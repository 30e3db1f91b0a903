"""Kept connections die while their environment is frozen; here this very process is the environment."""

from __future__ import annotations

import asyncio
import http.client
import os
import select
import socket
from collections.abc import Iterable

from emissary_local.faults import FaultEngine, Faults
from emissary_local.faults.idle_connections import IdleConnectionFaults, ports_of
from tests.helpers.patience import HANG
from tests.integration.local.gateway_harness import Running, running


def kept_link(host: str) -> http.client.HTTPConnection:
    """A kept HTTP connection that has been used once."""
    link = http.client.HTTPConnection(host, timeout=HANG)
    link.request("GET", "/")
    link.getresponse().read()
    assert link.sock is not None
    return link


def fate(host: str, link: http.client.HTTPConnection, server_end: asyncio.Transport) -> str:
    """What has become of it: ``closed``, ``silent`` or ``alive``."""
    if server_end.is_closing():
        assert link.sock.recv(1) == b""
        return "closed"
    link.request("GET", "/")
    if server_end.is_reading():
        link.getresponse().read()
        return "alive"
    kept_link(host).close()  # somebody else is answered meanwhile
    assert not select.select([link.sock], [], [], 0)[0]
    return "silent"


def fates(faults: Faults, links: int, environment: int | None = None) -> tuple[list[str], FaultEngine]:
    async def scenario(cloud: Running) -> list[str]:
        opened = [await asyncio.to_thread(kept_link, cloud.host) for _ in range(links)]
        ends = {each.get_extra_info("peername"): each for each in cloud.gateway.transports()}
        idle = IdleConnectionFaults(cloud.faults, [cloud.gateway.transports])
        idle.on_freeze("F", environment or os.getpid())
        try:
            return [
                await asyncio.to_thread(fate, cloud.host, link, ends[link.sock.getsockname()])
                for link in opened
            ]
        finally:
            for link in opened:
                link.close()

    async def body() -> tuple[list[str], FaultEngine]:
        async with running(faults=faults) as cloud:
            return await scenario(cloud), cloud.faults

    return asyncio.run(body())


def test_some_are_closed_and_some_swallow_requests_for_ever() -> None:
    found, engine = fates(Faults(seed=1, kept_dead=1.0), 6)
    assert set(found) == {"closed", "silent"}
    assert engine.counts == {"kept_dead": 6}


def test_in_the_other_freezes_all_of_them_stay_alive() -> None:
    rounds = [fates(Faults(seed=seed, kept_dead=0.5), 2) for seed in range(8)]
    survived = [found == ["alive", "alive"] for found, _ in rounds]
    assert 0 < survived.count(True) < 8
    for (found, engine), all_alive in zip(rounds, survived, strict=True):
        assert ("alive" in found) == all_alive
        assert engine.counts["kept_dead"] == (0 if all_alive else 2)
    assert fates(Faults(), 2)[0] == ["alive", "alive"]


def test_freeze_without_the_fault_does_not_look_at_the_sockets_of_the_machine() -> None:
    """The soak's symptom: the cloud process was busy with that alone, and everything timed out."""
    asked: list[str] = []

    def source() -> Iterable[asyncio.Transport]:
        asked.append("asked")
        return []

    idle = IdleConnectionFaults(FaultEngine(Faults(seed=1, kept_dead=0.003)), [source])
    for _ in range(1000):
        idle.on_freeze("F", os.getpid())
    assert 0 < len(asked) < 20


def test_those_of_other_processes_stay_alive() -> None:
    assert fates(Faults(kept_dead=1.0), 2, environment=os.getppid())[0] == ["alive", "alive"]


def test_the_ports_of_a_process_are_those_of_its_open_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0]:
            assert {client.getsockname()[1], server.getsockname()[1]} <= ports_of(os.getpid())
            assert client.getsockname()[1] not in ports_of(os.getppid())


def test_a_process_that_is_gone_has_no_ports() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert ports_of(pid) == set()
