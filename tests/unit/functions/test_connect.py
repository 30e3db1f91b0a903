"""``$connect`` with real events: who is admitted, and what the others are told."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from emissary_lib.bridge.session import RELAY_TIME, Connection, RecordState, Side
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.auth.macs import (
    encode_unpadded,
    http_date,
    relay_token,
    sign_connect,
    token_hash,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import Reset
from functions.common.adapters.keys import EnvironmentKeys
from functions.common.errors import KeysUnavailableError, StoreError
from tests.helpers.events import (
    DATE,
    DIALER,
    HOST,
    INSTANCE,
    KEY,
    NONCE,
    NOW,
    RELAY,
    SESSION,
    load_event,
)
from tests.unit.functions.bridge import Bridge
from tests.unit.functions.conftest import Figures

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
    bridge = Bridge()
    assert bridge.connect(event) == {"statusCode": 421}
    assert bridge.store.writes == 0


def test_a_reverse_proxy_that_rewrites_host_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    headers = sign_connect(KEY, date=DATE, nonce=NONCE, host="db.example").to_headers()
    assert Bridge().connect(load_event("connect_dialer", headers=dict(headers))) == {"statusCode": 421}
    cause = caplog.records[-1].__dict__["cause"]
    assert f"signed for 'db.example', and this API is '{HOST}'" in cause


def test_a_url_with_a_port_is_the_same_api_though_its_domain_name_has_none() -> None:
    host = Endpoint(f"wss://{HOST}:3001/emissary").host
    headers = sign_connect(KEY, date=DATE, nonce=NONCE, host=host).to_headers()
    event = load_event("connect_dialer", headers={**headers, "Host": f"{HOST}:3001"})
    assert Bridge().connect(event)["statusCode"] == 200


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
    assert session.expires == NOW + 2 + RELAY_TIME
    assert bridge.store.connections[RELAY] == Connection(RELAY, SESSION, Role.RELAY, 1)


def claim_event(token: bytes, session: str = SESSION) -> dict[str, Any]:
    """Somebody claims a session with a token."""
    headers = {"X-Emissary-Relay-Token": encode_unpadded(token), "X-Emissary-Session": session}
    return load_event("connect_relay", headers=headers)


@pytest.mark.parametrize("session", [SESSION, "0" * 64], ids=["another token", "no such session"])
def test_a_holder_of_the_key_cannot_claim_with_a_token_of_its_own(session: str) -> None:
    bridge = Bridge()
    bridge.launch()
    token = relay_token(KEY, session=session, random=b"r" * 16)
    assert bridge.connect(claim_event(token, session)) == {"statusCode": 409}
    assert bridge.session.state is RecordState.INVOKED


class RecordingStore:
    """Keeps the name of each method that is called, and answers none."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def call(*_: object, **__: object) -> NoReturn:
            self.names.append(name)
            raise StoreError("not to be reached")

        return call


GOOD = relay_token(KEY, session=SESSION, random=b"r" * 16)


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param(random.Random(1).randbytes(52), 403, id="random"),
        pytest.param(GOOD[:-1] + bytes([GOOD[-1] ^ 1]), 403, id="forged MAC"),
        pytest.param(GOOD[:4] + b"R" + GOOD[5:], 403, id="another random part"),
        pytest.param(relay_token(Key(1, b"o" * 16), session=SESSION, random=b"r" * 16), 403, id="secret"),
        pytest.param(relay_token(Key(9, KEY.secret), session=SESSION, random=b"r" * 16), 403, id="key id"),
        pytest.param(relay_token(KEY, session="0" * 64, random=b"r" * 16), 403, id="for another session"),
        pytest.param(GOOD[:-1], 401, id="truncated"),
        pytest.param(GOOD + b"x", 401, id="too long"),
        pytest.param(random.Random(2).randbytes(32), 401, id="without a MAC"),
    ],
)
def test_whoever_poses_as_a_relay_never_reaches_the_table(
    token: bytes, status: int, figures: Figures
) -> None:
    bridge = Bridge()
    bridge.launch()
    calls: Any = RecordingStore()
    bridge.store = calls
    figures.lines.clear()
    assert bridge.connect(claim_event(token)) == {"statusCode": status}
    assert calls.names == []
    assert figures.lines == [{"AuthFailure": 1}], "as any other stranger"


def test_only_a_token_with_a_good_mac_is_asked_about_at_the_table() -> None:
    bridge = Bridge()
    calls: Any = RecordingStore()
    bridge.store = calls
    assert bridge.connect(claim_event(GOOD)) == {"statusCode": 503}
    assert calls.names == ["claim"]


def test_a_key_that_is_withdrawn_between_launch_and_claim_ends_the_dial() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.keys = EnvironmentKeys(KeyRing([Key(2, KEY.secret)]))
    assert bridge.connect(relay_event(bridge)) == {"statusCode": 403}
    bridge.message(load_event("default_opening"))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.RESET)
    assert Reset.decode(frame.payload).code is Code.AUTHENTICATION_FAILED


def test_a_key_that_is_new_since_the_launch_does_not_matter() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.keys = EnvironmentKeys(KeyRing([Key(2, b"n" * 16), KEY]))
    assert bridge.connect(relay_event(bridge))["statusCode"] == 200


def test_a_relay_whose_key_was_withdrawn_cannot_come_back() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.keys = EnvironmentKeys(KeyRing([Key(2, KEY.secret)]))
    assert bridge.reclaim() == {"statusCode": 403}
    assert bridge.session.relay == Side(RELAY, 1)


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
    assert bridge.session.expires == NOW + RELAY_TIME, "only the first claim sets the relay's deadline"


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
    token = relay_token(KEY, session=SESSION, random=bytes([1]) * 16)
    assert bridge.session.relay_token_hashes == {token_hash(token)}
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


@pytest.mark.parametrize("who", ["connect_dialer", "connect_relay"])
def test_a_door_without_keys_asks_the_client_to_come_again(who: str) -> None:
    class Nowhere:
        def keys(self, wanted: int) -> KeyRing:
            raise KeysUnavailableError("Secrets Manager did not answer")

    bridge = Bridge()
    bridge.keys = Nowhere()
    assert bridge.connect(load_event(who)) == {"statusCode": 503}
    assert not bridge.store.sessions
