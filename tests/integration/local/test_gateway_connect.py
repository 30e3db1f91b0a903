"""The upgrade: who is let in, how refusals look, what ``$connect`` sees."""

from __future__ import annotations

import asyncio
import email.utils
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import websocket
from botocore.exceptions import ClientError
from websockets.exceptions import InvalidStatus

from emissary_local.limits import Limits
from emissary_local.net.certificates import create_certificates
from emissary_local.ports import InvocationStatus
from tests.helpers.patience import HANG
from tests.integration.local.gateway_harness import STAGE, Event, answer, connect, running


def giving(result: Any) -> Any:
    async def function(event: Event) -> Any:
        return result

    return function


def test_the_event_of_connect_is_api_gateways() -> None:
    async def scenario() -> tuple[Event, str]:
        async with running() as cloud:
            headers = {"X-Emissary-Nonce": "abc", "User-Agent": "test/1"}
            async with connect(
                cloud.url + "?a=1&b=x%20y&a=2", additional_headers=headers, user_agent_header=None
            ):
                return (await cloud.invoker.wait_for("Connect"))[0], cloud.host

    event, host = asyncio.run(scenario())
    context = event["requestContext"]
    assert event["headers"]["X-Emissary-Nonce"] == "abc"
    assert event["multiValueHeaders"]["X-Emissary-Nonce"] == ["abc"]
    assert event["headers"]["Host"] == host
    assert event["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert event["headers"]["X-Forwarded-Proto"] == "http"
    assert not {"upgrade", "connection"} & {name.lower() for name in event["headers"]}
    assert event["queryStringParameters"] == {"a": "2", "b": "x y"}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": ["x y"]}
    assert event["isBase64Encoded"] is False
    assert (context["routeKey"], context["eventType"], context["messageDirection"]) == (
        "$connect",
        "CONNECT",
        "IN",
    )
    assert (context["stage"], context["domainName"]) == (STAGE, "127.0.0.1")
    assert context["identity"] == {"userAgent": "test/1", "sourceIp": "127.0.0.1"}
    assert len(context["connectionId"]) == 16
    assert context["connectionId"].endswith("=")
    assert context["requestId"]
    assert context["extendedRequestId"]
    assert abs(context["requestTimeEpoch"] - context["connectedAt"]) < 60_000


def test_the_port_is_in_the_domain_name_only_if_asked_for() -> None:
    async def scenario() -> tuple[Event, str]:
        async with running(domain_port=True) as cloud, connect(cloud.url):
            return (await cloud.invoker.wait_for("Connect"))[0], cloud.host

    event, host = asyncio.run(scenario())
    assert event["requestContext"]["domainName"] == host


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
def test_a_refusal_passes_the_functions_status_on_with_a_date(status: int) -> None:
    async def scenario() -> Any:
        async with running(Connect=giving(answer(status, Set_Cookie="x=1"))) as cloud:
            with pytest.raises(InvalidStatus) as caught:
                await connect(cloud.url)
            assert cloud.meter.snapshot().refused_connects == 1
            assert [name for name, _ in cloud.invoker.events] == ["Connect"]
            return caught.value.response

    response = asyncio.run(scenario())
    assert response.status_code == status
    assert email.utils.parsedate_to_datetime(response.headers["Date"])
    assert "Set-Cookie" not in response.headers
    body = json.loads(response.body)
    assert set(body) == {"message", "connectionId", "requestId"}


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (InvocationStatus.FUNCTION_ERROR, 502),
        (InvocationStatus.TIMEOUT, 502),
        (InvocationStatus.THROTTLED, 429),
        (None, 502),
        ({"body": "no status"}, 502),
    ],
    ids=str,
)
def test_a_connect_function_that_fails_refuses(result: Any, status: int) -> None:
    async def scenario() -> int:
        async with running(Connect=giving(result)) as cloud:
            with pytest.raises(InvalidStatus) as caught:
                await connect(cloud.url)
            return caught.value.response.status_code

    assert asyncio.run(scenario()) == status


def test_a_connect_function_past_the_integration_timeout_refuses_with_504() -> None:
    async def hang(event: Event) -> Any:
        await asyncio.Event().wait()

    async def scenario() -> int:
        async with running(limits=Limits(integration_seconds=0.05), Connect=hang) as cloud:
            with pytest.raises(InvalidStatus) as caught:
                await connect(cloud.url)
            return caught.value.response.status_code

    assert asyncio.run(scenario()) == 504


