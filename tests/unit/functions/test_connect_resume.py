"""``$connect`` of a dialer that comes back: who is admitted, and what is left of the connection before."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.session import RELAY_TIME, Connection, RecordState, Side
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.auth.macs import encode_unpadded, http_date, resume_mac, sign_connect
from emissary_lib.protocol.role import Role
from functions.common.adapters.keys import EnvironmentKeys
from tests.helpers.events import (
    DATE,
    DIALER,
    DIALER_AGAIN,
    HOST,
    KEY,
    NOW,
    RELAY,
    RESUME_NONCE,
    SESSION,
    load_event,
)
from tests.unit.functions.bridge import Bridge

ADMITTED = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "emissary.v2"}}
OTHER_KEY = Key(2, bytes(range(100, 132)))


def opened() -> Bridge:
    bridge = Bridge()
    bridge.open()
    return bridge


def mac(key: Key = KEY, *, date: str = DATE, host: str = HOST, session: str = SESSION, epoch: int = 2) -> str:
    return encode_unpadded(
        resume_mac(key, date=date, nonce=RESUME_NONCE, host=host, session=session, epoch=epoch)
    )


def test_the_real_event_is_admitted_with_the_token_of_the_launch() -> None:
    bridge = opened()
    token = bridge.launcher.events[0]["resume_token"]
    assert (
        bridge.connect(load_event("connect_resume", headers={"X-Emissary-Resume-Token": token})) == ADMITTED
    )
    session = bridge.session
    assert session.dialer == Side(DIALER_AGAIN, 2, previous=DIALER)
    assert (session.state, session.relay, session.generation) == (RecordState.OPEN, Side(RELAY, 1), 3)
    assert bridge.store.connections[DIALER_AGAIN] == Connection(DIALER_AGAIN, SESSION, Role.DIALER, 2)
    assert session.expires == NOW + RELAY_TIME, "a resume gives no more time"


def test_a_dialer_whose_disconnect_was_seen_leaves_nothing_to_close() -> None:
    bridge = opened()
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.resume() == ADMITTED
    assert bridge.session.dialer == Side(DIALER_AGAIN, 2)


HEADERS = ["Key-Id", "Date", "Nonce", "Mac", "Session", "Epoch"]


@pytest.mark.parametrize(
    ("header", "value"),
    [(header, value) for header in HEADERS for value in ("", "nonsense!", None)]
    + [("Resume-Token", ""), ("Resume-Token", "nonsense!")],
)
def test_without_a_usable_header_the_status_is_401(header: str, value: str | None) -> None:
    bridge = opened()
    writes = bridge.store.writes
    assert bridge.resume(headers={f"X-Emissary-{header}": value}) == {"statusCode": 401}
    assert bridge.store.writes == writes


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"X-Emissary-Key-Id": "9"}, id="unknown key"),
        pytest.param({"X-Emissary-Mac": encode_unpadded(bytes(32))}, id="wrong MAC"),
        pytest.param({"X-Emissary-Mac": mac(Key(1, bytes(32)))}, id="another secret"),
        pytest.param({"X-Emissary-Mac": mac(session="0" * 64)}, id="MAC for another session"),
        pytest.param({"X-Emissary-Mac": mac(epoch=3)}, id="MAC for another epoch"),
        pytest.param({"X-Emissary-Mac": mac(host="evil.example")}, id="MAC for another API"),
        pytest.param({"X-Emissary-Nonce": encode_unpadded(bytes(32))}, id="another nonce"),
        pytest.param({"X-Emissary-Date": http_date(NOW + 1)}, id="another date"),
        pytest.param({"X-Emissary-Epoch": "7"}, id="another epoch"),
        pytest.param(
            sign_connect(KEY, date=DATE, nonce=RESUME_NONCE, host=HOST).to_headers(),
            id="a first connect's",
        ),
    ],
)
def test_with_wrong_credentials_the_status_is_403_and_nothing_is_written(changes: dict[str, str]) -> None:
    bridge = opened()
    writes = bridge.store.writes
    assert bridge.resume(headers=changes) == {"statusCode": 403}
    assert bridge.store.writes == writes


@pytest.mark.parametrize(("offset", "status"), [(-900, 200), (900, 200), (-901, 403), (901, 403)])
def test_a_date_up_to_15_minutes_off_is_accepted(offset: int, status: int) -> None:
    bridge = opened()
    date = http_date(NOW + offset)
    headers = {"X-Emissary-Date": date, "X-Emissary-Mac": mac(date=date)}
    assert bridge.resume(headers=headers)["statusCode"] == status


@pytest.mark.parametrize(("epoch", "status"), [(1, 409), (2, 200), (70_000, 200)])
def test_the_epoch_has_to_rise(epoch: int, status: int) -> None:
    bridge = opened()
    assert bridge.resume(epoch)["statusCode"] == status
    assert bridge.session.dialer.epoch == (epoch if status == 200 else 1)


def test_an_attempt_that_was_overtaken_is_409_and_changes_nothing() -> None:
    bridge = opened()
    assert bridge.resume(3, connection_id="third=") == ADMITTED
    assert bridge.resume(2, connection_id="second=") == {"statusCode": 409}
    assert bridge.session.dialer == Side("third=", 3, previous=DIALER)
    assert "second=" not in bridge.store.connections


def test_each_attempt_keeps_the_connection_before_it() -> None:
    bridge = opened()
    bridge.resume(2, connection_id="second=")
    bridge.resume(3, connection_id="third=")
    assert bridge.session.dialer == Side("third=", 3, previous="second=")


def test_a_replayed_resume_is_409() -> None:
    bridge = opened()
    bridge.resume()
    assert bridge.resume(connection_id="thief=") == {"statusCode": 409}
    assert bridge.session.dialer.connection == DIALER_AGAIN


def test_another_valid_key_cannot_take_the_session() -> None:
    bridge = opened()
    bridge.keys = EnvironmentKeys(KeyRing([KEY, OTHER_KEY]))
    headers = {"X-Emissary-Key-Id": "2", "X-Emissary-Mac": mac(OTHER_KEY)}
    assert bridge.resume(headers=headers) == {"statusCode": 409}
    assert bridge.session.dialer == Side(DIALER, 1)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X-Emissary-Resume-Token": encode_unpadded(bytes(32))}, id="another token"),
        pytest.param(
            {"X-Emissary-Session": "0" * 64, "X-Emissary-Mac": mac(session="0" * 64)}, id="no such session"
        ),
    ],
)
def test_without_the_sessions_token_the_status_is_409(headers: dict[str, str]) -> None:
    bridge = opened()
    assert bridge.resume(headers=headers) == {"statusCode": 409}
    assert bridge.session.dialer == Side(DIALER, 1)


def test_the_relays_token_is_not_the_dialers() -> None:
    bridge = opened()
    token = bridge.launcher.events[0]["relay_token"]
    assert bridge.resume(headers={"X-Emissary-Resume-Token": token}) == {"statusCode": 401}


def test_a_session_that_no_relay_has_claimed_is_not_resumed() -> None:
    bridge = Bridge()
    bridge.launch()
    assert bridge.resume() == {"statusCode": 409}
    assert bridge.session.state is RecordState.INVOKED


def test_a_dialer_is_admitted_to_an_ended_session_and_it_stays_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = opened()
    bridge.message(load_event("default_end"))
    ending = bridge.session.ending
    bridge.link.take()
    with caplog.at_level(logging.INFO, logger="emissary"):
        assert bridge.resume() == ADMITTED
    assert (bridge.session.state, bridge.session.ending) == (RecordState.ENDED, ending)
    assert bridge.session.dialer == Side(DIALER_AGAIN, 2, previous=DIALER)
    assert bridge.link.take() == []
    assert [record.getMessage() for record in caplog.records] == ["dialer asks for the end"]


@pytest.mark.parametrize(("after", "status"), [(0, 200), (2000, 200)])
def test_how_a_session_ended_can_be_asked_as_long_as_its_item_is_there(after: float, status: int) -> None:
    bridge = opened()
    bridge.message(load_event("default_end"))
    bridge.clock.now += after
    assert bridge.resume()["statusCode"] == status
    del bridge.store.sessions[SESSION]
    assert bridge.resume(3)["statusCode"] == 409


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X-Emissary-Resume-Token": encode_unpadded(bytes(32))}, id="another token"),
        pytest.param({"X-Emissary-Epoch": "1", "X-Emissary-Mac": mac(epoch=1)}, id="an old epoch"),
    ],
)
def test_only_its_own_dialer_may_ask_how_a_session_ended(headers: dict[str, str]) -> None:
    bridge = opened()
    bridge.message(load_event("default_end"))
    assert bridge.resume(headers=headers) == {"statusCode": 409}
    assert bridge.session.dialer == Side(DIALER, 1)


@pytest.mark.parametrize(("after", "status"), [(RELAY_TIME - 0.1, 200), (RELAY_TIME, 409)])
def test_a_session_can_be_resumed_until_its_relays_end(after: float, status: int) -> None:
    bridge = opened()
    bridge.clock.now = NOW + after
    assert bridge.resume()["statusCode"] == status


def test_why_a_resume_is_refused_stands_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    bridge = opened()
    with caplog.at_level(logging.INFO, logger="emissary"):
        assert bridge.resume(1) == {"statusCode": 409}
    assert [getattr(record, "cause", None) for record in caplog.records] == ["epoch 1 is not above 1"]


def test_a_store_that_is_down_is_503_so_that_the_dialer_tries_again() -> None:
    bridge = opened()
    bridge.store.down = True
    assert bridge.resume() == {"statusCode": 503}
