"""Starting the relay: one asynchronous invocation, or a LaunchError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import Session

from functions.common.adapters.launcher import LambdaLauncher
from functions.common.errors import LaunchError
from tests.unit.functions.adapters.callback_server import CallbackServer


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        server.status = 202
        yield server


@pytest.fixture
def client(server: CallbackServer) -> Iterator[Any]:
    client: Any = Session().create_client(
        "lambda",
        region_name="eu-central-1",
        endpoint_url=server.url.removesuffix("/emissary"),
        aws_access_key_id="example",
        aws_secret_access_key="example",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def test_the_relay_is_invoked_asynchronously_with_the_event(server: CallbackServer, client: Any) -> None:
    LambdaLauncher(client, "relay").launch({"version": 2, "early": ""})
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/2015-03-31/functions/relay/invocations")
    assert asked.headers["x-amz-invocation-type"] == "Event"
    assert json.loads(asked.body) == {"version": 2, "early": ""}


def test_a_refusal_is_a_launch_error(server: CallbackServer, client: Any) -> None:
    server.status, server.error_type = 429, "TooManyRequestsException"
    with pytest.raises(LaunchError, match="TooManyRequestsException"):
        LambdaLauncher(client, "relay").launch({})


def test_no_answer_is_a_launch_error(server: CallbackServer, client: Any) -> None:
    server.hang_up = 1
    with pytest.raises(LaunchError, match="did not answer"):
        LambdaLauncher(client, "relay").launch({})
