"""The event JSON that API Gateway hands to a WebSocket route's function, built cheaply.

Source: API Gateway Developer Guide, "Set up a WebSocket API integration request" ($context variables and
the Lambda proxy event); the shape of ``$disconnect`` events from logged ones.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

#: Headers that belong to one hop and never reach the function.
_HOP_BY_HOP: Final = frozenset({"connection", "upgrade"})

#: Every byte that stands for itself inside a JSON string.
_PLAIN: Final = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')


def new_id() -> str:
    """A fresh id as API Gateway makes them for connections, requests and messages.

    Eleven random bytes in URL-safe base64: 15 characters and one ``=``, which is why an id must be escaped
    in a URL.
    """
    return base64.urlsafe_b64encode(os.urandom(11)).decode()


def without_port(authority: str) -> str:
    """The host of ``host:port``; an IPv6 address keeps its brackets."""
    host, colon, port = authority.rpartition(":")
    return host if colon and port.isdigit() else authority


def json_string(text: bytes) -> bytes:
    """``text``, which must be UTF-8, as a JSON string with its quotes.

    A tunnel's messages are base64; they are found plain in one pass in C, and copied as they are.
    """
    if not text.translate(None, _PLAIN):
        return b'"%b"' % text
    return json.dumps(text.decode()).encode()


def request_time(now: float) -> str:
    """``requestTime``: Common Log Format, in UTC, for example ``22/Nov/2026:10:15:00 +0000``."""
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    at = time.gmtime(now)
    return f"{at.tm_mday:02d}/{month[at.tm_mon - 1]}/{at.tm_year}:{time.strftime('%H:%M:%S', at)} +0000"


@dataclass(frozen=True, slots=True)
class Client:
    """What the events of one connection have in common.

    Attributes:
        connection_id: Its id.
        authority: The ``Host`` header it came with, port included.
        domain_name: What the events call the API: on AWS the same without a port, since there is only 443.
        stage: The API's stage.
        api_id: The API's id.
        source_ip: The client's address.
        user_agent: Its ``User-Agent`` header, or None.
        connected_at: Milliseconds since 1970.
    """

    connection_id: str
    authority: str
    domain_name: str
    stage: str
    api_id: str
    source_ip: str
    user_agent: str | None
    connected_at: int

    @property
    def identity(self) -> dict[str, str]:
        """``requestContext.identity``, as ``GetConnection`` shows it too."""
        agent = {"userAgent": self.user_agent} if self.user_agent is not None else {}
        return {**agent, "sourceIp": self.source_ip}


class EventWriter:
    """Writes the events of one connection.

    Args:
        client: The connection.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._authorizer: Mapping[str, Any] | None = None
        self._message_heads: dict[str, bytes] = {}

    def set_authorizer(self, context: Mapping[str, Any]) -> None:
        """Put an authorizer's answer into every event from now on; before the first message."""
        self._authorizer = context

    def connect(
        self, request_id: str, headers: Iterable[tuple[str, str]], query: str, now: float, *, secure: bool
    ) -> bytes:
        """The ``$connect`` event.

        Args:
            request_id: Id of this request.
            headers: The upgrade's headers in order, repeated ones repeated.
            query: The query string as sent, without ``?``.
            now: Seconds since 1970.
            secure: Whether the client came over TLS.
        """
        end_to_end = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
        event = self._upgrade(request_id, end_to_end, query, now, secure=secure)
        return _dump({**event, "isBase64Encoded": False})

    def authorization(
        self,
        method_arn: str,
        request_id: str,
        headers: Iterable[tuple[str, str]],
        query: str,
        now: float,
        *,
        secure: bool,
    ) -> bytes:
        """The event of a REQUEST authorizer, asked about the ARN ``method_arn``; else as :meth:`connect`."""
        event = self._upgrade(request_id, headers, query, now, secure=secure)
        return _dump({"type": "REQUEST", "methodArn": method_arn, **event, "stageVariables": {}})

    def _upgrade(
        self, request_id: str, headers: Iterable[tuple[str, str]], query: str, now: float, *, secure: bool
    ) -> dict[str, Any]:
        several: dict[str, list[str]] = {}
        for name, value in headers:
            several.setdefault(name, []).append(value)
        for name, value in self._added_headers(now, secure=secure):
            several.setdefault(name, []).append(value)
        event: dict[str, Any] = {
            "headers": {name: values[-1] for name, values in several.items()},
            "multiValueHeaders": several,
        }
        if query:
            asked: dict[str, list[str]] = {}
            for name, value in parse_qsl(query, keep_blank_values=True):
                asked.setdefault(name, []).append(value)
            event["queryStringParameters"] = {name: values[-1] for name, values in asked.items()}
            event["multiValueQueryStringParameters"] = asked
        event["requestContext"] = self._context("$connect", "CONNECT", request_id, now)
        return event

    def message(self, route: str, request_id: str, message_id: str, body: bytes, now: float) -> bytes:
        """The event of one text message.

        Args:
            route: The key of the route that it takes.
            request_id: Id of this request.
            message_id: Id of this message.
            body: The message; valid UTF-8.
            now: Seconds since 1970.
        """
        variable = (
            f',"requestId":"{request_id}","extendedRequestId":"{request_id}","messageId":"{message_id}",'
            f'"requestTime":"{request_time(now)}","requestTimeEpoch":{int(now * 1000)}}},"body":'
        ).encode()
        head = self._message_heads.get(route) or self._message_head(route)
        return b'%b%b%b,"isBase64Encoded":false}' % (head, variable, json_string(body))

    def _message_head(self, route: str) -> bytes:
        # What is the same in all MESSAGE events of a route is written once: the hot path fills holes.
        fixed = {"routeKey": route, "eventType": "MESSAGE", "messageDirection": "IN", **self._constant()}
        head = self._message_heads[route] = b'{"requestContext":' + _dump(fixed)[:-1]
        return head

    def disconnect(self, request_id: str, code: int, reason: str, now: float) -> bytes:
        """The ``$disconnect`` event.

        Args:
            request_id: Id of this request.
            code: The WebSocket close code; 1006 when the connection was lost without one.
            reason: The close reason, possibly empty.
            now: Seconds since 1970.
        """
        headers = {"Host": self._client.domain_name, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
        context = self._context("$disconnect", "DISCONNECT", request_id, now)
        context["disconnectStatusCode"] = code
        context["disconnectReason"] = reason
        return _dump(
            {
                "headers": headers,
                "multiValueHeaders": {name: [value] for name, value in headers.items()},
                "requestContext": context,
                "isBase64Encoded": False,
            }
        )

    def _context(self, route: str, kind: str, request_id: str, now: float) -> dict[str, Any]:
        return {
            "routeKey": route,
            "eventType": kind,
            "extendedRequestId": request_id,
            "requestTime": request_time(now),
            "messageDirection": "IN",
            "requestTimeEpoch": int(now * 1000),
            "requestId": request_id,
            **self._constant(),
        }

    def _constant(self) -> dict[str, Any]:
        return {
            "stage": self._client.stage,
            "connectedAt": self._client.connected_at,
            "identity": self._client.identity,
            "domainName": self._client.domain_name,
            "connectionId": self._client.connection_id,
            "apiId": self._client.api_id,
            **({} if self._authorizer is None else {"authorizer": self._authorizer}),
        }

    def _added_headers(self, now: float, *, secure: bool) -> list[tuple[str, str]]:
        port = self._client.authority.rpartition(":")[2]
        default = "443" if secure else "80"
        return [
            ("X-Amzn-Trace-Id", f"Root=1-{int(now):08x}-{os.urandom(12).hex()}"),
            ("X-Forwarded-For", self._client.source_ip),
            ("X-Forwarded-Port", port if port.isdigit() else default),
            ("X-Forwarded-Proto", "https" if secure else "http"),
        ]


def _dump(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()
