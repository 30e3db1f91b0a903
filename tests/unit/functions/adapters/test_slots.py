"""Limits of sessions: never one too many, never one lost, kept by DynamoDB's adapter and by the fake."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge.limits import Limit, Limits
from emissary_lib.bridge.session import RELAY_TIME, LaunchRecord, RecordState, RecordStep, SessionRecord, Side
from emissary_lib.protocol.constants import OPENING_TIME
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_local.billing.item_size import item_size
from functions.common.adapters.service import Operations
from functions.common.adapters.store import DynamoSessionStore
from functions.common.errors import LimitReachedError, NonceBurntError
from functions.common.ports import SessionStore
from tests.helpers.events import NOW, RELAY
from tests.unit.functions.adapters.conftest import SLOTS, TABLE, Dynamo
from tests.unit.functions.adapters.steps import CLAIM, ENDING, LAUNCH, forget_relay, other, stored_session
from tests.unit.functions.adapters.test_store_races import races

LIMITS = Limits(total=3, per_key=2)
LEASE = OPENING_TIME + RELAY_TIME


def launch_of(session: SessionRecord, at: float = LAUNCH.at, limits: Limits = LIMITS) -> LaunchRecord:
    return replace(
        LAUNCH, at=at, relay_token_hash=f"relay {session.id} {at}", limits=limits.of(session.key_id)
    )


def start(store: SessionStore, number: int, key_id: int = 1, at: float = LAUNCH.at) -> SessionRecord:
    session = replace(other(number, key_id), expires=at + OPENING_TIME)
    store.create(session)
    launched, done = store.launch(session.id, launch_of(session, at))
    assert done
    assert launched is not None
    return launched


def in_use(store: SessionStore, at: float = LAUNCH.at) -> tuple[int, int]:
    """Slots taken in all, and of key 1."""
    return store.in_use(Limit(3), at), store.in_use(Limit(2, 1), at)


def test_a_session_takes_a_slot_of_each_limit(store: SessionStore) -> None:
    assert in_use(store) == (0, 0)
    session = start(store, 1)
    assert session.state is RecordState.INVOKED
    assert sorted(name.rpartition("#")[0] for name in session.slots) == ["K#1", "L"]
    assert in_use(store) == (1, 1)
    assert store.session(session.id) == session


def test_without_a_limit_there_are_no_slots(store: SessionStore) -> None:
    session = other(1)
    store.create(session)
    launched, done = store.launch(session.id, launch_of(session, limits=Limits()))
    assert done
    assert launched is not None
    assert launched.slots == frozenset()


def test_the_key_s_limit_is_told_before_that_of_all(store: SessionStore) -> None:
    start(store, 1)
    start(store, 2)
    third = other(3)
    store.create(third)
    with pytest.raises(LimitReachedError, match=r"^limit of 2 sessions for key 1 reached$"):
        store.launch(third.id, launch_of(third))
    assert store.session(third.id) == third, "as it was"
    assert in_use(store) == (2, 2)


def test_another_key_has_slots_of_its_own_up_to_the_limit_of_all(store: SessionStore) -> None:
    start(store, 1)
    start(store, 2)
    start(store, 3, key_id=9)
    fourth = other(4, key_id=9)
    store.create(fourth)
    with pytest.raises(LimitReachedError, match=r"^limit of 3 sessions reached$"):
        store.launch(fourth.id, launch_of(fourth))
    assert store.in_use(Limit(2, 9), LAUNCH.at) == 1, "nothing is taken in vain"


def test_a_slot_that_is_given_back_is_free_at_once(store: SessionStore) -> None:
    first, _second = start(store, 1), start(store, 2)
    store.release(first, 0)
    assert in_use(store) == (1, 1)
    store.release(first, 0)
    start(store, 3)
    assert in_use(store) == (2, 2)


def test_who_gives_back_late_takes_nothing_from_the_next(store: SessionStore) -> None:
    first, _second = start(store, 1), start(store, 2)
    store.release(first, 0)
    start(store, 3)
    store.release(first, 0)
    assert in_use(store) == (2, 2)


def test_a_slot_that_is_given_back_for_later_is_free_then_and_never_later_than_before(
    store: SessionStore,
) -> None:
    first = start(store, 1)
    store.release(first, LAUNCH.at + 30)
    assert (in_use(store, LAUNCH.at + 29), in_use(store, LAUNCH.at + 30)) == ((1, 1), (0, 0))
    store.release(first, LAUNCH.at + 40)
    assert in_use(store, LAUNCH.at + 30) == (0, 0)
    store.release(first, 0)
    assert in_use(store) == (0, 0)


def open_and_leave(store: SessionStore) -> SessionRecord:
    """A session whose relay has lost its connection."""
    session = start(store, 1)
    (token,) = session.relay_token_hashes
    store.claim(replace(CLAIM, session=session.id, token_hash=token, relay_time=100))
    left, done = store.clear(session.id, Role.RELAY, RELAY, 1, LAUNCH.at + 5)
    assert done
    assert left is not None
    return left


def come_back(store: SessionStore, session: SessionRecord) -> SessionRecord:
    (token,) = session.relay_token_hashes
    claim = replace(CLAIM, session=session.id, token_hash=token, epoch=2, connection="again=")
    store.claim(claim)
    back = store.session(session.id)
    assert back is not None
    return back


def test_the_slots_of_a_relay_that_is_gone_are_free_soon_unless_it_comes_back(store: SessionStore) -> None:
    left = open_and_leave(store)
    store.desert(left, LAUNCH.at + 50)
    deserted = store.session(left.id)
    assert deserted == replace(left, slots_until=LAUNCH.at + 50)
    assert (in_use(store, LAUNCH.at + 49), in_use(store, LAUNCH.at + 50)) == ((1, 1), (0, 0))
    back = come_back(store, left)
    assert back.slots_until == LAUNCH.at + 50
    for _ in range(2):
        assert store.renew(back)
        renewed = store.session(left.id)
        assert renewed == replace(back, slots_until=None)
    assert (in_use(store, back.expires - 1), in_use(store, back.expires)) == ((1, 1), (0, 0))


def test_who_finds_a_relay_gone_that_has_come_back_since_gives_nothing_away(store: SessionStore) -> None:
    left = open_and_leave(store)
    back = come_back(store, left)
    store.desert(left, LAUNCH.at + 50)
    assert store.session(left.id) == back
    assert in_use(store, LAUNCH.at + 51) == (1, 1)


def test_a_relay_that_is_there_keeps_its_slots_whoever_takes_it_for_gone(store: SessionStore) -> None:
    there = come_back(store, open_and_leave(store))
    store.desert(there, LAUNCH.at + 50)
    assert store.session(there.id) == there
    assert in_use(store, LAUNCH.at + 51) == (1, 1)


def test_a_relay_that_comes_back_does_not_get_a_slot_that_another_session_has(store: SessionStore) -> None:
    left = open_and_leave(store)
    store.desert(left, LAUNCH.at + 5)
    later = LAUNCH.at + 10
    start(store, 2, at=later)
    start(store, 3, at=later)  # of the two of a key there is none left
    assert not store.renew(come_back(store, left))
    assert in_use(store, later) == (2, 2)
    assert in_use(store, later + LEASE) == (0, 0), "theirs are as they were"


def test_what_has_ended_meanwhile_is_not_renewed(store: SessionStore) -> None:
    left = open_and_leave(store)
    store.desert(left, LAUNCH.at + 50)
    back = come_back(store, left)
    assert store.end(left.id, ENDING, RecordStep.END).done
    store.release(left, 0)
    assert store.renew(back), "nobody else has it"
    store.desert(left, LAUNCH.at + 500)
    assert in_use(store) == (0, 0)


def test_without_slots_there_is_nothing_to_desert(store: SessionStore) -> None:
    forget_relay(store)
    before = stored_session(store)
    store.desert(before, NOW + 50)
    assert stored_session(store) == before


def test_slots_that_cannot_be_given_back_run_out_by_themselves(
    dynamo: Dynamo, real: DynamoSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    left = open_and_leave(real)
    dynamo.conflicts = 1000
    real.desert(left, LAUNCH.at + 50)
    dynamo.conflicts = 0
    assert [record.getMessage() for record in caplog.records] == ["slot not given back"]
    assert in_use(real, LAUNCH.at + 51) == (1, 1)


def test_a_lease_runs_out_by_itself(store: SessionStore) -> None:
    start(store, 1)
    start(store, 2)
    later = LAUNCH.at + LEASE
    assert in_use(store, later - 1) == (2, 2)
    assert in_use(store, later) == (0, 0)
    start(store, 3, at=later)
    assert in_use(store, later) == (1, 1)


def test_a_second_launch_of_a_session_keeps_its_slots(store: SessionStore) -> None:
    first = start(store, 1)
    start(store, 2)
    again = replace(launch_of(first, LAUNCH.at + 6), held=first.slots)
    launched, done = store.launch(first.id, again)
    assert done
    assert launched is not None
    assert launched.slots == first.slots
    assert in_use(store) == (2, 2)
    assert in_use(store, LAUNCH.at + LEASE + 5) == (1, 1), "its lease begins anew"


def test_a_repetition_of_the_opening_is_not_refused_for_the_slot_it_has_itself(store: SessionStore) -> None:
    """Two invocations handle the same opening; the slower one must not find the session's own slot taken."""
    session = replace(other(1))
    store.create(session)
    only_one = Limits(total=1)
    assert store.launch(session.id, launch_of(session, limits=only_one)).done
    slower = replace(launch_of(session, limits=only_one), relay_token_hash="another")
    launched, done = store.launch(session.id, slower)
    assert launched is not None
    assert (done, launched.state) == (False, RecordState.INVOKED)


