"""Calls of AWS's services over a real socket: what goes out, and which failures are tried again."""

from __future__ import annotations

import json
import random
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from functions.common.adapters.service import (
    COST,
    GAIN,
    PAUSE,
    QUOTA,
    THROTTLED_PAUSE,
    TRIES,
    JsonService,
    NoAnswerError,
    Service,
    ServiceError,
)
from functions.common.adapters.sigv4 import Credentials, Signer
from functions.common.adapters.trust import trust
from tests.helpers.events import NOW
from tests.helpers.patience import HANG, wait_until
from tests.unit.functions.adapters.callback_server import CallbackServer

KEY = Credentials("AKIDEXAMPLE", "example secret", "example token")


class Highest(random.Random):
    """Draws the longest pause there is."""

    def random(self) -> float:
        return 1.0


class Caller:
    """A service at a server, with the pauses that it would have made.

    Attributes:
        dynamodb: The service, as one of operations.
    """

    def __init__(self, url: str, timeout: float = HANG) -> None:
        self.pauses: list[float] = []
        self.service = Service(
            url,
            Signer("dynamodb", "eu-central-1", KEY),
            tls=trust,
            timeout=timeout,
            sleep=self.pauses.append,
            rng=Highest(),
            clock=lambda: NOW,
        )
        self.dynamodb = JsonService(self.service, "DynamoDB_20120810", "1.0")

    def get(self, key: str = "x") -> Any:
        return self.dynamodb.call("GetItem", {"Key": {"pk": {"S": key}}})


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        server.answer = b"{}"
        yield server


@pytest.fixture
def caller(server: CallbackServer) -> Iterator[Caller]:
    caller = Caller(server.url.removesuffix("/emissary"))
    yield caller
    caller.service.close()


