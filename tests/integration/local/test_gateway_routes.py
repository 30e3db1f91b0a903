"""Routes of an API's own: which one a message takes, what comes back, and who is asked before."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from emissary_local.gateway.throttle import Throttles
from emissary_local.limits import Limits
from emissary_local.ports import InvocationStatus
from emissary_local.template.specs import Authorizer, Route, Throttle
from tests.helpers.patience import HANG
from tests.integration.local.gateway_harness import ROUTES, Event, running

ACTION: Final = "$request.body.action"
JOIN: Final = '{"action": "join"}'


def returning(body: Any) -> Any:
    async def function(event: Event) -> Any:
        return {"statusCode": 200, "body": body}

    return function


async def ask(client: Any, message: str) -> str:
    await client.send(message)
    return str(await asyncio.wait_for(client.recv(), HANG))


@pytest.mark.parametrize(
    ("message", "function", "route"),
    [
        (JOIN, "Join", "join"),
        ('{"action": "leave"}', "Default", "$default"),
        ('{"action": "$connect"}', "Default", "$default"),
        ('{"action": "$disconnect"}', "Default", "$default"),
        ('{"action": "$default"}', "Default", "$default"),
        ("no JSON", "Default", "$default"),
    ],
)
def test_a_message_takes_the_route_that_it_names(message: str, function: str, route: str) -> None:
    async def scenario() -> Event:
        routes = {**ROUTES, "join": Route("Join")}
        async with running(routes=routes, selection=ACTION, Join=returning(None)) as cloud:
            async with connect(cloud.url) as client:
                await client.send(message)
                return (await cloud.invoker.wait_for(function))[0]

    event = asyncio.run(scenario())
    assert (event["requestContext"]["routeKey"], event["body"]) == (route, message)


def test_a_message_without_a_route_and_a_default_is_forbidden() -> None:
    async def scenario() -> str:
        async with running(routes={"join": Route("Join")}, selection=ACTION) as cloud:
            async with connect(cloud.url) as client:
                return await ask(client, '{"action": "leave"}')

    assert json.loads(asyncio.run(scenario()))["message"] == "Forbidden"


def test_a_routes_throttle_is_its_own() -> None:
    async def scenario() -> list[str]:
        routes = {"join": Route("Join", replies=True), "$default": Route("Default", replies=True)}
        throttles = Throttles(routes={"join": Throttle(0, 0.0)})
        async with running(
            routes=routes, selection=ACTION, throttles=throttles, Join=returning("x"), Default=returning("in")
        ) as cloud:
            async with connect(cloud.url) as client:
                return [await ask(client, JOIN), await ask(client, "hello")]

    throttled, let_in = asyncio.run(scenario())
    assert json.loads(throttled)["message"] == "Internal server error"
    assert let_in == "in"


@pytest.mark.parametrize(("size", "units"), [(1, 1), (32_769, 2), (131_072, 4)])
def test_a_route_with_a_response_sends_the_body_back_and_it_is_billed(size: int, units: int) -> None:
    async def scenario() -> tuple[str, int]:
        routes = {"$default": Route("Default", replies=True)}
        async with running(routes=routes, Default=returning("x" * size)) as cloud:
            async with connect(cloud.url) as client:
                text = await ask(client, "hello")
                return text, cloud.meter.snapshot().message_units_out

    assert asyncio.run(scenario()) == ("x" * size, units)


@pytest.mark.parametrize(
    "body", [{"not": "text"}, 7, "\ud800", "x" * 131_073], ids=["object", "number", "?", "long"]
)
def test_a_body_that_cannot_be_sent_is_an_error(body: Any) -> None:
    async def scenario() -> str:
        async with running(
            routes={"$default": Route("Default", replies=True)}, Default=returning(body)
        ) as cloud:
            async with connect(cloud.url) as client:
                return await ask(client, "hello")

    assert json.loads(asyncio.run(scenario()))["message"] == "Internal server error"


def test_an_integrations_own_timeout_is_shorter_than_the_gateways() -> None:
    async def hang(event: Event) -> Any:
        await asyncio.Event().wait()

    async def scenario() -> str:
        routes = {"$default": Route("Default", timeout=0.05)}
        async with running(routes=routes, Default=hang) as cloud:
            async with connect(cloud.url) as client:
                return await ask(client, "hello")

    assert json.loads(asyncio.run(scenario()))["message"] == "Endpoint request timed out"


def test_a_timeout_over_the_gateways_own_does_not_count() -> None:
    async def hang(event: Event) -> Any:
        await asyncio.Event().wait()

    async def scenario() -> str:
        routes = {"$default": Route("Default", timeout=1e6)}
        async with running(routes=routes, limits=Limits(integration_seconds=0.05), Default=hang) as cloud:
            async with connect(cloud.url) as client:
                return await ask(client, "hello")

    assert json.loads(asyncio.run(scenario()))["message"] == "Endpoint request timed out"


@pytest.mark.parametrize("status", [200, 403])
def test_a_mock_answers_an_upgrade_without_a_function(status: int) -> None:
    async def scenario() -> int:
        async with running(routes={"$connect": Route(None, status)}) as cloud:
            try:
                async with connect(cloud.url):
                    return 200
            except InvalidStatus as exc:
                return exc.response.status_code
            finally:
                assert cloud.invoker.events == []

    assert asyncio.run(scenario()) == status


# Authorizers.

AUTHORIZER: Final = Authorizer("Authorize", ("X-Token",), ("room",))
ARN: Final = "arn:aws:execute-api:us-east-1:123456789012:emissary00/prod/$connect"


def policy(effect: str = "Allow", resource: str = "*", **more: Any) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return {"principalId": "ali", "policyDocument": document, **more}


async def upgrade(
    authorization: Any, query: str = "?room=7", **headers: str
) -> tuple[int, list[tuple[str, Event]]]:
    """The status of an upgrade, and the events that it made."""

    async def authorizer(event: Event) -> Any:
        return authorization

    async with running(authorizer=AUTHORIZER, Authorize=authorizer) as cloud:
        try:
            async with connect(cloud.url + query, additional_headers=headers or {"x-TOKEN": "t"}) as client:
                await client.send("hello")
                await cloud.invoker.wait_for("Default")
            await cloud.invoker.wait_for("Disconnect")
            return 101, cloud.invoker.events
        except InvalidStatus as exc:
            return exc.response.status_code, cloud.invoker.events


def test_an_authorizer_is_asked_as_api_gateway_asks() -> None:
    _, events = asyncio.run(upgrade(policy()))
    name, event = events[0]
    assert (name, event["type"], event["methodArn"]) == ("Authorize", "REQUEST", ARN)
    assert event["headers"]["x-TOKEN"] == "t"
    assert event["headers"]["Upgrade"] == "websocket"
    assert event["queryStringParameters"] == {"room": "7"}
    assert event["stageVariables"] == {}
    context = event["requestContext"]
    assert (context["routeKey"], context["eventType"]) == ("$connect", "CONNECT")
    assert "authorizer" not in context


def test_its_answer_is_in_every_event_as_text() -> None:
    status, events = asyncio.run(upgrade(policy(context={"level": 7, "admin": True, "name": "Ali"})))
    assert status == 101
    for name, event in events[1:]:
        told = event["requestContext"]["authorizer"]
        assert isinstance(told.pop("integrationLatency"), int), name
        assert told == {"principalId": "ali", "level": "7", "admin": "true", "name": "Ali"}
    assert [name for name, _ in events] == ["Authorize", "Connect", "Default", "Disconnect"]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"X-Token": "t"}),
        ("?room=", {"X-Token": "t"}),
        ("?Room=7", {"X-Token": "t"}),
        ("?room=7", {"Other": "t"}),
    ],
)
def test_a_request_without_its_identity_is_refused_unasked(query: str, headers: dict[str, str]) -> None:
    assert asyncio.run(upgrade(policy(), query, **headers)) == (401, [])


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (policy(resource=ARN), 101),
        (policy(resource=ARN.replace("us-east-1", "*").replace("/prod/", "/*/")), 101),
        (policy("Deny"), 403),
        (policy(resource=ARN.replace("$connect", "$default")), 403),
        ({"principalId": "ali", "policyDocument": {"Version": "2012-10-17", "Statement": []}}, 403),
        (None, 500),
        ("Allow", 500),
        ({}, 500),
        ({"policyDocument": policy()["policyDocument"]}, 500),
        ({"principalId": "ali"}, 500),
        (policy("Permit"), 500),
        (policy(context={"list": [1]}), 500),
        (policy(context=[]) | {"context": "text"}, 500),
        (InvocationStatus.FUNCTION_ERROR, 500),
        (InvocationStatus.TIMEOUT, 500),
        (InvocationStatus.THROTTLED, 500),
    ],
    ids=str,
)
def test_the_authorizers_answer_decides(result: Any, status: int) -> None:
    assert asyncio.run(upgrade(result))[0] == status