def test_a_launch_repeated_by_the_sdk_counts_as_done(store: SessionStore) -> None:
    session = start(store, 1)
    assert store.launch(session.id, launch_of(session)) == (session, True)


def test_a_session_that_does_not_exist_takes_no_slot(store: SessionStore) -> None:
    assert store.launch(other(1).id, launch_of(other(1))) == (None, False)
    assert in_use(store) == (0, 0)


def test_a_refused_session_is_ended_unless_it_was_launched_meanwhile(store: SessionStore) -> None:
    refused, launched = other(1), start(store, 2)
    store.create(refused)
    assert store.end(refused.id, ENDING, RecordStep.REFUSE).done
    assert not store.end(launched.id, ENDING, RecordStep.REFUSE).done


def test_racing_sessions_take_as_many_slots_as_there_are_and_no_more(
    dynamo: Dynamo, real: DynamoSessionStore
) -> None:
    limits = Limits(total=5)
    for number in range(8):
        real.create(other(number))

    def act(store: DynamoSessionStore, number: int) -> bool:
        session = other(number)
        try:
            return store.launch(session.id, launch_of(session, limits=limits)).done
        except LimitReachedError:
            return False

    assert races(dynamo, act) == 5
    assert real.in_use(Limit(5), LAUNCH.at) == 5
    held = [session.slots for number in range(8) if (session := real.session(other(number).id)) is not None]
    assert sorted(name for slots in held for name in slots) == [f"L#{number}" for number in range(5)]


