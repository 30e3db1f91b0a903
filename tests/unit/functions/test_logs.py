"""Log lines: JSON, with the session on each, and nothing secret on any."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from emissary_lib.protocol.auth.macs import ConnectHeaders, encode_unpadded
from emissary_lib.protocol.wire.frames import Frame, FrameType
from functions.common import logs
from functions.common.adapters.json_logging import use_json
from tests.helpers.events import DIALER, KEY, NONCE, RELAY, SESSION, load_event
from tests.unit.functions.bridge import Bridge, example_stream


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output, with the functions' log set up as in Lambda, at its most talkative."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    use_json("DEBUG", function="emissary-DefaultFunction")
    use_json("DEBUG", function="emissary-DefaultFunction")
    return out


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_session(written: io.StringIO) -> None:
    logs.info("relay launched", session=SESSION, target="db.internal:5432", key_id=1)
    (line,) = lines(written)
    assert (line["message"], line["level"], line["session"]) == ("relay launched", "INFO", SESSION)
    assert (line["target"], line["key_id"], line["service"]) == ("db.internal:5432", 1, "emissary")
    assert line["function"] == "emissary-DefaultFunction"
    assert line["location"].startswith("test_a_line_is_one_json_object_with_the_session:")


def test_a_field_that_is_not_on_the_list_is_withheld(written: io.StringIO) -> None:
    logs.warning("oversight", token="hush", payload="hush", target="shown")
    (line,) = lines(written)
    assert (line["token"], line["payload"], line["target"]) == ("[withheld]", "[withheld]", "shown")
    assert "hush" not in written.getvalue()


def test_what_libraries_log_stays_out_whatever_level_lambda_gives_the_root_logger() -> None:
    """Lambda sets it with the log format JSON; at DEBUG hpack would log what it reads."""
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.DEBUG)
        use_json("DEBUG")
        assert not logging.getLogger("hpack.hpack").isEnabledFor(logging.INFO)
    finally:
        root.setLevel(before)


def test_a_level_that_is_off_costs_nothing(written: io.StringIO) -> None:
    logging.getLogger(logs.NAME).setLevel("ERROR")
    logs.info("not written")
    assert written.getvalue() == ""


def secrets_of(bridge: Bridge) -> list[str]:
    """Everything that must never be in a log, in every form in which it could be."""
    shown = ConnectHeaders.from_headers(load_event("connect_dialer")["headers"])
    raw = [KEY.secret, NONCE, shown.mac, example_stream(), b"SELECT 1;", b"user bytes"]
    forms = [encode_unpadded(item) for item in raw] + [item.hex() for item in raw]
    forms += [repr(item)[2:-1] for item in raw]
    for event in bridge.launcher.events:
        forms += [event["relay_token"], event["resume_token"], event["server_bytes"]]
    forms += [*bridge.session.relay_token_hashes, *bridge.session.resume_token_hashes]
    return forms


def test_nothing_secret_is_logged_whatever_happens(written: io.StringIO) -> None:
    bridge = Bridge()
    wrong = load_event("connect_dialer", headers={"X-Emissary-Mac": encode_unpadded(KEY.secret)})
    assert bridge.connect(wrong)["statusCode"] == 403
    bridge.open()
    assert bridge.connect(load_event("connect_dialer", connection_id="replay="))["statusCode"] == 409
    assert bridge.connect(load_event("connect_relay", connection_id="late="))["statusCode"] == 409
    bridge.message(load_event("default_data"))
    bridge.message(load_event("default_garbage", body="user bytes " + encode_unpadded(KEY.secret)))
    bridge.send(DIALER, Frame(FrameType.RESUMED, payload=b"user bytes"))
    bridge.store.down = True
    for handler, name in ((bridge.connect, "connect_dialer"), (bridge.disconnect, "disconnect_dialer")):
        assert handler(load_event(name))["statusCode"] == 503
    bridge.store.down = False
    bridge.link.busy.add(RELAY)
    bridge.message(load_event("default_end"))
    bridge.disconnect(load_event("disconnect_relay"))
    text = written.getvalue()
    assert "session ended" in text
    assert "relay claimed" in text
    for secret in secrets_of(bridge):
        assert secret not in text
    about_a_session = [line for line in lines(written) if line["message"] != "request refused"]
    assert {line["session"] for line in about_a_session if line["message"] != "request failed"} == {SESSION}


def test_a_bugs_traceback_shows_no_values(written: io.StringIO) -> None:
    secret = "hush"

    def broken() -> None:
        _local = secret
        raise ZeroDivisionError

    try:
        broken()
    except ZeroDivisionError as exc:
        logs.error("unexpected error", exc)
    (line,) = lines(written)
    assert line["exception_name"] == "ZeroDivisionError"
    assert secret not in line["exception"].replace("_local = secret", "")