def test_an_operation_is_a_signed_post_of_json(server: CallbackServer, caller: Caller) -> None:
    server.answer = b'{"Item": {"pk": {"S": "x"}}}'
    assert caller.get() == {"Item": {"pk": {"S": "x"}}}
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/")
    assert asked.headers["content-type"] == "application/x-amz-json-1.0"
    assert asked.headers["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert json.loads(asked.body) == {"Key": {"pk": {"S": "x"}}}
    signed = {"Host": asked.headers["host"]}
    signed |= {"Content-Type": asked.headers["content-type"], "X-Amz-Target": asked.headers["x-amz-target"]}
    expected = Signer("dynamodb", "eu-central-1", KEY).sign("POST", "/", signed, asked.body, NOW)
    assert asked.headers["authorization"] == expected["Authorization"]
    assert asked.headers["x-amz-security-token"] == KEY.session_token


def test_the_path_of_an_endpoint_comes_first(server: CallbackServer) -> None:
    caller = Caller(server.url)
    caller.service.post("/2015-03-31/functions/relay/invocations", {}, b"")
    caller.service.close()
    assert server.asked[0].path == "/emissary/2015-03-31/functions/relay/invocations"


def test_bytes_go_as_base64_and_come_back_as_bytes(server: CallbackServer, caller: Caller) -> None:
    """Also within lists and objects; an attribute whose name is B is an object, and no text."""
    item = {"nonce": {"B": b"\x00\xff"}, "B": {"S": "name"}, "list": {"L": [{"B": b""}]}}
    server.answer = b'{"Item": {"nonce": {"B": "AP8="}, "B": {"S": "name"}, "list": {"L": [{"B": ""}]}}}'
    assert caller.dynamodb.call("PutItem", {"Item": item}) == {"Item": item}
    assert json.loads(server.asked[0].body)["Item"]["nonce"] == {"B": "AP8="}


def test_what_json_has_no_word_for_is_a_bug(server: CallbackServer, caller: Caller) -> None:
    with pytest.raises(TypeError, match="set cannot be sent"):
        caller.dynamodb.call("PutItem", {"Item": {"names": {"SS": {"a"}}}})
    assert server.asked == []


def test_connections_are_kept(server: CallbackServer, caller: Caller) -> None:
    for _ in range(3):
        caller.get()
    assert len({asked.client_port for asked in server.asked}) == 1


REFUSED = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"


@pytest.mark.parametrize(
    ("status", "header", "body", "code"),
    [
        (400, "", {"__type": REFUSED, "Item": {"nonce": {"B": "AP8="}}}, "ConditionalCheckFailedException"),
        (400, "", {"__type": "ResourceNotFoundException"}, "ResourceNotFoundException"),
        (404, "ResourceNotFoundException:http://internal/", {"Type": "User"}, "ResourceNotFoundException"),
        (403, "", {"code": "AccessDeniedException"}, "AccessDeniedException"),
        (403, "", None, "403"),
        (418, "", [], "418"),
    ],
)
def test_a_refusal_is_final_and_names_aws_s_error(
    server: CallbackServer, caller: Caller, status: int, header: str, body: Any, code: str
) -> None:
    server.status, server.error_type = status, header
    server.answer = b"<html>" if body is None else json.dumps(body).encode()
    with pytest.raises(ServiceError) as caught:
        caller.get()
    assert caught.value.code == code
    assert caught.value.details.get("Item") in (None, {"nonce": {"B": b"\x00\xff"}})
    assert (len(server.asked), caller.pauses) == (1, [])


@pytest.mark.parametrize(
    ("status", "error", "pause"),
    [
        (500, "InternalServerError", PAUSE),
        (502, "", PAUSE),
        (503, "ServiceUnavailable", PAUSE),
        (504, "", PAUSE),
        (400, "RequestTimeout", PAUSE),
        (400, "ProvisionedThroughputExceededException", THROTTLED_PAUSE),
        (400, "ThrottlingException", THROTTLED_PAUSE),
        (400, "TransactionInProgressException", THROTTLED_PAUSE),
        (429, "TooManyRequestsException", THROTTLED_PAUSE),
        (503, "SlowDown", THROTTLED_PAUSE),
    ],
)
def test_what_is_over_in_a_moment_is_tried_again_after_pauses_that_double(
    server: CallbackServer, caller: Caller, status: int, error: str, pause: float
) -> None:
    server.status, server.error_type = status, error
    with pytest.raises(ServiceError, match=f"^{error or status}$"):
        caller.get()
    assert len(server.asked) == TRIES
    assert caller.pauses == [pause, 2 * pause]


def test_another_try_has_success(server: CallbackServer, caller: Caller) -> None:
    server.failing, server.status, server.answer = 2, 500, b'{"Item": {}}'
    assert caller.get() == {"Item": {}}
    assert len(server.asked) == 3


def test_an_answer_that_never_comes_is_asked_for_again(server: CallbackServer, caller: Caller) -> None:
    server.hang_up = 1
    assert caller.get() == {}
    assert len(server.asked) == 2
    server.hang_up = TRIES + 1  # one is that of the kept connection, which is replaced at once
    with pytest.raises(NoAnswerError, match=r"^RemoteDisconnected: "):
        caller.get()
    assert len(server.asked) == 2 + TRIES + 1
    assert len(caller.pauses) == 1 + TRIES - 1


def test_a_service_that_is_silent_is_given_up_after_three_timeouts(server: CallbackServer) -> None:
    server.silent = True
    caller = Caller(server.url, timeout=0.05)
    with pytest.raises(NoAnswerError, match=r"^TimeoutError: timed out$"):
        caller.get()
    caller.service.close()
    wait_until(lambda: len(server.asked) == TRIES, "the requests have come")


def test_nobody_listening_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses, and stays ours
        caller = Caller(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(NoAnswerError, match=r"^ConnectionRefusedError: "):
            caller.get()
    assert len(caller.pauses) == TRIES - 1


def test_a_damaged_answer_is_asked_for_again(server: CallbackServer, caller: Caller) -> None:
    """Source: DynamoDB developer guide, "DynamoDB low-level API": the CRC32 of the payload, as a decimal."""
    server.answer, server.checksum = b'{"Item": {}}', zlib.crc32(b'{"Item": {} }')
    with pytest.raises(NoAnswerError, match="damaged on the way"):
        caller.get()
    assert len(server.asked) == TRIES
    server.checksum = zlib.crc32(server.answer)
    assert caller.get() == {"Item": {}}


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]"])
def test_an_answer_that_is_no_object_is_none(server: CallbackServer, caller: Caller, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(NoAnswerError, match="is no JSON object"):
        caller.get()


def test_while_a_service_is_down_not_every_request_is_made_three_times(
    server: CallbackServer, caller: Caller
) -> None:
    server.status = 500
    calls = QUOTA // COST
    for _ in range(calls):
        with pytest.raises(ServiceError):
            caller.get()
    assert len(server.asked) == calls + QUOTA // COST, "each further try has taken its share"
    server.status = 200
    for _ in range(COST // GAIN):
        caller.get()
    server.status = 500
    server.asked.clear()
    with pytest.raises(ServiceError):
        caller.get()
    assert len(server.asked) == 2


def test_a_further_try_that_has_success_gives_back_what_it_took(
    server: CallbackServer, caller: Caller
) -> None:
    calls = QUOTA // (COST - GAIN) + 1
    for _ in range(calls):
        server.failing, server.status = 1, 500
        caller.get()
    assert len(server.asked) == 2 * calls