def at_the_door(store: SessionStore, number: int, limits: Limits = LIMITS) -> SessionRecord:
    session = replace(other(number), expires=LAUNCH.at + OPENING_TIME)
    return store.create_launched(session, launch_of(session, limits=limits))


def test_a_session_launched_at_the_door_takes_a_slot_of_each_limit(store: SessionStore) -> None:
    session = at_the_door(store, 1)
    assert sorted(name.rpartition("#")[0] for name in session.slots) == ["K#1", "L"]
    assert in_use(store) == (1, 1)
    assert in_use(store, LAUNCH.at + LEASE) == (0, 0)
    assert store.session(session.id) == session


def test_without_a_place_nothing_is_made_at_the_door(store: SessionStore) -> None:
    at_the_door(store, 1)
    at_the_door(store, 2)
    with pytest.raises(LimitReachedError, match=r"^limit of 2 sessions for key 1 reached$"):
        at_the_door(store, 3)
    assert store.session(other(3).id) is None
    assert store.connection("d3=") is None
    store.create(other(3))  # the nonce is not burnt


def test_a_burnt_nonce_takes_no_place(store: SessionStore) -> None:
    store.create(other(1))
    thief = replace(other(1), dialer=Side("thief=", 1))
    with pytest.raises(NonceBurntError):
        store.create_launched(thief, launch_of(thief))
    assert in_use(store) == (0, 0)


