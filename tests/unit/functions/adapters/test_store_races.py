"""What only the real store can get wrong: races, lost answers, conflicts, and a table that is not there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge.session import Connection, Fragment, RecordStep, Side
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections
from functions.common.adapters.service import ServiceError
from functions.common.adapters.store import DynamoSessionStore
from functions.common.errors import ClaimRefusedError, NonceBurntError, StoreError
from functions.common.ports import SessionStore
from tests.helpers.events import NOW, RELAY, SESSION
from tests.helpers.fakes import FakeStore
from tests.unit.functions.adapters.conftest import SLOTS, TABLE, Dynamo
from tests.unit.functions.adapters.steps import (
    AT_THE_DOOR,
    CLAIM,
    ENDING,
    LAUNCH,
    NEW,
    RESUME,
    forget_relay,
    launch_at_the_door,
    launch_session,
    open_session,
    stored_session,
)


def races(dynamo: Dynamo, act: Callable[[DynamoSessionStore, int], bool], racers: int = 8) -> int:
    """How many of so many simultaneous callers, each with a client of its own, had success."""
    clients = [dynamo.aws() for _ in range(racers)]
    stores = [DynamoSessionStore(aws.dynamodb, TABLE, SLOTS, sleep=lambda _seconds: None) for aws in clients]
    with ThreadPoolExecutor(racers) as pool:
        winners = sum(pool.map(act, stores, range(racers)))
    for aws in clients:
        aws.close()
    return winners


def test_one_of_many_racing_dialers_burns_the_nonce(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    def act(store: DynamoSessionStore, number: int) -> bool:
        try:
            store.create(replace(NEW, dialer=Side(f"c{number}=", 1)))
        except NonceBurntError:
            return False
        return True

    assert races(dynamo, act) == 1
    assert sum(real.connection(f"c{number}=") is not None for number in range(8)) == 1


def test_one_of_many_upgrades_with_one_nonce_launches(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    def act(store: DynamoSessionStore, number: int) -> bool:
        session = replace(NEW, dialer=Side(f"c{number}=", 1))
        launch = replace(AT_THE_DOOR, relay_token_hash=str(number))
        try:
            store.create_launched(session, launch)
        except NonceBurntError:
            return False
        return True

    assert races(dynamo, act) == 1
    assert len(stored_session(real).relay_token_hashes) == 1


def test_of_openings_that_race_for_a_lost_launch_one_wins(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    launch_at_the_door(real)
    real.lose_launch(SESSION, AT_THE_DOOR)

    def act(store: DynamoSessionStore, number: int) -> bool:
        return store.launch(SESSION, replace(LAUNCH, relay_token_hash=str(number))).done

    assert races(dynamo, act) == 1


def test_one_of_many_racing_launches_wins(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    real.create(NEW)

    def act(store: DynamoSessionStore, number: int) -> bool:
        return store.launch(SESSION, replace(LAUNCH, relay_token_hash=str(number))).done

    assert races(dynamo, act) == 1


def test_one_of_many_racing_instances_claims(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    launch_session(real)

    def act(store: DynamoSessionStore, number: int) -> bool:
        try:
            store.claim(replace(CLAIM, connection=f"c{number}=", instance=f"{number:032x}"))
        except ClaimRefusedError:
            return False
        return True

    assert races(dynamo, act) == 1


def test_one_of_many_racing_ends_counts(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    open_session(real)

    def act(store: DynamoSessionStore, number: int) -> bool:
        return store.end(SESSION, replace(ENDING, by=f"r{number}="), RecordStep.END).done

    assert races(dynamo, act) == 1


def test_one_of_many_racing_disconnects_writes_the_record(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    open_session(real)
    assert races(dynamo, lambda store, number: store.note_record(SESSION, str(number))) == 1


def test_racing_fragments_are_all_kept(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    real.create(NEW)

    def act(store: DynamoSessionStore, number: int) -> bool:
        return store.add_fragment(SESSION, Fragment(number, b"x"), NOW).done

    assert races(dynamo, act) == 8
    assert len(stored_session(real).fragments) == 8


STEPS: dict[str, tuple[Callable[[SessionStore], object], Callable[[SessionStore], object]]] = {
    "create": (lambda store: None, lambda store: store.create(NEW)),
    "fragment": (
        lambda store: store.create(NEW),
        lambda store: store.add_fragment(SESSION, Fragment(0, b"a"), NOW),
    ),
    "launch at the door": (lambda store: None, launch_at_the_door),
    "lose": (launch_at_the_door, lambda store: store.lose_launch(SESSION, AT_THE_DOOR)),
    "launch": (lambda store: store.create(NEW), lambda store: store.launch(SESSION, LAUNCH)),
    "claim": (launch_session, lambda store: store.claim(CLAIM)),
    "resume": (open_session, lambda store: store.resume(RESUME)),
    "restore": (forget_relay, lambda store: store.restore(Connection(RELAY, SESSION, Role.RELAY, 1))),
    "clear": (open_session, lambda store: store.clear(SESSION, Role.RELAY, RELAY, 1, NOW)),
    "connections": (
        open_session,
        lambda store: store.note_connections(SESSION, Connections(2, 1, 0)),
    ),
    "end": (open_session, lambda store: store.end(SESSION, ENDING, RecordStep.END)),
    "record": (open_session, lambda store: store.note_record(SESSION, "one")),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", ["lose_answers", "conflicts"])
def test_a_lost_answer_or_a_conflict_changes_no_outcome(
    dynamo: Dynamo, real: DynamoSessionStore, step: str, fault: str
) -> None:
    before, act = STEPS[step]
    fake = FakeStore()
    before(fake)
    expected = act(fake)
    before(real)
    seen = dynamo.requests
    setattr(dynamo, fault, 1)
    assert act(real) == expected
    assert dynamo.requests > seen + 1, "the first try was in vain"
    assert real.session(SESSION) == fake.session(SESSION)


def test_endless_conflicts_are_a_store_error(dynamo: Dynamo, real: DynamoSessionStore) -> None:
    dynamo.conflicts = 1000
    with pytest.raises(StoreError, match="another transaction 6 times"):
        real.create(NEW)


def test_a_table_that_is_absent_is_a_store_error(dynamo: Dynamo) -> None:
    aws = dynamo.aws()
    store = DynamoSessionStore(aws.dynamodb, "nowhere", SLOTS)
    with pytest.raises(StoreError, match="ResourceNotFoundException"):
        store.session(SESSION)
    aws.close()


class Busy:
    """A DynamoDB where every transaction meets another.

    Attributes:
        asked: The operations, with their arguments.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def call(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((operation, arguments))
        raise ServiceError("TransactionConflictException", {})


def test_a_transaction_has_a_token_of_its_own_so_that_it_is_not_done_twice() -> None:
    """A request that is sent again has the same. Source: DynamoDB API reference, ClientRequestToken."""
    busy = Busy()
    store = DynamoSessionStore(busy, TABLE, SLOTS, sleep=lambda _seconds: None)
    with pytest.raises(StoreError):
        store.create(NEW)
    tokens = [arguments["ClientRequestToken"] for operation, arguments in busy.asked]
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens), "36 characters at most"
    assert len(set(tokens)) == len(tokens) > 1, (
        "what was refused is another transaction when it is tried again"
    )
    busy.asked.clear()
    with pytest.raises(StoreError):
        store.note_record(SESSION, "one")
    assert all("ClientRequestToken" not in arguments for _operation, arguments in busy.asked)


class StaleReplica:
    """A DynamoDB that answers inconsistent reads as one that has not heard of the last write yet."""

    def call(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        assert operation == "GetItem"
        return {"Item": items.new_session(NEW)} if arguments.get("ConsistentRead") else {}


def test_reads_are_consistent() -> None:
    assert DynamoSessionStore(StaleReplica(), TABLE, SLOTS).session(SESSION) == NEW
