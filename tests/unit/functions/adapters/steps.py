"""A session at each step of its life, for the store's tests."""

from __future__ import annotations

from emissary_lib.bridge.session import Claim, EndRecord, LaunchRecord, Resume, SessionRecord, Side
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from functions.common.ports import SessionStore
from tests.helpers.events import DATE, DIALER, DIALER_AGAIN, HOST, INSTANCE, NONCE, NOW, RELAY, SESSION

NEW = SessionRecord(
    id=SESSION,
    key_id=1,
    nonce=NONCE,
    date=DATE,
    host=HOST,
    started=NOW + 0.25,
    expires=NOW + 60.25,
    purge_at=int(NOW) + 5400,
    dialer=Side(DIALER, 1),
)
LAUNCH = LaunchRecord("db.internal:5432", "relay hash", "resume hash", NOW + 1)
AT_THE_DOOR = replace(LAUNCH, at=NEW.started)
CLAIM = Claim(SESSION, RELAY, "relay hash", INSTANCE, 1, NOW + 2.5)
RESUME = Resume(SESSION, DIALER_AGAIN, 1, "resume hash", 2, NOW + 2.75)
ENDING = EndRecord(Code.TARGET_RESET, 2**40, 7, "request=", NOW + 3)


def other(number: int, key_id: int = 1) -> SessionRecord:
    """Another session than that of these steps."""
    return replace(
        NEW, id=f"{number:064x}", key_id=key_id, nonce=bytes([number]) * 32, dialer=Side(f"d{number}=", 1)
    )


def launch_session(store: SessionStore) -> None:
    store.create(NEW)
    assert store.launch(SESSION, LAUNCH).done


def launch_at_the_door(store: SessionStore) -> SessionRecord:
    return store.create_launched(NEW, AT_THE_DOOR)


def open_session(store: SessionStore) -> None:
    launch_session(store)
    store.claim(CLAIM)


def forget_relay(store: SessionStore) -> None:
    """The relay's connection was taken for gone."""
    open_session(store)
    assert store.clear(SESSION, Role.RELAY, RELAY, 1, NOW).done


def stored_session(store: SessionStore) -> SessionRecord:
    session = store.session(SESSION)
    assert session is not None
    return session
