"""``@connections``: signed calls reach the client, and every documented error is answered."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import ClientError
from websockets.asyncio.client import ClientConnection

from emissary_local.faults import Faults
from emissary_local.faults.hop import HOLD_SECONDS
from emissary_local.limits import Limits
from tests.helpers.patience import HANG
from tests.helpers.virtual_time import Advance, run_stepped
from tests.integration.local.gateway_harness import KEY, STAGE, Running, connect, running


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Running, ClientConnection, str]]:
    """A gateway, a client connected to it, and the client's connection id."""
    async with running(**options) as cloud:
        async with connect(cloud.url, max_size=None) as client:
            event = (await cloud.invoker.wait_for("Connect"))[0]
            yield cloud, client, event["requestContext"]["connectionId"]


async def error_of(cloud: Running, method: str, client: Any = None, **arguments: Any) -> tuple[str, int]:
    """The error code and HTTP status that boto3 sees."""
    with pytest.raises(ClientError) as caught:
        await cloud.call(method, client, **arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("size", [0, 1, 32_768, 32_769, 126_000, 131_072])
def test_a_post_reaches_the_client_as_one_text_message_in_frames_of_at_most_32_kb(size: int) -> None:
    async def scenario() -> list[int]:
        async with connected() as (cloud, client, connection_id):
            await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"x" * size)
            frames = [frame async for frame in client.recv_streaming()]
            assert all(isinstance(frame, str) for frame in frames)
            assert cloud.meter.snapshot().message_units_out == max(1, -(-size // 32_768))
            return [len(frame) for frame in frames]

    frames = asyncio.run(scenario())
    assert sum(frames) == size
    assert max(frames) <= 32_768


def signed(method: str, host: str, path: str, body: bytes, **changes: str) -> dict[str, str]:
    request = AWSRequest(method=method, url=f"http://{host}{path}", data=body)
    credentials = BotocoreCredentials(KEY.access_key_id, KEY.secret_access_key, KEY.session_token)
    SigV4Auth(credentials, "execute-api", "us-east-1").add_auth(request)
    return {**dict(request.headers.items()), "Host": host, **changes}


def test_many_hand_signed_posts_go_over_one_kept_connection() -> None:
    def post(host: str, connection_id: str) -> list[tuple[int, bytes]]:
        link = http.client.HTTPConnection(host, timeout=HANG)
        answers = []
        for number in range(5):
            body = str(number).encode()
            path = f"/{STAGE}/@connections/{quote(connection_id, safe='')}"
            link.request("POST", path, body, signed("POST", host, path, body))
            response = link.getresponse()
            answers.append((response.status, response.read()))
            assert not response.will_close
        link.close()
        return answers

    async def scenario() -> list[str]:
        async with connected() as (cloud, client, connection_id):
            assert await asyncio.to_thread(post, cloud.host, connection_id) == [(200, b"")] * 5
            return [str(await asyncio.wait_for(client.recv(), HANG)) for _ in range(5)]

    assert asyncio.run(scenario()) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_session_token": "wrong"}, "UnrecognizedClientException"),
        ({"aws_access_key_id": "AKIDWRONG"}, "UnrecognizedClientException"),
        ({"region_name": "eu-west-1"}, "InvalidSignatureException"),
    ],
    ids=str,
)
def test_a_wrong_signature_is_403_and_reaches_nobody(change: dict[str, str], code: str) -> None:
    async def scenario() -> tuple[str, int]:
        async with connected() as (cloud, _, connection_id):
            client = cloud.management(**change)
            try:
                return await error_of(
                    cloud, "post_to_connection", client, ConnectionId=connection_id, Data=b"x"
                )
            finally:
                assert cloud.meter.snapshot().messages_out == 0
                client.close()

    assert asyncio.run(scenario()) == (code, 403)


def raw(
    host: str, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, str | None, Any]:
    link = http.client.HTTPConnection(host, timeout=HANG)
    link.request(method, path, body, headers)
    response = link.getresponse()
    kind, text = response.getheader("x-amzn-ErrorType"), response.read()
    link.close()
    return response.status, kind, json.loads(text) if text else None


def test_an_unsigned_call_and_a_changed_body_are_403() -> None:
    async def scenario() -> None:
        async with connected() as (cloud, _, connection_id):
            path = f"/{STAGE}/@connections/{quote(connection_id, safe='')}"
            status, kind, body = await asyncio.to_thread(raw, cloud.host, "POST", path, b"x", {})
            assert (status, kind) == (403, "MissingAuthenticationTokenException")
            assert body == {"message": "Missing Authentication Token"}
            headers = signed("POST", cloud.host, path, b"x")
            status, kind, _ = await asyncio.to_thread(raw, cloud.host, "POST", path, b"y", headers)
            assert (status, kind) == (403, "InvalidSignatureException")

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/", f"/{STAGE}", "/other/@connections/abc", f"/{STAGE}/@connections/a/b"])
def test_another_address_is_forbidden(path: str) -> None:
    async def scenario() -> tuple[int, str | None, Any]:
        async with running() as cloud:
            headers = signed("POST", cloud.host, path, b"x")
            return await asyncio.to_thread(raw, cloud.host, "POST", path, b"x", headers)

    assert asyncio.run(scenario()) == (403, "ForbiddenException", {"message": "Forbidden"})


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("post_to_connection", {"Data": b"x"}), ("get_connection", {}), ("delete_connection", {})],
    ids=["post", "get", "delete"],
)
def test_an_unknown_or_closed_connection_is_gone(method: str, arguments: dict[str, Any]) -> None:
    async def scenario() -> list[tuple[str, int]]:
        async with connected() as (cloud, client, connection_id):
            unknown = await error_of(cloud, method, ConnectionId="AAAAAAAAAAAAAAA=", **arguments)
            await client.close()
            await cloud.invoker.wait_for("Disconnect")
            return [unknown, await error_of(cloud, method, ConnectionId=connection_id, **arguments)]

    assert asyncio.run(scenario()) == [("GoneException", 410)] * 2


