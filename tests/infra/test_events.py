"""events/*.json: full-shape events whose MACs can be checked by hand."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import struct

import pytest

from emissary_lib.protocol.wire.frames import FrameType, decode
from tests.helpers.events import (
    DATE,
    DIALER,
    DIALER_AGAIN,
    EVENTS,
    HOST,
    INSTANCE,
    KEY,
    NONCE,
    NOW,
    RELAY,
    RELAY_TOKEN,
    RESUME_NONCE,
    RESUME_TOKEN,
    SESSION,
    STAGE,
    load_event,
)

ROUTES = {
    "connect_dialer": ("$connect", "CONNECT", DIALER),
    "connect_opening": ("$connect", "CONNECT", DIALER),
    "connect_relay": ("$connect", "CONNECT", RELAY),
    "connect_resume": ("$connect", "CONNECT", DIALER_AGAIN),
    "connect_wrong_key": ("$connect", "CONNECT", DIALER),
    "connect_late": ("$connect", "CONNECT", DIALER),
    "connect_unsigned": ("$connect", "CONNECT", DIALER),
    "connect_replayed_nonce": ("$connect", "CONNECT", "Uv8fabE0FiACDIA="),
    "connect_relay_duplicate": ("$connect", "CONNECT", "Uv8fXdR3FiACReL="),
    "default_opening": ("$default", "MESSAGE", DIALER),
    "default_data": ("$default", "MESSAGE", DIALER),
    "default_end": ("$default", "MESSAGE", DIALER),
    "default_resume": ("$default", "MESSAGE", DIALER_AGAIN),
    "default_garbage": ("$default", "MESSAGE", DIALER),
    "default_opening_greeting": ("$default", "MESSAGE", DIALER),
    "default_opening_password": ("$default", "MESSAGE", DIALER),
    "default_opening_request": ("$default", "MESSAGE", DIALER),
    "default_opening_refused": ("$default", "MESSAGE", DIALER),
    "default_data_gone": ("$default", "MESSAGE", DIALER),
    "default_data_stranger": ("$default", "MESSAGE", "Uv8fgone1FiACDI="),
    "default_opening_shared": ("$default", "MESSAGE", DIALER),
    "default_connections": ("$default", "MESSAGE", RELAY),
    "default_probe": ("$default", "MESSAGE", DIALER),
    "default_health": ("$default", "MESSAGE", DIALER),
    "default_forged": ("$default", "MESSAGE", DIALER),
    "disconnect_dialer": ("$disconnect", "DISCONNECT", DIALER),
    "disconnect_relay": ("$disconnect", "DISCONNECT", RELAY),
    "disconnect_dialer_opening": ("$disconnect", "DISCONNECT", DIALER),
}
RELAY_EVENTS = {
    "relay_start",
    "relay_duplicate",
    "relay_expired",
    "relay_refused",
    "relay_garbage",
    "relay_keep_alive",
}


def unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def test_every_event_is_known() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == {*ROUTES, *RELAY_EVENTS}


@pytest.mark.parametrize("name", ROUTES)
def test_an_event_has_the_shape_of_its_route(name: str) -> None:
    event = load_event(name)
    route, kind, connection = ROUTES[name]
    context = event["requestContext"]
    assert (context["routeKey"], context["eventType"], context["connectionId"]) == (route, kind, connection)
    assert (context["domainName"], context["stage"]) == (HOST, STAGE)
    assert context["apiId"] == HOST.partition(".")[0]
    assert context["requestTimeEpoch"] == NOW * 1000
    assert event["isBase64Encoded"] is False
    assert ("messageId" in context) is ("body" in event) is (route == "$default")
    assert ("headers" in event) is (route != "$default")
    assert ("disconnectStatusCode" in context) is (route == "$disconnect")
    if "headers" in event:
        assert event["multiValueHeaders"] == {key: [value] for key, value in event["headers"].items()}


def test_the_example_date_is_the_example_moment() -> None:
    moment = datetime.datetime(2026, 11, 22, 10, 15, tzinfo=datetime.UTC)
    assert moment.timestamp() == NOW
    assert moment.strftime("%a, %d %b %Y %H:%M:%S GMT") == DATE


def test_the_doors_mac_is_that_of_the_example_key() -> None:
    """docs/protocol.md section 7.2, written out."""
    fields = [b"emissary.v2 door", struct.pack(">I", 1), DATE.encode(), NONCE, HOST.encode()]
    content = b"".join(struct.pack(">H", len(field)) + field for field in fields)
    mac = hmac.digest(bytes(range(32)), content, "sha256")
    headers = load_event("connect_dialer")["headers"]
    assert KEY.secret == bytes(range(32))
    assert headers["X-Emissary-Key-Id"] == "1"
    assert headers["X-Emissary-Date"] == DATE
    assert headers["X-Emissary-Nonce"] == unpadded(bytes(range(64, 96)))
    assert headers["X-Emissary-Mac"] == unpadded(mac)
    assert hashlib.sha256(NONCE).hexdigest() == SESSION


def test_the_opening_that_is_shown_is_that_of_the_message_under_a_mac_of_its_own() -> None:
    """docs/protocol.md sections 3.7 and 7.2, written out."""
    message = decode(load_event("default_opening")["body"].encode())
    content = struct.pack(">I", message.window) + message.payload
    fields = [b"emissary.v2 opening", struct.pack(">I", 1), DATE.encode(), NONCE, HOST.encode(), content]
    mac = hmac.digest(
        bytes(range(32)), b"".join(struct.pack(">H", len(field)) + field for field in fields), "sha256"
    )
    headers, plain = load_event("connect_opening")["headers"], load_event("connect_dialer")["headers"]
    shown = {"X-Emissary-Opening": unpadded(content), "X-Emissary-Opening-Mac": unpadded(mac)}
    assert headers == plain | shown


def test_the_resumes_mac_covers_session_and_epoch() -> None:
    """docs/protocol.md sections 5.2 and 7.2, written out."""
    label, key_id, epoch = b"emissary.v2 resume", struct.pack(">I", 1), struct.pack(">I", 2)
    fields = [label, key_id, DATE.encode(), RESUME_NONCE, HOST.encode(), SESSION.encode(), epoch]
    content = b"".join(struct.pack(">H", len(field)) + field for field in fields)
    mac = hmac.digest(bytes(range(32)), content, "sha256")
    headers = load_event("connect_resume")["headers"]
    assert headers["X-Emissary-Date"] == DATE
    assert headers["X-Emissary-Nonce"] == unpadded(bytes(range(192, 224)))
    assert headers["X-Emissary-Mac"] == unpadded(mac)
    assert (headers["X-Emissary-Session"], headers["X-Emissary-Epoch"]) == (SESSION, "2")
    assert headers["X-Emissary-Resume-Token"] == unpadded(RESUME_TOKEN)


def test_the_resume_asks_in_the_generation_of_the_new_connection() -> None:
    frame = decode(load_event("default_resume")["body"].encode())
    assert (frame.type, frame.generation, frame.ack, frame.payload) == (FrameType.RESUME, 3, 400, b"")


def test_the_relays_headers_are_those_of_its_launch() -> None:
    headers = load_event("connect_relay")["headers"]
    start = load_event("relay_start")
    assert headers["X-Emissary-Session"] == start["session"] == SESSION
    assert headers["X-Emissary-Relay-Token"] == start["relay_token"] == unpadded(RELAY_TOKEN)
    assert start["resume_token"] == unpadded(RESUME_TOKEN)
    assert (headers["X-Emissary-Instance"], headers["X-Emissary-Epoch"]) == (INSTANCE, "1")


def test_the_opening_is_a_socks5_client_with_the_example_password() -> None:
    """RFC 1928, RFC 1929 and docs/protocol.md section 7.1, written out."""
    mac = hmac.digest(bytes(range(32)), DATE.encode() + b"\0" + unpadded(NONCE).encode(), "sha256")
    password = unpadded(struct.pack(">I", 1) + mac).encode()
    expected = (
        b"\x05\x01\x02"
        + b"\x01" + bytes([len(DATE)]) + DATE.encode() + bytes([len(password)]) + password
        + b"\x05\x01\x00\x03\x0bdb.internal" + struct.pack(">H", 5432)
    )  # fmt: skip
    frame = decode(load_event("default_opening")["body"].encode())
    assert (frame.type, frame.offset, frame.payload) == (FrameType.OPENING, 0, expected)
    assert load_event("relay_start")["client_offset"] == len(expected)


def test_the_opening_of_a_shared_session_asks_for_the_reserved_name_and_goes_on_with_http_2() -> None:
    """docs/protocol.md 11.1-1 and RFC 9113 section 3.4, written out."""
    plain = decode(load_event("default_opening")["body"].encode())
    frame = decode(load_event("default_opening_shared")["body"].encode())
    connect = b"\x05\x01\x00\x03\x14emissary.mux.invalid" + struct.pack(">H", 1)
    before = plain.payload[: -len(b"\x05\x01\x00\x03\x0bdb.internal\x15\x38")]
    assert frame.payload == before + connect + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert (frame.type, frame.generation, frame.offset) == (plain.type, plain.generation, plain.offset)


def test_a_relay_tells_of_its_connections_by_three_numbers() -> None:
    """docs/protocol.md 11.7-2, written out."""
    frame = decode(load_event("default_connections")["body"].encode())
    assert (frame.type, frame.flags, frame.generation) == (FrameType.CONNECTIONS, 0x02, 2)
    assert frame.payload == struct.pack(">III", 7, 2, 1)


def test_the_opening_in_parts_is_the_opening() -> None:
    parts = [
        decode(load_event(f"default_opening_{part}")["body"].encode())
        for part in ("greeting", "password", "request")
    ]
    whole = b""
    for part in parts:
        assert (part.type, part.offset) == (FrameType.OPENING, len(whole))
        whole += part.payload
    assert whole == decode(load_event("default_opening")["body"].encode()).payload


def test_the_late_one_has_the_right_key_and_is_more_than_a_quarter_of_an_hour_late() -> None:
    headers = load_event("connect_late")["headers"]
    date = "Sun, 22 Nov 2026 09:15:00 GMT"
    fields = [b"emissary.v2 door", struct.pack(">I", 1), date.encode(), NONCE, HOST.encode()]
    content = b"".join(struct.pack(">H", len(field)) + field for field in fields)
    assert headers["X-Emissary-Date"] == date
    assert headers["X-Emissary-Mac"] == unpadded(hmac.digest(bytes(range(32)), content, "sha256"))


def test_the_servers_bytes_are_banner_method_and_status() -> None:
    """docs/protocol.md sections 3.2 and 3.3, written out."""
    fields = [b"emissary.v2 server", struct.pack(">I", 1), DATE.encode(), NONCE, HOST.encode()]
    content = b"".join(struct.pack(">H", len(field)) + field for field in fields)
    mac = hmac.digest(bytes(range(32)), content, "sha256")
    banner = (
        b"\x0a\x0femissary-lambda" + b"\x12\x050.1.0" + b"\x18\x02" + b"\x22\x20" + NONCE + b"\x2a\x20" + mac
    )
    server_bytes = base64.b64decode(load_event("relay_start")["server_bytes"])
    assert server_bytes == bytes([len(banner)]) + banner + b"\x05\x02\x01\x00"


def test_events_are_plain_json_with_a_final_newline() -> None:
    for path in EVENTS.rglob("*.json"):
        text = path.read_text(encoding="ascii")
        assert text == json.dumps(json.loads(text), indent=2) + "\n"