def test_sessions_that_race_at_the_door_take_as_many_slots_as_there_are_and_no_more(
    dynamo: Dynamo, real: DynamoSessionStore
) -> None:
    def act(store: DynamoSessionStore, number: int) -> bool:
        try:
            at_the_door(store, number, Limits(total=5))
        except LimitReachedError:
            return False
        return True

    assert races(dynamo, act) == 5
    assert real.in_use(Limit(5), LAUNCH.at) == 5
    assert sum(real.session(other(number).id) is not None for number in range(8)) == 5


@pytest.mark.parametrize("fault", ["lose_answers", "conflicts"])
def test_a_lost_answer_or_a_conflict_at_the_door_takes_no_second_slot(
    dynamo: Dynamo, real: DynamoSessionStore, fault: str
) -> None:
    only_one = Limits(total=1)
    session = replace(other(1), expires=LAUNCH.at + OPENING_TIME)

    class Spoilt(DynamoSessionStore):
        """Spoils the first transaction, not the query before it."""

        def _creation(self, session: SessionRecord, purge_at: int) -> Any:
            setattr(dynamo, fault, 1)
            return super()._creation(session, purge_at)

    aws = dynamo.aws()
    spoilt = Spoilt(aws.dynamodb, TABLE, SLOTS, sleep=lambda _seconds: None)
    launched = spoilt.create_launched(session, launch_of(session, limits=only_one))
    aws.close()
    assert launched == real.session(session.id)
    assert launched.slots == {"L#0"}
    assert in_use(real)[0] == 1


def test_slots_beyond_a_limit_that_is_lower_now_do_not_count(real: DynamoSessionStore) -> None:
    for number in range(4):
        session = other(number)
        real.create(session)
        assert real.launch(session.id, launch_of(session, limits=Limits(total=4))).done
    assert (real.in_use(Limit(4), LAUNCH.at), real.in_use(Limit(3), LAUNCH.at)) == (4, 3)


@pytest.mark.parametrize("fault", ["lose_answers", "conflicts"])
def test_a_lost_answer_or_a_conflict_takes_no_second_slot(
    dynamo: Dynamo, real: DynamoSessionStore, fault: str
) -> None:
    session = other(1)
    real.create(session)
    setattr(dynamo, fault, 1)
    assert real.launch(session.id, launch_of(session)).done
    assert in_use(real) == (1, 1)
    launched = real.session(session.id)
    assert launched is not None
    setattr(dynamo, fault, 1)
    real.release(launched, 0)
    assert in_use(real) == (0, 0)


