"""events: the JSON is API Gateway's, and the quick way of writing it is right for any text."""

from __future__ import annotations

import base64
import json

import pytest

from emissary_local.gateway.events import Client, EventWriter, json_string, new_id, request_time, without_port

CLIENT = Client(
    "L0SM9cOFvHcCIhw=",
    "127.0.0.1:8443",
    "127.0.0.1",
    "prod",
    "emissary00",
    "10.1.2.3",
    'agent "x"',
    1_700_000_000_123,
)
NOW = 1_700_000_060.5


def test_ids_look_like_api_gateways_and_need_escaping_in_urls() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    for each in ids:
        assert len(each) == 16
        assert each.endswith("=")
        assert len(base64.urlsafe_b64decode(each)) == 11


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"YWJj/+=",
        b'"',
        b"\\",
        b"\n\r\t\x00\x1f",
        b"\x7f",
        "ü€😀".encode(),
        b" " * 10,
        bytes(range(0x20, 0x7F)),
    ],
    ids=repr,
)
def test_any_text_survives_as_a_json_string(text: bytes) -> None:
    assert json.loads(json_string(text)) == text.decode()


def test_request_time_is_common_log_format_in_utc_whatever_the_locale() -> None:
    assert request_time(1_700_000_000) == "14/Nov/2023:22:13:20 +0000"


@pytest.mark.parametrize(
    ("authority", "host"),
    [("a:8443", "a"), ("a", "a"), ("[::1]:8443", "[::1]"), ("[::1]", "[::1]"), ("", "")],
)
def test_a_host_is_told_without_its_port(authority: str, host: str) -> None:
    assert without_port(authority) == host


def test_a_message_event_is_complete() -> None:
    event = json.loads(EventWriter(CLIENT).message("$default", "REQ=", "MSG=", b'say "hi"', NOW))
    assert event == {
        "requestContext": {
            "routeKey": "$default",
            "eventType": "MESSAGE",
            "messageDirection": "IN",
            "messageId": "MSG=",
            "requestId": "REQ=",
            "extendedRequestId": "REQ=",
            "requestTime": "14/Nov/2023:22:14:20 +0000",
            "requestTimeEpoch": 1_700_000_060_500,
            "stage": "prod",
            "connectedAt": 1_700_000_000_123,
            "identity": {"userAgent": 'agent "x"', "sourceIp": "10.1.2.3"},
            "domainName": "127.0.0.1",
            "connectionId": "L0SM9cOFvHcCIhw=",
            "apiId": "emissary00",
        },
        "body": 'say "hi"',
        "isBase64Encoded": False,
    }


def test_a_connect_event_keeps_repeated_headers_and_drops_hop_by_hop_ones() -> None:
    headers = [("Host", "h"), ("X-A", "1"), ("X-A", "2"), ("Connection", "Upgrade"), ("UPGRADE", "websocket")]
    event = json.loads(EventWriter(CLIENT).connect("REQ=", headers, "", NOW, secure=True))
    assert event["headers"]["X-A"] == "2"
    assert event["multiValueHeaders"]["X-A"] == ["1", "2"]
    assert set(event["headers"]) == {
        "Host", "X-A", "X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto",
    }  # fmt: skip
    assert event["headers"]["X-Forwarded-Port"] == "8443"
    assert event["headers"]["X-Forwarded-Proto"] == "https"
    assert "queryStringParameters" not in event
    assert "messageId" not in event["requestContext"]
    assert "body" not in event


def test_a_disconnect_event_tells_code_and_reason() -> None:
    event = json.loads(EventWriter(CLIENT).disconnect("REQ=", 1001, "Going away", NOW))
    context = event["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1001, "Going away")
    assert (context["routeKey"], context["eventType"]) == ("$disconnect", "DISCONNECT")
    assert event["headers"]["Host"] == "127.0.0.1"


def test_a_client_without_a_user_agent_has_none_in_its_identity() -> None:
    assert Client("c", "h:1", "h", "s", "a", "10.0.0.1", None, 0).identity == {"sourceIp": "10.0.0.1"}
