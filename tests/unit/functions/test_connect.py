"""``$connect`` with real events: who is admitted, and what the others are told."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.session import Connection, RecordState, Side
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.auth.macs import encode_unpadded, http_date, sign_connect, token_hash
from emissary_lib.protocol.role import Role
from functions.common.errors import KeysUnavailableError
from tests.helpers.events import (
    DATE,
    DIALER,
    HOST,
    INSTANCE,
    KEY,
    NONCE,
    NOW,
    RELAY,
    RELAY_TOKEN,
    SESSION,
    load_event,
)
from tests.unit.functions.bridge import Bridge

SUBPROTOCOL = {"Sec-WebSocket-Protocol": "emissary.v2"}


def relay_event(bridge: Bridge, **headers: str | None) -> dict[str, object]:
    """The relay of the last launch dials back."""
    token = bridge.launcher.events[-1]["relay_token"]
    changes = {"X-Emissary-Relay-Token": token} | {
        "X-Emissary-" + name.capitalize(): value for name, value in headers.items()
    }
    return load_event("connect_relay", headers=changes)


def test_a_dialer_with_a_valid_mac_is_admitted_and_its_session_created() -> None:
    bridge = Bridge()
    answer = bridge.connect(load_event("connect_dialer"))
    assert answer == {"statusCode": 200, "headers": SUBPROTOCOL}
    session = bridge.session
    assert session.state is RecordState.OPENING
    assert (session.key_id, session.nonce, session.date, session.host) == (1, NONCE, DATE, HOST)
    assert session.dialer == Side(DIALER, 1)
    assert session.relay == Side(None, 0)
    assert session.generation == 1
    assert session.expires == NOW + 60
    # A clock 15 minutes behind still accepts the date 15 minutes after it: the nonce stays burnt longer.
    assert session.purge_at > NOW + 2 * 900
    assert bridge.store.connections[DIALER] == Connection(DIALER, SESSION, Role.DIALER, 1)


def test_header_names_count_in_any_case() -> None:
    event = load_event("connect_dialer")
    event["headers"] = {name.lower(): value for name, value in event["headers"].items()}
    assert Bridge().connect(event)["statusCode"] == 200


def test_several_subprotocols_may_be_offered() -> None:
    event = load_event("connect_dialer", headers={"Sec-WebSocket-Protocol": "other, emissary.v2"})
    assert Bridge().connect(event)["headers"] == SUBPROTOCOL


@pytest.mark.parametrize("offered", [None, "", "emissary.v1", "emissary.v2x"])
def test_without_the_subprotocol_the_status_is_400(offered: str | None) -> None:
    bridge = Bridge()
    event = load_event("connect_dialer", headers={"Sec-WebSocket-Protocol": offered})
    assert bridge.connect(event) == {"statusCode": 400}
    assert not bridge.store.sessions


@pytest.mark.parametrize("header", ["Key-Id", "Date", "Nonce", "Mac"])
@pytest.mark.parametrize("value", [None, "", "nonsense!"])
def test_without_a_usable_header_the_status_is_401(header: str, value: str | None) -> None:
    bridge = Bridge()
    event = load_event("connect_dialer", headers={f"X-Emissary-{header}": value})
    assert bridge.connect(event) == {"statusCode": 401}
    assert bridge.store.writes == 0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"X-Emissary-Key-Id": "2"}, id="unknown key"),
        pytest.param({"X-Emissary-Mac": encode_unpadded(bytes(32))}, id="wrong MAC"),
        pytest.param({"X-Emissary-Nonce": encode_unpadded(bytes(32))}, id="another nonce"),
        pytest.param({"X-Emissary-Date": http_date(NOW + 1)}, id="another date"),
    ],
)
def test_with_wrong_credentials_the_status_is_403_and_nothing_is_written(changes: dict[str, str]) -> None:
    bridge = Bridge()
    assert bridge.connect(load_event("connect_dialer", headers=changes)) == {"statusCode": 403}
    assert bridge.store.writes == 0


def test_a_mac_for_another_api_is_refused() -> None:
    event = load_event("connect_dialer")
    event["requestContext"]["domainName"] = "evil.example"
    assert Bridge().connect(event) == {"statusCode": 403}


def test_the_host_header_cannot_stand_in_for_the_apis_own_name() -> None:
    headers = sign_connect(KEY, date=DATE, nonce=NONCE, host="evil.example").to_headers()
    event = load_event("connect_dialer", headers={**headers, "Host": "evil.example"})
    assert Bridge().connect(event) == {"statusCode": 403}


@pytest.mark.parametrize(("offset", "status"), [(-900, 200), (900, 200), (-901, 403), (901, 403)])
def test_a_date_up_to_15_minutes_off_is_accepted(offset: int, status: int) -> None:
    bridge = Bridge()
    bridge.clock.now = NOW + offset
    assert bridge.connect(load_event("connect_dialer"))["statusCode"] == status


def test_a_replayed_nonce_is_409() -> None:
    bridge = Bridge()
    bridge.admit()
    replay = load_event("connect_dialer", connection_id="other=")
    assert bridge.connect(replay) == {"statusCode": 409}
    assert bridge.session.dialer == Side(DIALER, 1)


def test_a_store_that_is_down_is_503() -> None:
    bridge = Bridge()
    bridge.store.down = True
    assert bridge.connect(load_event("connect_dialer")) == {"statusCode": 503}


def test_the_launched_relay_claims_its_session() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.clock.now += 2
    assert bridge.connect(relay_event(bridge)) == {"statusCode": 200, "headers": SUBPROTOCOL}
    session = bridge.session
    assert session.state is RecordState.OPEN
    assert session.relay == Side(RELAY, 1)
    assert session.generation == 2
    assert session.instance == INSTANCE
    assert session.expires == NOW + 2 + 900
    assert bridge.store.connections[RELAY] == Connection(RELAY, SESSION, Role.RELAY, 1)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"relay-token": encode_unpadded(RELAY_TOKEN)}, id="another token"),
        pytest.param({"session": "0" * 64}, id="no such session"),
    ],
)
def test_a_relay_without_the_launchs_token_is_409(headers: dict[str, str]) -> None:
    bridge = Bridge()
    bridge.launch()
    changes = {f"X-Emissary-{'-'.join(p.capitalize() for p in k.split('-'))}": v for k, v in headers.items()}
    token = {"X-Emissary-Relay-Token": bridge.launcher.events[-1]["relay_token"]}
    assert bridge.connect(load_event("connect_relay", headers=token | changes)) == {"statusCode": 409}
    assert bridge.session.state is RecordState.INVOKED


def test_a_relay_with_a_malformed_header_is_401() -> None:
    bridge = Bridge()
    bridge.launch()
    assert bridge.connect(relay_event(bridge, instance="me")) == {"statusCode": 401}


def test_a_second_instance_is_409() -> None:
    bridge = Bridge()
    bridge.open()
    event = relay_event(bridge, instance="f" * 32, epoch="2")
    event["requestContext"] |= {"connectionId": "late="}  # type: ignore[operator]
    assert bridge.connect(event) == {"statusCode": 409}
    assert bridge.session.relay == Side(RELAY, 1)


@pytest.mark.parametrize(("epoch", "status"), [("1", 409), ("2", 200), ("7", 200)])
def test_the_same_instance_comes_back_only_with_a_higher_epoch(epoch: str, status: int) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.clock.now += 5
    event = relay_event(bridge, epoch=epoch)
    event["requestContext"] |= {"connectionId": "again="}  # type: ignore[operator]
    assert bridge.connect(event)["statusCode"] == status
    assert bridge.session.relay == (Side("again=", int(epoch), RELAY) if status == 200 else Side(RELAY, 1))
    assert bridge.session.expires == NOW + 900, "only the first claim sets the relay's deadline"


def test_a_relay_that_comes_after_the_opening_has_expired_is_409() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.clock.now = bridge.session.expires
    assert bridge.connect(relay_event(bridge)) == {"statusCode": 409}


def test_a_relay_is_409_once_the_session_has_ended() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.session.state is RecordState.ENDED
    assert bridge.connect(relay_event(bridge)) == {"statusCode": 409}


def test_tokens_are_stored_hashed() -> None:
    bridge = Bridge()
    bridge.launch()
    assert bridge.session.relay_token_hashes == {token_hash(bytes([1]) * 32)}
    assert bridge.session.resume_token_hashes == {token_hash(bytes([2]) * 32)}


def test_why_a_claim_is_refused_stands_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    bridge.open()
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.connect(relay_event(bridge, instance="f" * 32, epoch="2"))
    assert [getattr(record, "cause", None) for record in caplog.records] == [
        "another instance holds the session"
    ]


def test_a_key_that_was_taken_away_opens_no_door() -> None:
    headers = sign_connect(Key(9, bytes(32)), date=DATE, nonce=NONCE, host=HOST).to_headers()
    assert Bridge().connect(load_event("connect_dialer", headers=headers)) == {"statusCode": 403}


def test_a_door_without_keys_asks_the_dialer_to_come_again() -> None:
    class Nowhere:
        def keys(self, wanted: int) -> KeyRing:
            raise KeysUnavailableError("Secrets Manager did not answer")

    bridge = Bridge()
    bridge.keys = Nowhere()
    assert bridge.connect(load_event("connect_dialer")) == {"statusCode": 503}
    assert not bridge.store.sessions