class Pages:
    """A DynamoDB that answers a query in pages of three.

    Attributes:
        queries: The queries so far, each a page's.
    """

    def __init__(self, slots: int) -> None:
        self._items = [
            {"limit": {"S": "L"}, "slot": {"N": str(n)}, "session": {"B": b"x"}, "expires": {"N": "9e9"}}
            for n in range(slots)
        ]
        self.queries: list[dict[str, Any]] = []

    def call(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        assert operation == "Query"
        self.queries.append(dict(request))
        first = int(request.get("ExclusiveStartKey", {"slot": {"N": "0"}})["slot"]["N"])
        rest = self._items[first + 3 :]
        more = {"LastEvaluatedKey": {"limit": {"S": "L"}, "slot": {"N": str(first + 3)}}} if rest else {}
        return {"Items": self._items[first : first + 3], **more}


def test_a_limit_is_read_to_its_last_page_and_consistently() -> None:
    pages = Pages(10)
    store = DynamoSessionStore(pages, TABLE, SLOTS)
    assert store.in_use(Limit(10), LAUNCH.at) == 10
    assert [request["TableName"] for request in pages.queries] == [SLOTS] * 4
    assert all(request["ConsistentRead"] for request in pages.queries)


class Observed:
    """A DynamoDB that can be watched.

    Attributes:
        asked: Requests, by their operations.
        before: Called with a transaction's arguments before it is done.
    """

    def __init__(self, real: Operations) -> None:
        self._real = real
        self.asked: Counter[str] = Counter()
        self.before: Callable[[Mapping[str, Any]], object] = lambda arguments: None

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked[operation] += 1
        if operation == "TransactWriteItems":
            self.before(arguments)
        return self._real.call(operation, arguments)


@pytest.fixture
def observed(dynamo: Dynamo) -> Iterator[Observed]:
    aws = dynamo.aws()
    yield Observed(aws.dynamodb)
    aws.close()


@pytest.fixture
def client(dynamo: Dynamo) -> Iterator[Any]:
    """The SDK's."""
    client = dynamo.client()
    yield client
    client.close()


def test_a_launch_reads_each_limit_once_however_many_others_are_quicker(
    observed: Observed, real: DynamoSessionStore
) -> None:
    """All three slots look free, and each is taken by another just before this session would have it."""
    late = other(9)
    real.create(late)
    quicker = (other(number, key_id=2) for number in range(3))

    def another_is_quicker(request: Mapping[str, Any]) -> None:
        slots = [items.slot_name(each["Update"]["Key"]) for each in request["TransactItems"][1:]]
        (wanted,) = (name for name in slots if name.startswith("L#"))
        another = next(quicker)
        real.create(another)
        launch = launch_of(another, limits=Limits(total=3))
        assert real.launch(another.id, replace(launch, held=frozenset({wanted}))).done

    observed.before = another_is_quicker
    store = DynamoSessionStore(observed, TABLE, SLOTS, sleep=lambda _seconds: None)
    with pytest.raises(LimitReachedError, match=r"^limit of 3 sessions reached$"):
        store.launch(late.id, launch_of(late))
    assert observed.asked == {"Query": 2, "TransactWriteItems": 3}
    assert in_use(real) == (3, 0), "nothing is taken in vain"


def test_a_launch_at_a_full_limit_is_refused_for_one_query_of_each_limit(
    observed: Observed, real: DynamoSessionStore
) -> None:
    for number in range(3):
        start(real, number, key_id=number)
    refused = other(9, key_id=9)
    real.create(refused)
    with pytest.raises(LimitReachedError):
        DynamoSessionStore(observed, TABLE, SLOTS).launch(refused.id, launch_of(refused))
    assert observed.asked == {"Query": 2}


def test_a_thousand_slots_are_no_more_than_25_read_units(client: Any, real: DynamoSessionStore) -> None:
    """Even with the longest of key ids: a unit is 4 KB of what the slots hold together."""
    session = other(1, key_id=2**32 - 1)
    real.create(session)
    at = LAUNCH.at + 0.123456
    assert real.launch(session.id, launch_of(session, at, Limits(1000, 1000))).done
    for item in client.scan(TableName=SLOTS)["Items"]:
        item["session"]["B"] = base64.b64encode(item["session"]["B"]).decode()
        assert item_size(item) * 1000 <= 25 * 4096


def test_a_session_that_older_code_has_launched_neither_has_nor_loses_a_slot(
    client: Any, real: DynamoSessionStore
) -> None:
    """Its slots are items of another table, though of the same names."""
    left = open_and_leave(real)
    for name in left.slots:
        client.delete_item(TableName=SLOTS, Key=items.slot_key(name))
    assert in_use(real) == (0, 0)
    start(real, 2)
    real.release(left, 0)
    real.desert(left, LAUNCH.at + 5)
    assert real.session(left.id) == left, "with nothing to take back when its relay returns"
    assert in_use(real) == (1, 1)
