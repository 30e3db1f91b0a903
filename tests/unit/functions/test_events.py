"""The typed view of API Gateway's events."""

from __future__ import annotations

from typing import Any

import pytest

from functions.common.errors import EventError
from functions.common.events import GatewayEvent
from tests.helpers.events import DIALER, HOST, RELAY, STAGE, load_event


def test_a_connect_event_has_headers() -> None:
    event = GatewayEvent.parse(load_event("connect_dialer"))
    assert (event.route, event.connection_id) == ("$connect", DIALER)
    assert (event.domain, event.stage) == (HOST, STAGE)
    assert event.header("sec-websocket-PROTOCOL") == "emissary.v2"
    assert event.header("absent") is None
    assert event.body == ""


def test_a_message_event_has_a_body_and_no_headers() -> None:
    raw = load_event("default_data")
    event = GatewayEvent.parse(raw)
    assert (event.route, event.body) == ("$default", raw["body"])
    assert event.headers == {}
    assert event.request_id == raw["requestContext"]["requestId"]


def test_a_disconnect_event_has_a_close_code() -> None:
    event = GatewayEvent.parse(load_event("disconnect_relay"))
    assert (event.route, event.connection_id, event.close_code) == ("$disconnect", RELAY, 1006)


def test_its_text_form_holds_no_header_and_no_message() -> None:
    for name in ("connect_dialer", "default_data"):
        event = GatewayEvent.parse(load_event(name))
        assert "headers" not in repr(event)
        assert "body" not in repr(event)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("requestContext",), []),
        (("requestContext",), "text"),
        (("requestContext", "identity"), "10.0.0.1"),
        (("requestContext", "identity"), [1]),
        (("requestContext", "identity"), {"sourceIp": 7}),
        (("requestContext", "connectionId"), 7),
        (("requestContext", "routeKey"), None),
        (("headers",), ["Host"]),
        (("headers",), {"Host": 1}),
        (("body",), {"a": 1}),
    ],
)
def test_what_has_another_shape_is_named(path: tuple[str, ...], value: object) -> None:
    event = load_event("default_data")
    place = event
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(EventError, match=path[-1] + "|sourceIp|Host"):
        GatewayEvent.parse(event)


def test_a_close_code_that_is_no_number_is_not_known() -> None:
    event = load_event("disconnect_relay")
    event["requestContext"]["disconnectStatusCode"] = "1006"
    assert GatewayEvent.parse(event).close_code is None


@pytest.mark.parametrize("event", [None, [], "event", 5])
def test_what_is_no_object_is_no_event(event: Any) -> None:
    with pytest.raises(EventError):
        GatewayEvent.parse(event)


@pytest.mark.parametrize("absent", ["routeKey", "connectionId", "domainName", "stage", "requestId"])
def test_what_is_absent_is_named(absent: str) -> None:
    event = load_event("default_data")
    del event["requestContext"][absent]
    with pytest.raises(EventError, match=absent):
        GatewayEvent.parse(event)
