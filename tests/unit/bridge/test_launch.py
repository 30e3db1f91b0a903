"""The launch event: read completely, refused by name of the fault alone, and never shown."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_lib.bridge.launch import Launch
from emissary_lib.protocol.errors import RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.wire.base64 import encode_unpadded
from tests.helpers.events import RELAY_TOKEN, RESUME_TOKEN, SESSION, TARGET, load_event


def test_example_event_is_read() -> None:
    launch = Launch.parse(load_event("relay_start"))
    assert (launch.session, str(launch.target)) == (SESSION, TARGET)
    assert (launch.relay_token, launch.resume_token) == (RELAY_TOKEN, RESUME_TOKEN)
    assert launch.server_bytes.endswith(b"\x05\x02\x01\x00")  # method choice, authentication status
    assert (launch.client_offset, launch.early, launch.window) == (101, b"", 2097152)
    assert (launch.dialer_connection, launch.dialer_epoch) == ("Uv8abcE0FiACDIA=", 1)


def test_the_relay_is_told_the_key_for_its_log_but_by_no_older_bridge() -> None:
    event = load_event("relay_start")
    assert Launch.parse(event).key_id == 1
    del event["key_id"]
    launch = Launch.parse(event)
    assert launch.key_id is None
    assert Launch.parse(launch.to_event()) == launch
    with pytest.raises(RemoteProtocolError, match="malformed"):
        Launch.parse({**event, "key_id": []})


def test_what_is_written_is_the_example_and_reads_back() -> None:
    event = load_event("relay_start")
    assert Launch.parse(event).to_event() == event


def test_repr_shows_no_secret() -> None:
    shown = repr(Launch.parse(load_event("relay_start")))
    assert SESSION in shown
    for secret in (RELAY_TOKEN, RESUME_TOKEN):
        assert repr(secret)[2:-1] not in shown


@pytest.mark.parametrize("version", [None, 1, 3, "2"])
def test_event_of_another_version_is_refused(version: object) -> None:
    with pytest.raises(UnsupportedVersionError, match="version"):
        Launch.parse({**load_event("relay_start"), "version": version})


@pytest.mark.parametrize("event", [None, [], "2"])
def test_what_is_no_object_is_refused(event: Any) -> None:
    with pytest.raises(UnsupportedVersionError, match="version None"):
        Launch.parse(event)


@pytest.mark.parametrize(
    "name", sorted(set(load_event("relay_start")) - {"version", "host", "key_id", "short"})
)
@pytest.mark.parametrize("how", ["absent", "null", "list"])
def test_malformed_field_is_refused(name: str, how: str) -> None:
    event: dict[str, Any] = load_event("relay_start")
    if how == "absent":
        del event[name]
    else:
        event[name] = None if how == "null" else []
    with pytest.raises(RemoteProtocolError, match="malformed") as caught:
        Launch.parse(event)
    assert encode_unpadded(RELAY_TOKEN) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session", SESSION + "\r\nX-Emissary-Instance: 0"),
        ("session", SESSION.upper()),
        ("relay_token", "!"),
        ("resume_token", encode_unpadded(RESUME_TOKEN + b"\0")),
        ("resume_token", "!"),
        ("server_bytes", "a\nb="),
        ("client_offset", "x"),
        ("window", float("inf")),
        ("expires", float("nan")),
        ("expires", "inf"),
        ("target", {"host": "", "port": 5432}),
        ("target", {"host": "db.internal", "port": 65536}),
        ("target", {"host": "db.internal"}),
    ],
)
def test_value_out_of_range_is_refused_without_being_shown(name: str, value: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Launch.parse({**load_event("relay_start"), name: value})
    assert caught.value.__cause__ is None
    assert str(value) not in str(caught.value)
