"""Messages: one invocation each, every limit, every error frame, every way a connection ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from emissary_local.faults import Faults
from emissary_local.faults.hop import HOLD_SECONDS
from emissary_local.ports import InvocationStatus
from tests.helpers.patience import HANG
from tests.helpers.virtual_time import Advance, run_stepped
from tests.integration.local.gateway_harness import Event, answer, connect, running


async def close_of(client: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until the gateway has closed ``client``; its close code and reason."""
    await asyncio.wait_for(client.wait_closed(), HANG)
    return client.close_code, client.close_reason


def fragments(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def test_the_event_of_a_message_is_api_gateways() -> None:
    async def scenario() -> tuple[Event, Event]:
        async with running() as cloud:
            async with connect(cloud.url) as client:
                await client.send("aGVsbG8=")
                await client.send('quote " backslash \\ umlaut ü \n')
                first, second = await cloud.invoker.wait_for("Default", 2)
                assert {first["body"], second["body"]} == {"aGVsbG8=", 'quote " backslash \\ umlaut ü \n'}
                return (await cloud.invoker.wait_for("Connect"))[0], first

    connected, event = asyncio.run(scenario())
    context, then = event["requestContext"], connected["requestContext"]
    assert event["isBase64Encoded"] is False
    assert "headers" not in event
    assert (context["routeKey"], context["eventType"], context["messageDirection"]) == (
        "$default",
        "MESSAGE",
        "IN",
    )
    for same in ("connectionId", "connectedAt", "stage", "domainName", "apiId", "identity"):
        assert context[same] == then[same]
    assert context["requestId"] != then["requestId"]
    assert context["messageId"].endswith("=")


def test_every_message_is_an_invocation_of_its_own_and_they_run_at_once() -> None:
    async def scenario() -> int:
        count, gate = 20, asyncio.Event()

        async def default(event: Event) -> Any:
            await gate.wait()
            return answer()

        async with running(Default=default) as cloud:
            async with connect(cloud.url) as client:
                for number in range(count):
                    await client.send(str(number))
                # All have begun though none has ended.
                events = await cloud.invoker.wait_for("Default", count)
                gate.set()
                return len({event["requestContext"]["requestId"] for event in events})

    assert asyncio.run(scenario()) == 20


@pytest.mark.parametrize("size", [32_768, 32_769, 126_000, 131_072])
def test_a_message_up_to_128_kb_in_frames_up_to_32_kb_passes(size: int) -> None:
    async def scenario() -> str:
        async with running() as cloud:
            async with connect(cloud.url) as client:
                await client.send(fragments("x" * size, 32_768))
                body: str = (await cloud.invoker.wait_for("Default"))[0]["body"]
                assert cloud.meter.snapshot().message_units_in == -(-size // 32_768)
                return body

    assert asyncio.run(scenario()) == "x" * size


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"binary", 1003),
        ([b"binary", b"in two frames"], 1003),
        ("x" * 32_769, 1009),
        (fragments("x" * 131_073, 32_768), 1009),
        (fragments("x" * 200_000, 31_000), 1009),
    ],
    ids=["binary", "binary fragments", "frame over 32 KB", "message over 128 KB", "far over 128 KB"],
)
def test_what_api_gateway_refuses_closes_the_connection(message: Any, code: int) -> None:
    async def scenario() -> tuple[int | None, int]:
        async with running() as cloud:
            client = await connect(cloud.url)
            try:
                await client.send(message)
            except ConnectionClosed:
                pass
            closed, _ = await close_of(client)
            event = (await cloud.invoker.wait_for("Disconnect"))[0]
            assert not [name for name, _ in cloud.invoker.events if name == "Default"]
            return closed, event["requestContext"]["disconnectStatusCode"]

    assert asyncio.run(scenario()) == (code, code)


def test_invalid_utf8_closes_with_1007() -> None:
    async def scenario() -> int | None:
        async with running() as cloud:
            client = await connect(cloud.url)
            async with client.send_context():
                client.protocol.send_frame(Frame(Opcode.TEXT, b"\xff\xfe"))
            return (await close_of(client))[0]

    assert asyncio.run(scenario()) == 1007


