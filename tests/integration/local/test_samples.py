"""Other people's stacks: what is written in the way of public samples runs as it is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
import websocket

from emissary_local import LocalCloud
from tests.helpers.local_cloud import eventually

SAMPLES: Final = Path(__file__).parent / "samples"
PATIENCE: Final = 60.0


@contextlib.contextmanager
def connected(cloud: LocalCloud, query: str = "", **options: Any) -> Iterator[websocket.WebSocket]:
    """A client's connection; it trusts the cloud's certificate."""
    sslopt = {} if cloud.ca_file is None else {"ca_certs": cloud.ca_file}
    client = websocket.create_connection(cloud.url + query, timeout=PATIENCE, sslopt=sslopt, **options)
    try:
        yield client
    finally:
        client.close()


# A chat: functions in folders of their own, a table, SAM's policy templates, posts to https://.


@pytest.fixture(scope="module")
def chat() -> Iterator[LocalCloud]:
    with LocalCloud(SAMPLES / "chat" / "template.yaml", tls=True, domain_port=True) as running:
        yield running
        assert running.denials() == []


def known(cloud: LocalCloud) -> int:
    """How many connections the chat's table has."""
    given = cloud.operator
    dynamo = boto3.client(
        "dynamodb",
        endpoint_url=given["AWS_ENDPOINT_URL_DYNAMODB"],
        region_name=given["AWS_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=given["AWS_SESSION_TOKEN"],
    )
    with contextlib.closing(dynamo):
        return int(dynamo.scan(TableName=cloud.tables["ConnectionsTable"], Select="COUNT")["Count"])


def test_what_one_says_in_the_chat_reaches_all_until_they_leave(chat: LocalCloud) -> None:
    with connected(chat) as one:
        with connected(chat) as two:
            one.send(json.dumps({"action": "sendmessage", "data": "hello"}))
            assert (one.recv(), two.recv()) == ("hello", "hello")
        eventually(lambda: known(chat) == 1 or None, "$disconnect of the one who left")
        one.send(json.dumps({"action": "sendmessage", "data": "alone"}))
        assert one.recv() == "alone"


@pytest.mark.parametrize("message", ['{"action": "shout"}', '{"action": "$connect"}', "hello"])
def test_a_message_that_no_route_of_the_chat_takes_is_answered_by_the_gateway(
    chat: LocalCloud, message: str
) -> None:
    with connected(chat) as client:
        client.send(message)
        assert json.loads(client.recv())["message"] == "Forbidden"


# An echo: no SAM, code in the template, routes by two members of a message, route responses, a MOCK.


@pytest.fixture(scope="module")
def echo() -> Iterator[LocalCloud]:
    with LocalCloud(SAMPLES / "echo" / "template.yaml") as running:
        yield running


@pytest.mark.parametrize(
    ("message", "route"),
    [
        ('{"kind": "echo", "to": {"version": 2}}', "echo-2"),
        ('{"kind": "echo", "to": {"version": 3}}', "$default"),
        ('{"kind": "echo"}', "$default"),
        ("no JSON", "$default"),
    ],
)
def test_what_the_echos_function_returns_goes_back(echo: LocalCloud, message: str, route: str) -> None:
    with connected(echo) as client:
        client.send(message)
        assert json.loads(client.recv()) == {"route": route, "said": message}


def test_no_route_response_or_no_body_is_no_answer(echo: LocalCloud) -> None:
    with connected(echo) as client:
        before = echo.meter.invocations.get("EchoFunction", 0)
        client.send('{"kind": "silent", "to": {"version": 1}}')
        client.send("nothing")
        # Both have been answered, if they are, before the next one is sent.
        eventually(lambda: echo.meter.invocations.get("EchoFunction", 0) == before + 2 or None, "both")
        client.send("after both")
        assert json.loads(client.recv())["said"] == "after both"


def test_an_echo_that_fails_is_answered_by_the_gateway(echo: LocalCloud) -> None:
    with connected(echo) as client:
        client.send("fail")
        assert json.loads(client.recv())["message"] == "Internal server error"


# A guarded API: SAM's own API with an authorizer.


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalCloud]:
    with LocalCloud(SAMPLES / "guarded" / "template.yaml") as running:
        yield running


def test_what_the_authorizer_knows_is_in_every_event(guarded: LocalCloud) -> None:
    with connected(guarded, "?room=7", header={"Authorization": "sesame"}) as client:
        client.send("who am I?")
        told = json.loads(client.recv())
    assert told.pop("integrationLatency") >= 0
    assert told == {"principalId": "ali", "room": "7", "admin": "true", "level": "7"}


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ("?room=7", {}, 401),
        ("", {"Authorization": "sesame"}, 401),
        ("?room=7", {"Authorization": "unknown"}, 401),
        ("?room=7", {"Authorization": "stranger"}, 403),
        ("?room=7", {"Authorization": "broken"}, 500),
    ],
)
def test_whom_the_authorizer_does_not_let_pass_is_refused(
    guarded: LocalCloud, query: str, header: dict[str, str], status: int
) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        with connected(guarded, query, header=header):
            pass
    assert caught.value.status_code == status
