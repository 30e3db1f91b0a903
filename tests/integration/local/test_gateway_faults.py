"""Faults of the gateway, met by real clients: refused, lost, doubled, late, and each counted."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from websockets.exceptions import InvalidHandshake, InvalidStatus

from emissary_local.faults import Faults
from emissary_local.gateway.throttle import Throttles
from emissary_local.limits import Limits
from emissary_local.template.specs import Throttle
from tests.helpers.faults import faults_of
from tests.helpers.patience import HANG
from tests.helpers.virtual_time import Advance, run_stepped
from tests.integration.local.gateway_harness import Event, Running, answer, connect, running
from tests.integration.local.test_gateway_callbacks import connected

FRAME = "Internal server error"


async def echo_count(faults: Faults, sent: int) -> tuple[Running, list[str]]:
    """Send numbers to a function that only counts; what it was given."""
    async with running(faults=faults) as cloud:

        def given() -> list[str]:
            return [event["body"] for name, event in cloud.invoker.events if name == "Default"]

        def missing() -> int:
            met = cloud.faults.counts
            return sent - met["drop"] + met["duplicate"] - len(given())

        async with connect(cloud.url) as client:
            for number in range(sent):
                await client.send(str(number))
            while cloud.meter.snapshot().messages_in < sent or missing():
                await asyncio.sleep(0.005)
            return cloud, given()


def test_dropped_messages_reach_no_function() -> None:
    cloud, bodies = asyncio.run(asyncio.wait_for(echo_count(Faults(seed=1, drop=0.5), 40), HANG))
    assert len(bodies) == 40 - cloud.faults.counts["drop"] < 40
    assert len(set(bodies)) == len(bodies)


def test_duplicated_messages_are_two_invocations() -> None:
    cloud, bodies = asyncio.run(asyncio.wait_for(echo_count(Faults(duplicate=1.0), 10), HANG))
    assert sorted(bodies, key=int) == [str(number) for number in range(10) for _ in range(2)]
    assert cloud.faults.counts == {"duplicate": 10}


@pytest.mark.parametrize("kind", ["message_429", "message_500"])
def test_a_refused_message_is_answered_with_an_error_frame_and_runs_nothing(kind: str) -> None:
    async def scenario() -> None:
        async with running(faults=faults_of(1.0, kind)) as cloud:
            async with connect(cloud.url) as client:
                await client.send("x")
                frame = json.loads(await asyncio.wait_for(client.recv(), HANG))
                assert frame["message"] == FRAME
                assert [name for name, _ in cloud.invoker.events] == ["Connect"]
                assert cloud.faults.counts == {kind: 1}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "status"), [("connect_403", 403), ("connect_429", 429), ("connect_500", 502)]
)
def test_a_refused_upgrade_has_its_status_and_runs_nothing(kind: str, status: int) -> None:
    async def scenario() -> None:
        async with running(faults=faults_of(1.0, kind)) as cloud:
            with pytest.raises(InvalidStatus) as caught:
                await connect(cloud.url)
            assert caught.value.response.status_code == status
            assert cloud.invoker.events == []
            assert cloud.faults.counts == {kind: 1}

    asyncio.run(scenario())


def test_a_lost_101_leaves_a_client_with_nothing_though_the_function_ran() -> None:
    async def scenario() -> None:
        async with running(faults=Faults(connect_lost=1.0)) as cloud:
            with pytest.raises((InvalidHandshake, OSError, EOFError)):
                await connect(cloud.url)
            assert len(await cloud.invoker.wait_for("Connect")) == 1
            (event,) = await cloud.invoker.wait_for("Disconnect")
            assert event["requestContext"]["disconnectStatusCode"] == 1006
            assert cloud.faults.counts == {"connect_lost": 1}

    asyncio.run(scenario())


def test_a_missing_disconnect_event_never_comes() -> None:
    async def scenario() -> None:
        async with running(faults=Faults(disconnect_missing=1.0)) as cloud:
            async with connect(cloud.url):
                pass
            async with asyncio.timeout(HANG):
                while not cloud.faults.counts["disconnect_missing"]:
                    await asyncio.sleep(0.002)
            assert [name for name, _ in cloud.invoker.events] == ["Connect"]

    asyncio.run(scenario())


def test_a_late_disconnect_event_comes_after_the_connection_is_gone() -> None:
    async def scenario(advance: Advance) -> None:
        faults = Faults(seed=1, disconnect_late=1.0, disconnect_seconds=30.0)
        async with connected(faults=faults) as (cloud, client, connection_id):
            await client.close()
            with pytest.raises(ClientError, match="Gone"):
                await cloud.call("get_connection", ConnectionId=connection_id)
            assert cloud.faults.counts == {"disconnect_late": 1}
            assert [name for name, _ in cloud.invoker.events] == ["Connect"]
            await advance(30)
            await cloud.invoker.wait_for("Disconnect")

    run_stepped(scenario)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("post_410", 410, "GoneException"),
        ("post_429", 429, "LimitExceededException"),
        ("post_500", 500, "InternalServerErrorException"),
    ],
)
def test_a_failed_post_may_have_been_delivered_unless_it_was_refused(
    kind: str, status: int, code: str
) -> None:
    """The client hears exactly as many as the seed says: half of the ambiguous ones, no refused one."""

    async def scenario() -> int:
        async with connected(faults=faults_of(1.0, kind, seed=3)) as (cloud, client, connection_id):
            for number in range(12):
                with pytest.raises(ClientError) as caught:
                    await cloud.call(
                        "post_to_connection", ConnectionId=connection_id, Data=str(number).encode()
                    )
                response = caught.value.response
                assert response["ResponseMetadata"]["HTTPStatusCode"] == status
                assert response["Error"]["Code"] in (code, str(status))
            assert cloud.faults.counts == {kind: 12}
            cloud.faults.replace(Faults(seed=3))
            await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"last")
            heard = []
            while (text := await asyncio.wait_for(client.recv(), HANG)) != "last":
                heard.append(text)
            assert cloud.meter.snapshot().messages_out == len(heard) + 1
            return len(heard)

    heard = asyncio.run(scenario())
    assert heard == 0 if kind == "post_429" else 0 < heard < 12


def test_a_hung_post_is_not_answered_before_its_time_and_half_of_them_are_delivered() -> None:
    async def scenario(advance: Advance) -> int:
        faults, limits = Faults(seed=3, post_hang=1.0, hang_seconds=300.0), Limits(idle_seconds=1e6)
        async with connected(faults=faults, limits=limits) as (cloud, client, connection_id):

            def post(text: str) -> asyncio.Future[Any]:
                call = cloud.call("post_to_connection", ConnectionId=connection_id, Data=text.encode())
                return asyncio.ensure_future(call)

            for number in range(8):
                hung = post(str(number))
                while cloud.faults.counts["post_hang"] <= number:
                    await asyncio.sleep(0)
                await advance(299)
                await cloud.call("get_connection", ConnectionId=connection_id)  # is answered meanwhile
                assert not hung.done()
                await advance(1)
                await hung
            cloud.faults.replace(Faults(seed=3))
            await post("last")
            heard = 0
            while await asyncio.wait_for(client.recv(), HANG) != "last":
                heard += 1
            return heard

    assert 0 < run_stepped(scenario) < 8


def test_the_stages_throttle_refuses_upgrades_with_429_and_messages_with_an_error_frame() -> None:
    async def scenario() -> None:
        throttles = Throttles(Throttle(2, 0.001), {"$connect": Throttle(1, 0.001)})
        async with running(throttles=throttles) as cloud:
            async with connect(cloud.url) as client:
                with pytest.raises(InvalidStatus) as caught:
                    await connect(cloud.url)
                assert caught.value.response.status_code == 429
                for number in range(3):
                    await client.send(str(number))
                frame = json.loads(await asyncio.wait_for(client.recv(), HANG))
                assert frame["message"] == FRAME
                assert len(await cloud.invoker.wait_for("Default", 2)) == 2
                assert cloud.faults.counts == {"throttled": 2}

    asyncio.run(scenario())


def test_a_shifted_clock_shows_in_date_headers_and_events() -> None:
    async def no(event: Event) -> Any:
        return answer(403)

    async def scenario() -> None:
        async with running(faults=Faults(skew_seconds=3600.0), Connect=no) as cloud:
            with pytest.raises(InvalidStatus) as caught:
                await connect(cloud.url)
            date = email.utils.parsedate_to_datetime(caught.value.response.headers["Date"]).timestamp()
            assert 3500 < date - time.time() < 3700
            (event,) = await cloud.invoker.wait_for("Connect")
            assert 3500 < event["requestContext"]["requestTimeEpoch"] / 1000 - time.time() < 3700
            # A caller with this machine's clock is an hour late.
            with pytest.raises(ClientError) as refused:
                await cloud.call("get_connection", ConnectionId="x")
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
            headers = refused.value.response["ResponseMetadata"]["HTTPHeaders"]
            shown = email.utils.parsedate_to_datetime(headers["date"]).timestamp()
            assert 3500 < shown - time.time() < 3700

    asyncio.run(scenario())