def test_a_good_message_before_a_bad_one_still_counts() -> None:
    async def scenario() -> str:
        async with running() as cloud:
            client = await connect(cloud.url)
            async with client.send_context():
                client.protocol.send_text(b"good")
                client.protocol.send_binary(b"bad")
            assert (await close_of(client))[0] == 1003
            return str((await cloud.invoker.wait_for("Default"))[0]["body"])

    assert asyncio.run(scenario()) == "good"


def test_a_message_right_before_a_close_still_counts() -> None:
    async def scenario() -> str:
        async with running() as cloud:
            client = await connect(cloud.url)
            async with client.send_context():
                client.protocol.send_text(b"last words")
                client.protocol.send_close(1000)
            return str((await cloud.invoker.wait_for("Default"))[0]["body"])

    assert asyncio.run(scenario()) == "last words"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (InvocationStatus.FUNCTION_ERROR, "Internal server error"),
        (InvocationStatus.TIMEOUT, "Internal server error"),
        (InvocationStatus.THROTTLED, "Internal server error"),
        (None, "Internal server error"),
    ],
    ids=str,
)
def test_a_failed_invocation_sends_the_gateways_error_frame(result: Any, message: str) -> None:
    async def default(event: Event) -> Any:
        return result

    async def scenario() -> tuple[str, Event]:
        async with running(Default=default) as cloud:
            async with connect(cloud.url) as client:
                await client.send("hello")
                text = str(await asyncio.wait_for(client.recv(), HANG))
                return text, (await cloud.invoker.wait_for("Default"))[0]["requestContext"]

    text, context = asyncio.run(scenario())
    ids = f'"connectionId":"{context["connectionId"]}", "requestId":"{context["requestId"]}"'
    assert text == f'{{"message": "{message}", {ids}}}'


def test_a_function_past_29_seconds_gives_the_timeout_frame_and_runs_on() -> None:
    async def scenario(advance: Advance) -> str:
        gate, ended = asyncio.Event(), asyncio.Event()

        async def slow(event: Event) -> Any:
            await gate.wait()
            ended.set()
            return answer()

        async with running(Default=slow) as cloud:
            async with connect(cloud.url) as client:
                await client.send("hello")
                await cloud.invoker.wait_for("Default")
                await advance(29)
                text = str(await asyncio.wait_for(client.recv(), HANG))
                gate.set()
                await asyncio.wait_for(ended.wait(), HANG)
                return str(json.loads(text)["message"])

    assert run_stepped(scenario) == "Endpoint request timed out"


def test_a_message_without_a_route_is_forbidden() -> None:
    async def scenario() -> str:
        async with running(routes={}) as cloud:
            async with connect(cloud.url) as client:
                await client.send("hello")
                return str(json.loads(await asyncio.wait_for(client.recv(), HANG))["message"])

    assert asyncio.run(scenario()) == "Forbidden"


def test_a_successful_message_sends_the_client_nothing_even_with_a_body() -> None:
    async def default(event: Event) -> Any:
        return {"statusCode": 200, "body": "there is no route response"}

    async def scenario() -> None:
        async with running(Default=default) as cloud:
            async with connect(cloud.url) as client:
                await client.send("hello")
                await cloud.invoker.wait_for("Default")
                # A pong follows everything sent before it.
                await asyncio.wait_for(await client.ping(), HANG)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.recv(), 0.01)

    asyncio.run(scenario())


async def still_open(client: ClientConnection) -> None:
    """Fail unless the gateway answers, which it does only while it has not closed the connection."""
    await asyncio.wait_for(await client.ping(), HANG)


def test_ten_idle_minutes_close_with_1001_and_pings_do_not_count() -> None:
    async def scenario(advance: Advance) -> tuple[int | None, str | None, Event]:
        async with running() as cloud:
            client = await connect(cloud.url)
            await advance(599)
            await still_open(client)
            await advance(1)
            code, reason = await close_of(client)
            return code, reason, (await cloud.invoker.wait_for("Disconnect"))[0]["requestContext"]

    code, reason, context = run_stepped(scenario)
    assert (code, reason) == (1001, "Going away")
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1001, "Going away")


def test_messages_keep_a_connection_open_until_its_two_hours_are_over() -> None:
    async def scenario(advance: Advance) -> tuple[int | None, str | None]:
        async with running() as cloud:
            client = await connect(cloud.url)
            for number in range(1, 13):
                await advance(599)
                await client.send("still here")
                await cloud.invoker.wait_for("Default", number)
            await advance(11)
            await still_open(client)
            await advance(1)
            return await close_of(client)

    assert run_stepped(scenario) == (1001, "Going away")


