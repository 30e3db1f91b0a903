"""The session store, coming back to what has ended: one contract, kept by DynamoDB's adapter and the fake."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_lib.bridge.session import Connection, RecordState, RecordStep, SessionRecord, Side
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from functions.common.errors import ClaimRefusedError
from functions.common.ports import SessionStore
from tests.helpers.events import DIALER, DIALER_AGAIN, RELAY, SESSION
from tests.unit.functions.adapters.steps import (
    CLAIM,
    ENDING,
    RESUME,
    launch_session,
    open_session,
    stored_session,
)

REDIAL = replace(CLAIM, connection="again=", epoch=2)


def ended(store: SessionStore) -> SessionRecord:
    open_session(store)
    assert store.end(SESSION, ENDING, RecordStep.END).done
    return stored_session(store)


@pytest.mark.parametrize("after", [0.0, 900.0, 3600.0])
def test_a_dialer_may_come_back_to_hear_the_end_and_nothing_else_changes(
    store: SessionStore, after: float
) -> None:
    before = ended(store)
    assert store.resume(replace(RESUME, at=RESUME.at + after)) is RecordState.ENDED
    assert stored_session(store) == replace(before, dialer=Side(DIALER_AGAIN, 2, previous=DIALER))
    assert store.connection(DIALER_AGAIN) == Connection(DIALER_AGAIN, SESSION, Role.DIALER, 2)


@pytest.mark.parametrize("after", [0.0, 900.0, 3600.0])
def test_a_relay_may_come_back_to_hear_the_end_and_nothing_else_changes(
    store: SessionStore, after: float
) -> None:
    before = ended(store)
    assert store.claim(replace(REDIAL, at=REDIAL.at + after)) is RecordState.ENDED
    assert stored_session(store) == replace(before, relay=Side("again=", 2, previous=RELAY))
    assert store.connection("again=") == Connection("again=", SESSION, Role.RELAY, 2)


def test_of_an_open_session_it_is_told_that_it_is_open(store: SessionStore) -> None:
    open_session(store)
    assert (store.resume(RESUME), store.claim(REDIAL)) == (RecordState.OPEN, RecordState.OPEN)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"key_id": 2}, "another key"),
        ({"token_hash": "relay hash"}, "token"),
        ({"epoch": 1}, "epoch 1 is not above 1"),
    ],
)
def test_a_wrong_dialer_does_not_hear_the_end(
    store: SessionStore, change: dict[str, Any], cause: str
) -> None:
    before = ended(store)
    with pytest.raises(ClaimRefusedError, match=cause):
        store.resume(replace(RESUME, **change))
    assert (stored_session(store), store.connection(DIALER_AGAIN)) == (before, None)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"token_hash": "resume hash"}, "token"),
        ({"instance": "f" * 32}, "another instance"),
        ({"epoch": 1}, "epoch 1 is not above 1"),
    ],
)
def test_a_wrong_relay_does_not_hear_the_end(store: SessionStore, change: dict[str, Any], cause: str) -> None:
    before = ended(store)
    with pytest.raises(ClaimRefusedError, match=cause):
        store.claim(replace(REDIAL, **change))
    assert (stored_session(store), store.connection("again=")) == (before, None)


def test_a_relay_that_starts_after_the_end_does_not_get_the_session(store: SessionStore) -> None:
    """Its dialer left before the claim; there is nothing that it could be told."""
    launch_session(store)
    store.end(SESSION, ENDING, RecordStep.ABANDON)
    with pytest.raises(ClaimRefusedError, match="the session is ENDED") as caught:
        store.claim(CLAIM)
    assert (stored_session(store).state, store.connection(RELAY)) == (RecordState.ENDED, None)
    assert caught.value.session == stored_session(store), "by which its place is given back"


def test_a_visit_repeated_by_the_sdk_counts_as_done(store: SessionStore) -> None:
    ended(store)
    assert [store.resume(RESUME), store.resume(RESUME)] == [RecordState.ENDED] * 2
    assert [store.claim(REDIAL), store.claim(REDIAL)] == [RecordState.ENDED] * 2
    assert stored_session(store).dialer == Side(DIALER_AGAIN, 2, previous=DIALER)
    with pytest.raises(ClaimRefusedError, match="epoch 2 is not above 2"):
        store.resume(replace(RESUME, connection="thief="))
