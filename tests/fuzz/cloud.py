"""What AWS hands to the functions: API Gateway's events, the relay's launch, the table's items."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final

from emissary_lib.bridge.items import new_session, read_connection, read_session
from emissary_lib.bridge.launch import Launch
from emissary_lib.protocol.errors import RemoteProtocolError
from functions.common.errors import EventError
from functions.common.events import GatewayEvent

#: As DynamoDB gives numbers: up to 38 digits, exponents from -130 to 125.
_NUMBER: Final = re.compile(r"-?[0-9]{1,38}(\.[0-9]{1,38})?(E[+-]?[0-9]{1,2})?")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def gateway_event(data: bytes) -> None:
    try:
        event = GatewayEvent.parse(_json(data))
    except EventError:
        return
    for name, value in event.headers.items():
        assert isinstance(value, str)
        assert event.header(name.upper()) is not None or name.upper().lower() != name.lower()
    assert all(isinstance(each, str) for each in (event.route, event.connection_id, event.body, event.source))


def launch_event(data: bytes) -> None:
    try:
        launch = Launch.parse(_json(data))
    except RemoteProtocolError:
        return
    assert Launch.parse(json.loads(json.dumps(launch.to_event()))) == launch


def items(data: bytes) -> None:
    """Attributes in DynamoDB's form, of any name and type: a session, a connection, or neither."""
    document = _json(data)
    if not isinstance(document, dict):
        return
    item = {name: found for name, value in document.items() if (found := _attribute(value)) is not None}
    try:
        read_connection(item)
    except (LookupError, ValueError):
        pass
    try:
        session = read_session(item)
        made = new_session(session)
    except (LookupError, ValueError):
        return
    again = read_session(made)
    for name in ("id", "version", "state", "key_id", "nonce", "date", "host", "started", "expires", "source"):
        assert getattr(again, name) == getattr(session, name), name


def _attribute(value: Any) -> dict[str, Any] | None:
    match value:
        case {"S": str()}:
            return {"S": value["S"]}
        case {"N": str(number)} if _NUMBER.fullmatch(number):
            return {"N": number}
        case {"B": str(text)}:
            return {"B": base64.b64encode(text.encode("utf-8", "replace"))}
        case {"SS": [*members]} if members and all(isinstance(each, str) for each in members):
            return {"SS": members}
    return None