def test_posts_to_a_client_keep_it_open_too() -> None:
    async def scenario(advance: Advance) -> tuple[int | None, str | None]:
        async with running() as cloud:
            client = await connect(cloud.url)
            context = (await cloud.invoker.wait_for("Connect"))[0]["requestContext"]
            await advance(599)
            await cloud.call("post_to_connection", ConnectionId=context["connectionId"], Data=b"x")
            assert await asyncio.wait_for(client.recv(), HANG) == "x"
            await advance(599)
            await still_open(client)
            await advance(1)
            return await close_of(client)

    assert run_stepped(scenario) == (1001, "Going away")


@pytest.mark.parametrize(
    ("close", "code", "reason"),
    [
        (lambda client: client.close(1000, "done"), 1000, "done"),
        (lambda client: client.close(4001, "mine"), 4001, "mine"),
    ],
    ids=["normal", "application code"],
)
def test_disconnect_has_the_clients_code_and_reason(close: Any, code: int, reason: str) -> None:
    async def scenario() -> Event:
        async with running() as cloud:
            client = await connect(cloud.url)
            await close(client)
            return (await cloud.invoker.wait_for("Disconnect"))[0]

    event = asyncio.run(scenario())
    context = event["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (code, reason)
    assert (context["routeKey"], context["eventType"]) == ("$disconnect", "DISCONNECT")
    assert "Host" in event["headers"]


def test_a_close_frame_without_a_code_is_1005_and_a_lost_client_is_1006() -> None:
    async def scenario() -> list[int]:
        async with running() as cloud:
            first = await connect(cloud.url)
            async with first.send_context():
                first.protocol.send_close()
            await cloud.invoker.wait_for("Disconnect", 1)
            second = await connect(cloud.url)
            second.transport.abort()
            events = await cloud.invoker.wait_for("Disconnect", 2)
            return [event["requestContext"]["disconnectStatusCode"] for event in events]

    assert asyncio.run(scenario()) == [1005, 1006]


def test_disconnect_is_invoked_once_and_its_failure_disturbs_nobody() -> None:
    async def fail(event: Event) -> Any:
        return InvocationStatus.FUNCTION_ERROR

    async def scenario() -> list[str]:
        async with running(Disconnect=fail) as cloud:
            async with connect(cloud.url):
                pass
            await cloud.invoker.wait_for("Disconnect")
            async with connect(cloud.url) as client:
                await client.send("x")
                await cloud.invoker.wait_for("Default")
                return [name for name, _ in cloud.invoker.events]

    assert asyncio.run(scenario()) == ["Connect", "Disconnect", "Connect", "Default"]


def test_pings_are_answered_with_pongs() -> None:
    async def scenario() -> None:
        async with running() as cloud:
            async with connect(cloud.url) as client:
                await asyncio.wait_for(await client.ping(b"are you there"), HANG)

    asyncio.run(scenario())


def test_the_seed_reorders_messages_on_their_way_to_the_function_and_loses_none() -> None:
    def arrived(faults: Faults) -> list[int]:
        async def scenario(advance: Advance) -> list[int]:
            async with running(faults=faults) as cloud:
                async with connect(cloud.url) as client:
                    for number in range(60):
                        await client.send(str(number))
                    await still_open(client)  # the answer follows the last message
                    await advance(HOLD_SECONDS)
                    return [int(event["body"]) for event in await cloud.invoker.wait_for("Default", 60)]

        return run_stepped(scenario)

    assert arrived(Faults()) == list(range(60))
    shuffled = arrived(Faults(seed=5, reorder=0.3))
    assert shuffled != list(range(60))
    assert sorted(shuffled) == list(range(60))


def test_connection_time_and_messages_are_metered() -> None:
    async def scenario() -> Any:
        async with running() as cloud:
            async with connect(cloud.url) as client:
                await client.send("x")
                await cloud.invoker.wait_for("Default")
            await cloud.invoker.wait_for("Disconnect")
            return cloud.meter.snapshot()

    snapshot = asyncio.run(scenario())
    assert (snapshot.connects, snapshot.refused_connects, snapshot.messages_in) == (1, 0, 1)
    assert snapshot.connection_seconds > 0
