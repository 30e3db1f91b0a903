"""The typed view of API Gateway's events."""

from __future__ import annotations

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


@pytest.mark.parametrize("absent", ["routeKey", "connectionId", "domainName", "stage", "requestId"])
def test_what_is_absent_is_named(absent: str) -> None:
    event = load_event("default_data")
    del event["requestContext"][absent]
    with pytest.raises(EventError, match=absent):
        GatewayEvent.parse(event)
