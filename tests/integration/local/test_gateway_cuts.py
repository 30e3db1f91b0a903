"""Cuts, met by real clients: closed, reset, broken off within a frame, and dead without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from emissary_lib.protocol.auth.headers import NONCE, RELAY_TOKEN, SESSION
from emissary_lib.protocol.auth.macs import session_id
from emissary_lib.protocol.wire.base64 import encode_unpadded
from emissary_local.errors import LocalCloudError
from emissary_local.faults import Faults
from emissary_local.faults.schedule import FaultSchedule
from emissary_local.limits import Limits
from tests.helpers.patience import HANG
from tests.helpers.virtual_time import Advance, run_ahead, run_stepped
from tests.integration.local.gateway_harness import Running, connect, running
from tests.integration.local.test_gateway_callbacks import connected


def headers(side: str, number: int) -> dict[str, str]:
    nonce = bytes([number]) * 32
    if side == "dialer":
        return {NONCE: encode_unpadded(nonce)}
    return {RELAY_TOKEN: "x", SESSION: session_id(nonce)}


@contextlib.asynccontextmanager
async def sessions(count: int, **options: Any) -> AsyncIterator[tuple[Running, list[ClientConnection]]]:
    """``count`` sessions: a dialer and a relay each, in this order."""
    async with running(**options) as cloud, contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            for side in ("dialer", "relay"):
                client = connect(cloud.url, additional_headers=headers(side, number))
                clients.append(await stack.enter_async_context(client))
        yield cloud, clients


async def end_of(client: ClientConnection) -> tuple[int | None, str]:
    """The close code that a client was sent (None without one), and what ended it."""
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(client.recv(), HANG)
    received = caught.value.rcvd
    return (received.code if received else None), type(caught.value.__cause__).__name__


@pytest.mark.parametrize(
    ("how", "code", "cause", "told", "kind"),
    [
        ("close", 1001, None, 1001, "cut_close"),
        ("reset", None, "ConnectionResetError", 1006, "cut_reset"),
        ("mid-frame", None, "EOFError", 1006, "cut_mid_frame"),
    ],
)
def test_each_cut_is_seen_by_the_client_and_told_to_the_function(
    how: str, code: int | None, cause: str | None, told: int, kind: str
) -> None:
    async def scenario() -> None:
        async with connected() as (cloud, client, connection_id):
            assert cloud.gateway.disconnects.cut("dialer", how, connection_id) == 1
            seen = await end_of(client)
            assert seen[0] == code
            if cause is not None:
                assert seen[1] == cause
            (event,) = await cloud.invoker.wait_for("Disconnect")
            assert event["requestContext"]["disconnectStatusCode"] == told
            assert cloud.faults.counts == {kind: 1}
            assert cloud.gateway.disconnects.cut("dialer", how) == 0  # nobody is left

    asyncio.run(scenario())


CHOICES: list[tuple[str, Callable[[list[str]], str | int | None], list[int]]] = [
    ("dialer", lambda ids: None, [0, 2]),
    ("relay", lambda ids: None, [1, 3]),
    ("both", lambda ids: None, [0, 1, 2, 3]),
    ("dialer", lambda ids: 1, [2]),
    ("relay", lambda ids: -1, [3]),
    ("both", lambda ids: 1, [2, 3]),
    ("dialer", lambda ids: 7, []),
    ("dialer", lambda ids: ids[1], [1]),
    ("both", lambda ids: ids[3], [2, 3]),
    ("dialer", lambda ids: "nobody=", []),
]


@pytest.mark.parametrize(("side", "which", "expected"), CHOICES, ids=[str(i) for i in range(len(CHOICES))])
def test_a_cut_takes_the_side_and_the_session_that_it_names(
    side: str, which: Callable[[list[str]], str | int | None], expected: list[int]
) -> None:
    async def scenario() -> None:
        async with sessions(2) as (cloud, clients):
            events = await cloud.invoker.wait_for("Connect", 4)
            ids = [event["requestContext"]["connectionId"] for event in events]
            assert cloud.gateway.disconnects.cut(side, "reset", which(ids)) == len(expected)
            for number in expected:
                await end_of(clients[number])
            for number in set(range(4)) - set(expected):
                await asyncio.wait_for(await clients[number].ping(), HANG)

    asyncio.run(scenario())


def test_an_unknown_side_or_way_is_refused() -> None:
    async def scenario() -> None:
        async with running() as cloud:
            with pytest.raises(LocalCloudError, match="cannot cut 'client' by 'reset'; want one of dialer"):
                cloud.gateway.disconnects.cut("client", "reset")
            with pytest.raises(LocalCloudError, match="cannot cut 'relay' by 'axe'"):
                cloud.gateway.disconnects.cut("relay", "axe")

    asyncio.run(scenario())


def test_a_silent_connection_takes_posts_hears_nothing_and_is_noticed_late() -> None:
    async def scenario(advance: Advance) -> None:
        limits, faults = Limits(idle_seconds=1e6, life_seconds=1e6), Faults(silence_seconds=2000.0)
        async with connected(limits=limits, faults=faults) as (cloud, client, connection_id):
            assert cloud.gateway.disconnects.cut("dialer", "silent") == 1
            await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"into the void")
            await client.send("unheard")
            pong = asyncio.ensure_future(await client.ping())
            await advance(1999)
            await cloud.call("get_connection", ConnectionId=connection_id)
            assert [name for name, _ in cloud.invoker.events] == ["Connect"]
            await advance(1)
            (event,) = await cloud.invoker.wait_for("Disconnect")
            assert event["requestContext"]["disconnectStatusCode"] == 1006
            with pytest.raises(Exception, match="Gone"):
                await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"x")
            # Nothing has come, not even the end of the TCP connection; nothing was read either.
            heard = asyncio.ensure_future(client.recv())
            await asyncio.sleep(0)
            assert not heard.done()
            assert not pong.done()
            assert client.state.name == "OPEN"
            heard.cancel()
            assert [name for name, _ in cloud.invoker.events] == ["Connect", "Disconnect"]
            assert cloud.faults.counts == {"silence": 1}
            client.transport.abort()

    run_stepped(scenario)


@pytest.mark.parametrize(
    ("faults", "kinds"),
    [
        (Faults(seed=1, cut_every=0.02), {"cut_close", "cut_reset", "cut_mid_frame"}),
        (Faults(seed=1, silence_every=0.02), {"silence"}),
    ],
    ids=["cut_every", "silence_every"],
)
def test_connections_are_cut_from_time_to_time(faults: Faults, kinds: set[str]) -> None:
    async def scenario() -> None:
        async with sessions(2, faults=faults) as (cloud, clients):
            schedule = FaultSchedule(cloud.faults, cloud.gateway.disconnects, lambda: 0)
            schedule.start()
            try:
                async with asyncio.timeout(HANG):
                    while cloud.faults.counts.total() < 4:
                        await asyncio.sleep(0.005)
            finally:
                await schedule.close()
            assert set(cloud.faults.counts) <= kinds
            for client in clients:
                client.transport.abort()

    asyncio.run(scenario())


def test_rates_can_be_switched_on_and_off_while_it_runs() -> None:
    async def scenario() -> None:
        async with running() as cloud:
            schedule = FaultSchedule(cloud.faults, cloud.gateway.disconnects, lambda: 1)
            schedule.start()
            try:
                cloud.faults.replace(Faults(storm_every=60.0))
                while cloud.faults.counts["storm"] < 3:
                    await asyncio.sleep(1)
                cloud.faults.replace(Faults())
                await asyncio.sleep(0)  # the cancelled one ends
                so_far = cloud.faults.counts["storm"]
                await asyncio.sleep(3600)  # sixty storms, were it still on
                assert cloud.faults.counts["storm"] == so_far
            finally:
                await schedule.close()

    run_ahead(scenario())