@pytest.mark.parametrize("size", [131_073, 2_000_000])
def test_more_than_128_kb_is_413_and_the_socket_stays_up(size: int) -> None:
    async def scenario() -> tuple[int, str | None, Any]:
        async with connected() as (cloud, client, connection_id):
            path = f"/{STAGE}/@connections/{quote(connection_id, safe='')}"
            body = b"x" * size
            headers = signed("POST", cloud.host, path, body)
            result = await asyncio.to_thread(raw, cloud.host, "POST", path, body, headers)
            await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"still here")
            assert await asyncio.wait_for(client.recv(), HANG) == "still here"
            return result

    assert asyncio.run(scenario()) == (413, "PayloadTooLargeException", {"message": "Message too long"})


def test_data_that_is_not_utf8_is_refused() -> None:
    async def scenario() -> tuple[str, int]:
        async with connected() as (cloud, _, connection_id):
            return await error_of(cloud, "post_to_connection", ConnectionId=connection_id, Data=b"\xff\xfe")

    assert asyncio.run(scenario()) == ("BadRequestException", 400)


def test_a_client_that_does_not_read_makes_posts_answer_429_and_memory_stays_bounded() -> None:
    async def scenario() -> tuple[str, int]:
        limits = Limits(send_buffer_bytes=300_000)
        async with connected(limits=limits) as (cloud, client, connection_id):
            client.transport.pause_reading()
            management = cloud.management()
            for _ in range(2_000):
                try:
                    await cloud.call(
                        "post_to_connection", management, ConnectionId=connection_id, Data=b"x" * 131_072
                    )
                except management.exceptions.LimitExceededException as exc:
                    management.close()
                    assert await cloud.call("get_connection", ConnectionId=connection_id)
                    client.transport.abort()
                    response: Any = exc.response
                    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]
            raise AssertionError("2,000 posts of 128 KB were all accepted")

    assert asyncio.run(scenario()) == ("LimitExceededException", 429)


def test_a_client_that_has_gone_silent_still_answers_200() -> None:
    """What makes PostToConnection's success no proof of delivery."""

    async def scenario() -> int:
        async with connected() as (cloud, client, connection_id):
            client.transport.pause_reading()
            response = await cloud.call("post_to_connection", ConnectionId=connection_id, Data=b"x")
            client.transport.abort()
            return int(response["ResponseMetadata"]["HTTPStatusCode"])

    assert asyncio.run(scenario()) == 200


def test_get_shows_when_and_from_where() -> None:
    async def scenario() -> Any:
        async with connected() as (cloud, client, connection_id):
            await client.send("x")
            await cloud.invoker.wait_for("Default")
            return await cloud.call("get_connection", ConnectionId=connection_id)

    shown = asyncio.run(scenario())
    assert shown["Identity"]["SourceIp"] == "127.0.0.1"
    assert shown["Identity"]["UserAgent"]
    assert shown["LastActiveAt"] >= shown["ConnectedAt"]


def test_delete_closes_with_1000_and_disconnect_says_so() -> None:
    async def scenario() -> tuple[int | None, int, int]:
        async with connected() as (cloud, client, connection_id):
            response = await cloud.call("delete_connection", ConnectionId=connection_id)
            await asyncio.wait_for(client.wait_closed(), HANG)
            event = (await cloud.invoker.wait_for("Disconnect"))[0]
            return (
                client.close_code,
                response["ResponseMetadata"]["HTTPStatusCode"],
                event["requestContext"]["disconnectStatusCode"],
            )

    assert asyncio.run(scenario()) == (1000, 204, 1000)


def test_the_seed_reorders_posts_after_they_were_accepted_and_loses_none() -> None:
    """Even one caller that waits for each 200 cannot rely on the order."""

    async def scenario(advance: Advance) -> list[int]:
        async with connected(faults=Faults(seed=2, reorder=0.4)) as (cloud, client, connection_id):
            management = cloud.management()
            for number in range(40):
                await cloud.call(
                    "post_to_connection", management, ConnectionId=connection_id, Data=str(number).encode()
                )
            management.close()
            await advance(HOLD_SECONDS)
            return [int(await asyncio.wait_for(client.recv(), HANG)) for _ in range(40)]

    arrived = run_stepped(scenario)
    assert arrived != sorted(arrived)
    assert sorted(arrived) == list(range(40))