@pytest.mark.parametrize("path", ["/", "/other", f"/{STAGE}x", f"/{STAGE}/deeper"])
def test_another_path_than_the_stage_is_forbidden_without_an_invocation(path: str) -> None:
    async def scenario() -> int:
        async with running() as cloud:
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://{cloud.host}{path}")
            assert cloud.invoker.events == []
            return caught.value.response.status_code

    assert asyncio.run(scenario()) == 403


def test_the_subprotocol_is_the_one_the_function_echoes() -> None:
    async def scenario() -> str | None:
        async with running(Connect=giving(answer(Sec_WebSocket_Protocol="emissary.v2"))) as cloud:
            async with connect(cloud.url, subprotocols=["emissary.v2", "other"]) as client:
                return client.subprotocol

    assert asyncio.run(scenario()) == "emissary.v2"


def test_without_an_echo_there_is_no_subprotocol_and_never_compression() -> None:
    async def scenario() -> Any:
        async with running() as cloud:
            async with connect(cloud.url, subprotocols=["emissary.v2"], compression="deflate") as client:
                return client.subprotocol, client.protocol.extensions

    assert asyncio.run(scenario()) == (None, [])


def test_posting_before_connect_has_returned_answers_410() -> None:
    async def scenario() -> tuple[str, str]:
        codes: list[str] = []

        async def post_early(event: Event) -> Any:
            with pytest.raises(ClientError) as caught:
                await cloud.call(
                    "post_to_connection", ConnectionId=event["requestContext"]["connectionId"], Data=b"x"
                )
            codes.append(caught.value.response["Error"]["Code"])
            return answer()

        async with running(Connect=post_early) as cloud:
            async with connect(cloud.url) as client:
                connection_id = cloud.invoker.events[0][1]["requestContext"]["connectionId"]
                await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"after the 101")
                return codes[0], str(await asyncio.wait_for(client.recv(), HANG))

    assert asyncio.run(scenario()) == ("GoneException", "after the 101")


def test_a_message_sent_right_behind_the_upgrade_waits_for_connect() -> None:
    async def scenario() -> list[str]:
        gate = asyncio.Event()

        async def slow(event: Event) -> Any:
            await gate.wait()
            return answer()

        async with running(Connect=slow) as cloud:
            reader, writer = await asyncio.open_connection("127.0.0.1", cloud.port)
            head = (
                f"GET /{STAGE} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
            writer.write(head + b"\x81\x82\x00\x00\x00\x00hi")
            await cloud.invoker.wait_for("Connect")
            assert [name for name, _ in cloud.invoker.events] == ["Connect"]
            gate.set()
            status = await asyncio.wait_for(reader.readline(), HANG)
            event = (await cloud.invoker.wait_for("Default"))[0]
            writer.close()
            await writer.wait_closed()
            return [status.decode().strip(), event["body"]]

    assert asyncio.run(scenario()) == ["HTTP/1.1 101 Switching Protocols", "hi"]


def test_websocket_client_connects_and_sees_refusals() -> None:
    """The library the dialer uses."""

    def dial(url: str) -> int:
        try:
            client = websocket.create_connection(url, timeout=HANG)
        except websocket.WebSocketBadStatusException as exc:
            return int(exc.status_code)
        client.send("hello")
        client.close()
        return 101

    async def scenario() -> list[int]:
        results = [asyncio.sleep(0, answer(403)), asyncio.sleep(0, answer(200))]

        async def connect_(event: Event) -> Any:
            return await results.pop(0)

        async with running(Connect=connect_) as cloud:
            return [await asyncio.to_thread(dial, cloud.url) for _ in range(2)]

    assert asyncio.run(scenario()) == [403, 101]


def test_over_tls_clients_and_callbacks_trust_only_the_runs_authority(tmp_path: Path) -> None:
    tls = create_certificates(tmp_path)

    async def scenario() -> str:
        async with running(tls=tls) as cloud:
            async with connect(cloud.url, ssl=ssl.create_default_context(cafile=tls.ca_file)) as client:
                event = (await cloud.invoker.wait_for("Connect"))[0]
                assert event["headers"]["X-Forwarded-Proto"] == "https"
                await cloud.call(
                    "post_to_connection",
                    ConnectionId=event["requestContext"]["connectionId"],
                    Data=b"x" * 126_000,
                )
                return str(await asyncio.wait_for(client.recv(), HANG))

    assert asyncio.run(scenario()) == "x" * 126_000


def test_closing_the_gateway_tells_clients_1001_and_leaves_nothing_open() -> None:
    async def scenario() -> int | None:
        async with running() as cloud:
            client = await connect(cloud.url)
        await asyncio.wait_for(client.wait_closed(), HANG)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", cloud.port)
        assert len(asyncio.all_tasks()) == 1
        return client.close_code

    assert asyncio.run(scenario()) == 1001
