"""The session store, coming back: one contract, kept by DynamoDB's adapter and by the fake."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge.session import RELAY_TIME, Connection, RecordState, RecordStep, Side
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from functions.common.adapters.store import DynamoSessionStore
from functions.common.errors import ClaimRefusedError
from functions.common.ports import SessionStore
from tests.helpers.events import DIALER, DIALER_AGAIN, NOW, RELAY, SESSION
from tests.unit.functions.adapters.conftest import TABLE, Dynamo
from tests.unit.functions.adapters.steps import (
    CLAIM,
    ENDING,
    LAUNCH,
    NEW,
    RESUME,
    launch_session,
    open_session,
    stored_session,
)
from tests.unit.functions.adapters.test_store_races import races

OWN = {
    Role.DIALER: Connection(DIALER, SESSION, Role.DIALER, 1),
    Role.RELAY: Connection(RELAY, SESSION, Role.RELAY, 1),
}


def test_a_resume_changes_the_dialers_side_and_nothing_else(store: SessionStore) -> None:
    open_session(store)
    before = stored_session(store)
    store.resume(RESUME)
    assert stored_session(store) == replace(before, dialer=Side(DIALER_AGAIN, 2, previous=DIALER))
    assert store.connection(DIALER_AGAIN) == Connection(DIALER_AGAIN, SESSION, Role.DIALER, 2)


def test_after_a_clear_there_is_no_previous_connection(store: SessionStore) -> None:
    open_session(store)
    store.clear(SESSION, Role.DIALER, DIALER, 1, NOW)
    store.clear(SESSION, Role.RELAY, RELAY, 1, NOW)
    store.resume(RESUME)
    store.claim(replace(CLAIM, connection="again=", epoch=2))
    session = stored_session(store)
    assert (session.dialer, session.relay) == (Side(DIALER_AGAIN, 2), Side("again=", 2))


def test_a_clear_keeps_the_previous_connection_to_be_closed(store: SessionStore) -> None:
    open_session(store)
    store.resume(RESUME)
    store.clear(SESSION, Role.DIALER, DIALER_AGAIN, 2, NOW)
    assert stored_session(store).dialer == Side(None, 2, previous=DIALER)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"session": "0" * 64}, "no such session"),
        ({"key_id": 2}, "another key"),
        ({"key_id": 0}, "another key"),
        ({"token_hash": "relay hash"}, "token"),
        ({"epoch": 1}, "epoch 1 is not above 1"),
        ({"at": CLAIM.at + RELAY_TIME}, "expired"),
    ],
)
def test_a_wrong_resume_is_refused_and_writes_nothing(
    store: SessionStore, change: dict[str, Any], cause: str
) -> None:
    open_session(store)
    before = store.session(SESSION)
    with pytest.raises(ClaimRefusedError, match=cause):
        store.resume(replace(RESUME, **change))
    assert store.session(SESSION) == before
    assert store.connection(DIALER_AGAIN) is None


@pytest.mark.parametrize(("step", "cause"), [("new", "OPENING"), ("launched", "INVOKED")])
def test_a_session_that_was_never_open_is_not_resumed(store: SessionStore, step: str, cause: str) -> None:
    if step == "new":
        store.create(NEW)
    else:
        launch_session(store)
    before = store.session(SESSION)
    with pytest.raises(ClaimRefusedError, match=cause):
        store.resume(RESUME)
    assert store.session(SESSION) == before


def test_of_two_attempts_the_older_loses_in_either_order(store: SessionStore) -> None:
    open_session(store)
    older = replace(RESUME, connection="older=", epoch=2)
    newer = replace(RESUME, connection="newer=", epoch=3)
    store.resume(older)
    store.resume(newer)
    assert stored_session(store).dialer == Side("newer=", 3, previous="older=")
    late = replace(RESUME, connection="late=", epoch=2)
    with pytest.raises(ClaimRefusedError, match="epoch 2 is not above 3"):
        store.resume(late)
    assert stored_session(store).dialer == Side("newer=", 3, previous="older=")
    assert store.connection("late=") is None


def test_a_resume_repeated_by_the_sdk_counts_as_done(store: SessionStore) -> None:
    open_session(store)
    store.resume(RESUME)
    store.resume(RESUME)
    assert stored_session(store).dialer == Side(DIALER_AGAIN, 2, previous=DIALER)


def test_a_resume_repeated_by_the_sdk_counts_as_done_though_it_was_forgotten_meanwhile(
    store: SessionStore,
) -> None:
    open_session(store)
    store.resume(RESUME)
    store.clear(SESSION, Role.DIALER, DIALER_AGAIN, 2, NOW)  # a post to it before its 101 was answered 410
    store.resume(RESUME)
    assert stored_session(store).dialer == Side(None, 2, previous=DIALER), "it comes back by RESUME"
    with pytest.raises(ClaimRefusedError, match="epoch 2 is not above 2"):
        store.resume(replace(RESUME, connection="another="))  # the same epoch, replayed


def test_a_dial_back_repeated_by_the_sdk_counts_as_done_though_it_was_forgotten_meanwhile(
    store: SessionStore,
) -> None:
    open_session(store)
    again = replace(CLAIM, connection="again=", epoch=2)
    store.claim(again)
    store.clear(SESSION, Role.RELAY, "again=", 2, NOW)
    store.claim(again)
    assert stored_session(store).relay == Side(None, 2, previous=RELAY)
    with pytest.raises(ClaimRefusedError, match="epoch 2 is not above 2"):
        store.claim(replace(again, connection="another="))


@pytest.mark.parametrize("role", list(Role))
def test_a_forgotten_connection_is_restored(store: SessionStore, role: Role) -> None:
    open_session(store)
    before = stored_session(store)
    store.clear(SESSION, role, OWN[role].id, 1, NOW)
    assert store.restore(OWN[role]) == (before, True)
    assert store.restore(OWN[role]) == (before, True), "repeated by the SDK"


def test_a_connection_of_an_older_epoch_is_not_restored(store: SessionStore) -> None:
    open_session(store)
    store.resume(RESUME)
    store.clear(SESSION, Role.DIALER, DIALER_AGAIN, 2, NOW)
    before = store.session(SESSION)
    assert store.restore(OWN[Role.DIALER]) == (before, False)
    assert store.session(SESSION) == before


def test_a_connection_is_not_restored_over_another_nor_after_the_end_nor_from_nothing(
    store: SessionStore,
) -> None:
    open_session(store)
    store.resume(RESUME)
    before = store.session(SESSION)
    assert store.restore(OWN[Role.DIALER]) == (before, False)
    store.clear(SESSION, Role.RELAY, RELAY, 1, NOW)
    store.end(SESSION, ENDING, RecordStep.END)
    ended = store.session(SESSION)
    assert store.restore(OWN[Role.RELAY]) == (ended, False)
    assert store.session(SESSION) == ended
    assert store.restore(replace(OWN[Role.DIALER], session="0" * 64)) == (None, False)
    assert store.session("0" * 64) is None


def test_of_many_racing_attempts_the_newest_ends_up_current(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    open_session(real)

    def act(store: DynamoSessionStore, number: int) -> bool:
        attempt = replace(RESUME, connection=f"c{number}=", epoch=number + 2)
        try:
            store.resume(attempt)
        except ClaimRefusedError:
            return False
        return True

    assert races(dynamo, act) >= 1
    assert (stored_session(real).dialer.connection, stored_session(real).dialer.epoch) == ("c7=", 9)


def test_both_sides_may_come_back_at_once(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    open_session(real)

    def act(store: DynamoSessionStore, number: int) -> bool:
        if number:
            store.resume(RESUME)
        else:
            store.claim(replace(CLAIM, connection="again=", epoch=2))
        return True

    assert races(dynamo, act, racers=2) == 2
    session = stored_session(real)
    assert session.dialer == Side(DIALER_AGAIN, 2, previous=DIALER)
    assert session.relay == Side("again=", 2, previous=RELAY)


def test_a_resume_that_races_an_end_leaves_an_ended_session_that_knows_who_to_tell(
    dynamo: Dynamo, real: DynamoSessionStore
) -> None:
    open_session(real)
    seen: list[Side] = []

    def act(store: DynamoSessionStore, number: int) -> bool:
        if number:
            ended, done = store.end(SESSION, ENDING, RecordStep.END)
            assert done
            assert ended is not None
            seen.append(ended.dialer)
            return False
        store.resume(RESUME)
        return True

    assert races(dynamo, act, racers=2) == 1
    session = stored_session(real)
    came_back = Side(DIALER_AGAIN, 2, previous=DIALER)
    assert (session.state, session.ending, session.dialer) == (RecordState.ENDED, ENDING, came_back)
    # Either the end saw the new connection and tells it, or the dialer came later and asks.
    assert seen[0] in (Side(DIALER, 1), came_back)
    assert real.connection(DIALER_AGAIN) is not None


def test_a_session_that_older_code_has_launched_is_claimed_and_resumed(
    dynamo: Dynamo, real: DynamoSessionStore
) -> None:
    """It has the hashes of its last launch alone, each an attribute of its own."""
    launch_session(real)
    client = dynamo.client()
    client.update_item(
        TableName=TABLE,
        Key=items.session_key(SESSION),
        UpdateExpression="REMOVE relay_token_hashes, resume_token_hashes"
        " SET relay_token_hash = :relay, resume_token_hash = :resume",
        ExpressionAttributeValues={
            ":relay": items.text(LAUNCH.relay_token_hash),
            ":resume": items.text(LAUNCH.resume_token_hash),
        },
    )
    client.close()
    assert real.claim(CLAIM) is RecordState.OPEN
    assert real.resume(RESUME) is RecordState.OPEN
