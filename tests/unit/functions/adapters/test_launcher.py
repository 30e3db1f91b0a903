"""Starting the relay: one asynchronous invocation, or a LaunchError."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from functions.common.adapters.clients import Aws
from functions.common.adapters.launcher import LambdaLauncher
from functions.common.adapters.service import TRIES, Service
from functions.common.adapters.trust import trust
from functions.common.errors import LaunchError
from tests.unit.functions.adapters.callback_server import CallbackServer


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        server.status = 202
        yield server


@pytest.fixture
def service(server: CallbackServer) -> Iterator[Service]:
    environ = {
        "AWS_ENDPOINT_URL_LAMBDA": server.url.removesuffix("/emissary"),
        "AWS_ACCESS_KEY_ID": "example",
        "AWS_SECRET_ACCESS_KEY": "example",
    }
    aws = Aws(environ, "eu-central-1", trust)
    yield aws.lambda_service
    aws.close()


def test_the_relay_is_invoked_asynchronously_with_the_event(server: CallbackServer, service: Service) -> None:
    LambdaLauncher(service, "relay").launch({"version": 2, "early": ""})
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/2015-03-31/functions/relay/invocations")
    assert asked.headers["x-amz-invocation-type"] == "Event"
    assert json.loads(asked.body) == {"version": 2, "early": ""}


def test_a_refusal_is_a_launch_error(server: CallbackServer, service: Service) -> None:
    server.status, server.error_type = 404, "ResourceNotFoundException:http://internal/"
    with pytest.raises(LaunchError, match=r"refused to start the relay: ResourceNotFoundException$"):
        LambdaLauncher(service, "relay").launch({})
    assert len(server.asked) == 1, "asking again would not help"


def test_no_answer_is_a_launch_error(server: CallbackServer, service: Service) -> None:
    server.hang_up = TRIES
    with pytest.raises(LaunchError, match="did not answer: RemoteDisconnected"):
        LambdaLauncher(service, "relay").launch({})


def test_an_arn_of_a_version_is_escaped_in_the_path(server: CallbackServer, service: Service) -> None:
    LambdaLauncher(service, "arn:aws:lambda:eu-central-1:123456789012:function:relay:live").launch({})
    (asked,) = server.asked
    name = "arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Arelay%3Alive"
    assert asked.path == f"/2015-03-31/functions/{name}/invocations"
