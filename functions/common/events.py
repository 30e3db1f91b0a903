"""A typed view of an API Gateway WebSocket event.

Source: API Gateway developer guide, "Set up a WebSocket API integration request", and the requestContext
variables in "WebSocket API mapping template reference".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from emissary_lib.protocol.record import Record, hidden
from functions.common.errors import EventError


class GatewayEvent(Record):
    """One event of one WebSocket.

    Attributes:
        route: ``$connect``, ``$default`` or ``$disconnect``.
        connection_id: API Gateway's id of the WebSocket.
        domain: The API's domain name, which was the request's ``Host``.
        stage: The stage's name.
        request_id: API Gateway's id of this event, unique.
        headers: Of the upgrade request; only ``$connect`` has them.
        body: The message; only ``$default`` has one.
        source: The client's address, as API Gateway sees it.
        close_code: Only ``$disconnect``: the WebSocket's close code, as far as known.
    """

    route: str
    connection_id: str
    domain: str
    stage: str
    request_id: str
    headers: Mapping[str, str] = hidden(default=MappingProxyType({}))
    body: str = hidden(default="")
    close_code: int | None = None
    source: str = ""

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> GatewayEvent:
        """Read an event.

        Raises:
            EventError: If it is no WebSocket event.
        """
        if not isinstance(event, Mapping):
            raise EventError("not an API Gateway WebSocket event: it is no object")
        context = _mapping(event, "requestContext")
        headers = _mapping(event, "headers")
        code = context.get("disconnectStatusCode")
        return cls(
            _text(context, "routeKey"),
            _text(context, "connectionId"),
            _text(context, "domainName"),
            _text(context, "stage"),
            _text(context, "requestId"),
            {name: _text(headers, name) for name in headers},
            _text(event, "body", absent=""),
            code if isinstance(code, int) else None,
            _text(_mapping(context, "identity"), "sourceIp", absent=""),
        )

    def header(self, name: str) -> str | None:
        """A header's value, by its name in any case."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)


def _mapping(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise EventError(f"not an API Gateway WebSocket event: {name} is no object")
    return value


def _text(of: Mapping[str, Any], name: str, *, absent: str | None = None) -> str:
    value = of.get(name)
    if value is None:
        value = absent
    if not isinstance(value, str):
        raise EventError(f"not an API Gateway WebSocket event: {name} is absent or no text")
    return value
