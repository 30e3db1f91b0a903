"""Lambda's Runtime API, as one execution environment sees it: a minimal HTTP/1.1 server.

Its only client is AWS's runtime client (libcurl on one kept connection, and ``http.client`` for an init
error), so requests have a Content-Length or no body, and are never pipelined. Written by hand because it
is the hot path of every message: two requests per invocation.

Source: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes".
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

#: Largest answer of a function, in bytes. Source: AWS Lambda quotas, "Invocation payload" (6 MB; Lambda's
#: own error message gives the exact number).
MAX_RESPONSE: Final = 6_291_556

_MAX_HEAD: Final = 64 * 1024
_PREFIX: Final = "/2018-06-01/runtime/"
_OK: Final = b'{"status":"OK"}'


class RuntimeEvents(Protocol):
    """What an execution environment's runtime says; called on the event loop."""

    def next_requested(self, connection: RuntimeConnection) -> None:
        """The runtime asks for its next event; answer with :meth:`RuntimeConnection.send_event`."""

    def response_posted(self, request_id: str, body: bytes) -> bool:
        """The handler's answer; False if ``request_id`` is not the running invocation."""

    def response_too_large(self, request_id: str, size: int) -> bool:
        """The handler's answer was over :data:`MAX_RESPONSE` and was not kept."""

    def error_posted(self, request_id: str, body: bytes) -> bool:
        """The handler raised; ``body`` is the error JSON."""

    def init_failed(self, body: bytes) -> None:
        """The function's module could not be loaded; ``body`` is the error JSON."""


class RuntimeConnection(asyncio.Protocol):
    """One connection from a runtime."""

    def __init__(self, events: RuntimeEvents) -> None:
        self._events = events
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._body: list[bytes] = []
        self._missing = 0
        self._size = 0
        self._request: tuple[str, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A runtime has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; a whole one is acted upon."""
        if self._request is None:
            self._head = self._head + data if self._head else data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > _MAX_HEAD:
                    self.abort()
                return
            head, data, self._head = self._head[:end], self._head[end + 4 :], b""
            try:
                self._request, self._missing = _parse(head)
            except ValueError:
                self.abort()
                return
            self._size = self._missing
        if data:
            self._missing -= len(data)
            if self._size <= MAX_RESPONSE:  # what is larger is read and thrown away
                self._body.append(data)
        if self._missing <= 0:
            (method, path), self._request = self._request, None
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
            self._dispatch(method, path, body)

    def send_event(self, head: bytes, payload: bytes) -> None:
        """Answer the pending ``next``: ``head`` are header lines, each ending in CRLF."""
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (head, len(payload), payload)
        )

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _dispatch(self, method: str, path: str, body: bytes) -> None:
        parts = path.removeprefix(_PREFIX).split("/")
        if method == "GET" and parts == ["invocation", "next"]:
            self._events.next_requested(self)
        elif method == "POST" and parts == ["init", "error"]:
            self._events.init_failed(body)
            self._answer(202, _OK)
        elif method == "POST" and len(parts) == 3 and parts[0] == "invocation" and parts[2] == "response":
            if self._size > MAX_RESPONSE:
                known, status = self._events.response_too_large(parts[1], self._size), 413
            else:
                known, status = self._events.response_posted(parts[1], body), 202
            self._answer(status if known else 400, _OK if known and status == 202 else _WRONG[status])
        elif method == "POST" and len(parts) == 3 and parts[0] == "invocation" and parts[2] == "error":
            known = self._events.error_posted(parts[1], body)
            self._answer(202 if known else 400, _OK if known else _WRONG[202])
        else:
            self._answer(404, b'{"errorType":"NotFound","errorMessage":"no such Runtime API path"}')

    def _answer(self, status: int, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, _REASONS[status], len(body), body)
        )


_REASONS: Final = {202: b"Accepted", 400: b"Bad Request", 404: b"Not Found", 413: b"Payload Too Large"}
_WRONG: Final = {
    202: b'{"errorType":"InvalidRequestID","errorMessage":"Invalid request ID"}',
    413: b'{"errorType":"RequestEntityTooLarge","errorMessage":"Exceeded maximum allowed payload size"}',
}


def _parse(head: bytes) -> tuple[tuple[str, str], int]:
    """((method, path), content length) of a request head without its last CRLFs; ValueError if broken."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    length = 0
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return (method, path), length
