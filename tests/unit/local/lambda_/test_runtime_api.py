"""The Runtime API's HTTP, byte by byte."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from emissary_local.lambda_.runtime_api import MAX_RESPONSE, RuntimeConnection

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True


class Events:
    """Notes what the runtime said; knows the request id ``r1`` only."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def next_requested(self, connection: RuntimeConnection) -> None:
        self.said.append(("next",))

    def response_posted(self, request_id: str, body: bytes) -> bool:
        self.said.append(("response", request_id, body))
        return request_id == "r1"

    def response_too_large(self, request_id: str, size: int) -> bool:
        self.said.append(("too large", request_id, size))
        return request_id == "r1"

    def error_posted(self, request_id: str, body: bytes) -> bool:
        self.said.append(("error", request_id, body))
        return request_id == "r1"

    def init_failed(self, body: bytes) -> None:
        self.said.append(("init", body))


def connect() -> tuple[RuntimeConnection, Events, Transport]:
    events, transport = Events(), Transport()
    connection = RuntimeConnection(events)
    connection.connection_made(transport)
    return connection, events, transport


def post(path: str, body: bytes) -> bytes:
    head = f"POST /2018-06-01/runtime/{path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_requests_are_read_whatever_the_pieces_they_come_in(size: int) -> None:
    connection, events, _ = connect()
    for request in (NEXT, post("invocation/r1/response", b'{"statusCode": 200}'), NEXT):
        for start in range(0, len(request), size):
            connection.data_received(request[start : start + size])
    assert events.said == [("next",), ("response", "r1", b'{"statusCode": 200}'), ("next",)]


def test_event_goes_out_with_its_headers_and_length() -> None:
    connection, _, transport = connect()
    connection.data_received(NEXT)
    assert transport.written == b"", "the runtime waits until there is an event"
    connection.send_event(b"Lambda-Runtime-Aws-Request-Id: r1\r\n", b'{"a":1}')
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nLambda-Runtime-Aws-Request-Id: r1\r\n" in head
    assert head.endswith(b"Content-Length: 7")
    assert body == b'{"a":1}'


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("invocation/r1/response", 202),
        ("invocation/r1/error", 202),
        ("invocation/other/response", 400),
        ("invocation/other/error", 400),
        ("init/error", 202),
        ("no/such/path", 404),
    ],
)
def test_post_is_answered_with_its_status(path: str, status: int) -> None:
    connection, _, transport = connect()
    connection.data_received(post(path, b"{}"))
    assert transport.written.startswith(f"HTTP/1.1 {status} ".encode())


def test_response_that_is_too_large_is_not_kept_and_refused() -> None:
    connection, events, transport = connect()
    connection.data_received(post("invocation/r1/response", b"x" * (MAX_RESPONSE + 1)))
    assert events.said == [("too large", "r1", MAX_RESPONSE + 1)]
    assert transport.written.startswith(b"HTTP/1.1 413 ")
    connection.data_received(NEXT)
    assert events.said[-1] == ("next",)


@pytest.mark.parametrize("garbage", [b"\r\n\r\n", b"GET /\r\n\r\n", b"x" * 70_000])
def test_garbage_ends_the_connection(garbage: bytes) -> None:
    connection, events, transport = connect()
    connection.data_received(garbage)
    assert transport.aborted
    assert events.said == []
