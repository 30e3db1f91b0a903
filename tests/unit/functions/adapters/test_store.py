"""The session store: one contract, kept by DynamoDB's adapter and by the fake that other tests rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emissary_lib.bridge.session import (
    RECORD_TIME,
    RELAY_TIME,
    Connection,
    EndRecord,
    Fragment,
    LaunchRecord,
    Loss,
    RecordState,
    RecordStep,
    Side,
    launched_at_the_door,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections
from functions.common.adapters.store import DynamoSessionStore
from functions.common.errors import ClaimRefusedError, NonceBurntError
from functions.common.ports import SessionStore
from tests.helpers.events import DIALER, INSTANCE, NOW, RELAY, SESSION
from tests.unit.functions.adapters.conftest import TABLE, Dynamo
from tests.unit.functions.adapters.steps import (
    AT_THE_DOOR,
    CLAIM,
    ENDING,
    LAUNCH,
    NEW,
    RESUME,
    launch_at_the_door,
    launch_session,
    open_session,
    stored_session,
)


def test_a_created_session_is_read_back_whole(store: SessionStore) -> None:
    store.create(NEW)
    assert store.session(SESSION) == NEW
    assert store.connection(DIALER) == Connection(DIALER, SESSION, Role.DIALER, 1)


def test_what_does_not_exist_reads_as_none(store: SessionStore) -> None:
    assert store.session("0" * 64) is None
    assert store.connection("nobody=") is None


def test_a_nonce_is_burnt_by_its_first_use(store: SessionStore) -> None:
    store.create(NEW)
    other = replace(NEW, dialer=Side("other=", 1))
    with pytest.raises(NonceBurntError, match="fresh"):
        store.create(other)
    assert store.session(SESSION) == NEW
    assert store.connection("other=") is None


def test_creating_the_same_session_again_is_success(store: SessionStore) -> None:
    store.create(NEW)
    store.create(NEW)
    assert store.session(SESSION) == NEW


def test_a_session_launched_at_the_door_is_read_back_whole(store: SessionStore) -> None:
    assert store.create_launched(NEW, AT_THE_DOOR) == launched_at_the_door(NEW, AT_THE_DOOR, ())
    assert store.session(SESSION) == launched_at_the_door(NEW, AT_THE_DOOR, ())
    assert store.connection(DIALER) == Connection(DIALER, SESSION, Role.DIALER, 1)


def test_a_session_launched_at_the_door_is_claimed_as_any_other(store: SessionStore) -> None:
    launch_at_the_door(store)
    assert store.claim(CLAIM) is RecordState.OPEN


@pytest.mark.parametrize("before", [lambda store: store.create(NEW), launch_at_the_door])
def test_a_burnt_nonce_launches_nothing(
    store: SessionStore, before: Callable[[SessionStore], object]
) -> None:
    before(store)
    was = store.session(SESSION)
    thief = replace(NEW, dialer=Side("other=", 1))
    with pytest.raises(NonceBurntError, match="fresh"):
        store.create_launched(thief, replace(AT_THE_DOOR, relay_token_hash="another"))
    assert store.session(SESSION) == was
    assert store.connection("other=") is None


def test_an_opening_launches_nothing_where_the_door_has(store: SessionStore) -> None:
    launch_at_the_door(store)
    again = replace(LAUNCH, relay_token_hash="another")
    assert not store.launch(SESSION, again).done
    late = replace(again, at=NEW.started + 5.1)
    assert store.launch(SESSION, late).done, "that relay did not come"


def test_a_launch_that_is_known_to_be_lost_is_made_up_for_at_once_and_once(store: SessionStore) -> None:
    launch_at_the_door(store)
    store.lose_launch(SESSION, AT_THE_DOOR)
    first = replace(LAUNCH, relay_token_hash="first")
    assert store.launch(SESSION, first).done
    assert not store.launch(SESSION, replace(LAUNCH, relay_token_hash="second")).done
    store.lose_launch(SESSION, AT_THE_DOOR)
    assert not store.launch(SESSION, replace(LAUNCH, relay_token_hash="third")).done


def test_a_launch_is_not_lost_that_was_claimed(store: SessionStore) -> None:
    launch_at_the_door(store)
    store.claim(CLAIM)
    was = store.session(SESSION)
    store.lose_launch(SESSION, AT_THE_DOOR)
    assert store.session(SESSION) == was


def test_fragments_are_a_set(store: SessionStore) -> None:
    store.create(NEW)
    for fragment in (Fragment(0, b"a"), Fragment(7, bytes(range(256))), Fragment(0, b"a")):
        outcome = store.add_fragment(SESSION, fragment, NOW)
        assert outcome.done
    assert outcome.session is not None
    assert outcome.session.fragments == {Fragment(0, b"a"), Fragment(7, bytes(range(256)))}
    assert store.session(SESSION) == outcome.session


def test_an_opening_takes_so_many_bytes_though_they_are_all_at_one_offset(store: SessionStore) -> None:
    store.create(NEW)
    first, second = Fragment(0, b"a" * 4088), Fragment(0, b"b" * 4088)
    for fragment in (first, first, second, first):
        assert store.add_fragment(SESSION, fragment, NOW).done, "one that is there counts once"
    outcome = store.add_fragment(SESSION, Fragment(0, b""), NOW)
    assert not outcome.done
    assert outcome.session == stored_session(store)
    assert stored_session(store).fragments == {first, second}
    assert store.add_fragment(SESSION, second, NOW).done


def test_what_is_left_of_an_opening_is_taken_to_the_last_byte(store: SessionStore) -> None:
    store.create(NEW)
    store.add_fragment(SESSION, Fragment(0, b"a" * 4000), NOW)
    assert not store.add_fragment(SESSION, Fragment(1, b"b" * 4177), NOW).done
    assert store.add_fragment(SESSION, Fragment(2, b"c" * 4167), NOW).done
    assert store.add_fragment(SESSION, Fragment(3, b"d"), NOW).done
    assert not store.add_fragment(SESSION, Fragment(4, b""), NOW).done


def test_the_bytes_of_an_opening_are_counted_even_if_an_answer_was_lost(
    real: DynamoSessionStore, dynamo: Dynamo
) -> None:
    real.create(NEW)
    dynamo.lose_answers = 1
    assert real.add_fragment(SESSION, Fragment(0, b"a" * 100), NOW).done
    assert stored_item(dynamo)["opening_bytes"] == {"N": "108"}


@pytest.mark.parametrize("after", ["claim", "end"])
def test_neither_a_claimed_nor_an_ended_session_keeps_its_opening(
    real: DynamoSessionStore, dynamo: Dynamo, after: str
) -> None:
    real.create(NEW)
    real.add_fragment(SESSION, Fragment(0, b"a" * 100), NOW)
    assert real.launch(SESSION, LAUNCH).done
    assert {"fragments", "opening_bytes"} <= stored_item(dynamo).keys(), "it may be launched again"
    if after == "claim":
        real.claim(CLAIM)
    else:
        real.end(SESSION, ENDING, RecordStep.END)
    assert not {"fragments", "opening_bytes"} & stored_item(dynamo).keys()


def stored_item(dynamo: Dynamo) -> dict[str, Any]:
    client = dynamo.client()
    item: dict[str, Any] = client.get_item(TableName=TABLE, Key={"pk": {"S": "S#" + SESSION}})["Item"]
    client.close()
    return item


def test_a_fragment_of_an_expired_opening_is_not_kept(store: SessionStore) -> None:
    store.create(NEW)
    outcome = store.add_fragment(SESSION, Fragment(0, b"a"), NEW.expires)
    assert outcome == (NEW, False)


@pytest.mark.parametrize(("until", "kept"), [(launch_session, True), (open_session, False)])
def test_fragments_are_kept_until_the_claim(
    store: SessionStore, until: Callable[[SessionStore], None], kept: bool
) -> None:
    until(store)
    outcome = store.add_fragment(SESSION, Fragment(0, b"a"), NOW + 3)
    assert outcome.done is kept
    assert outcome.session == store.session(SESSION)


def test_a_fragment_of_no_session_is_not_kept(store: SessionStore) -> None:
    assert store.add_fragment(SESSION, Fragment(0, b"a"), NOW) == (None, False)
    assert store.session(SESSION) is None


def test_a_launch_goes_to_invoked(store: SessionStore) -> None:
    launch_session(store)
    session = stored_session(store)
    assert session == replace(
        NEW,
        state=RecordState.INVOKED,
        target="db.internal:5432",
        relay_token_hashes=frozenset({"relay hash"}),
        resume_token_hashes=frozenset({"resume hash"}),
        invoked_at=NOW + 1,
        purge_at=int(NOW + 1 + 60 + RELAY_TIME + 7 * 86_400),
    )


@pytest.mark.parametrize(("after", "done"), [(0, False), (5, False), (5.01, True), (70, False)])
def test_a_second_launch_needs_five_seconds_and_an_opening_that_lives(
    store: SessionStore, after: float, done: bool
) -> None:
    launch_session(store)
    again = LaunchRecord("db.internal:5432", "second", "second", LAUNCH.at + after)
    assert store.launch(SESSION, again).done is done
    assert stored_session(store).relay_token_hashes == {"relay hash", *(["second"] if done else [])}


@pytest.mark.parametrize("winner", [0, 1])
def test_any_launch_s_relay_may_claim_and_its_resume_token_is_good(store: SessionStore, winner: int) -> None:
    launch_session(store)
    again = LaunchRecord("db.internal:5432", "second relay", "second resume", LAUNCH.at + 6)
    assert store.launch(SESSION, again).done
    launch = (LAUNCH, again)[winner]
    store.claim(replace(CLAIM, token_hash=launch.relay_token_hash, at=again.at))
    with pytest.raises(ClaimRefusedError, match="another instance holds the session"):
        store.claim(replace(CLAIM, connection="late=", instance="f" * 32, epoch=2, at=again.at))
    resume = replace(RESUME, token_hash=launch.resume_token_hash, at=again.at)
    assert store.resume(resume) is RecordState.OPEN


def test_a_session_whose_end_nobody_notes_is_kept_as_long_as_any_other(store: SessionStore) -> None:
    late = replace(CLAIM, at=NEW.expires - 0.25)
    launch_session(store)
    store.claim(late)
    session = stored_session(store)
    lost = session.loss(session.expires + 1)
    assert lost is not None
    assert lost.at == late.at + RELAY_TIME
    assert session.purge_at >= int(lost.at + RECORD_TIME)


def test_a_launch_repeated_by_the_sdk_counts_as_done(store: SessionStore) -> None:
    launch_session(store)
    assert store.launch(SESSION, LAUNCH).done


@pytest.mark.parametrize("step", ["claimed", "ended", "absent"])
def test_no_launch_after_the_claim_or_the_end(store: SessionStore, step: str) -> None:
    if step != "absent":
        launch_session(store)
    if step == "claimed":
        store.claim(CLAIM)
    if step == "ended":
        store.end(SESSION, ENDING, RecordStep.END)
    late = LaunchRecord("db.internal:5432", "late", "late", NOW + 20)
    assert not store.launch(SESSION, late).done


def test_a_claim_opens_the_session(store: SessionStore) -> None:
    open_session(store)
    session = stored_session(store)
    assert (session.state, session.relay, session.instance) == (RecordState.OPEN, Side(RELAY, 1), INSTANCE)
    assert session.expires == CLAIM.at + RELAY_TIME
    assert store.connection(RELAY) == Connection(RELAY, SESSION, Role.RELAY, 1)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"token_hash": "other"}, "token"),
        ({"session": "0" * 64}, "no such session"),
        ({"at": NEW.expires}, "expired"),
        ({"epoch": 0}, "epoch 0 is not above 0"),
    ],
)
def test_a_wrong_claim_is_refused_and_writes_nothing(
    store: SessionStore, change: dict[str, Any], cause: str
) -> None:
    launch_session(store)
    before = store.session(SESSION)
    with pytest.raises(ClaimRefusedError, match=cause):
        store.claim(replace(CLAIM, **change))
    assert store.session(SESSION) == before
    assert store.connection(RELAY) is None


def test_a_claim_before_the_launch_is_refused(store: SessionStore) -> None:
    store.create(NEW)
    with pytest.raises(ClaimRefusedError, match="OPENING"):
        store.claim(CLAIM)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"instance": "f" * 32, "epoch": 2}, "another instance"),
        ({"epoch": 1}, "epoch 1 is not above 1"),
        ({"epoch": 2, "at": CLAIM.at + RELAY_TIME}, "expired"),
    ],
)
def test_a_session_that_is_held_is_not_given_away(
    store: SessionStore, change: dict[str, Any], cause: str
) -> None:
    open_session(store)
    before = store.session(SESSION)
    with pytest.raises(ClaimRefusedError, match=cause):
        store.claim(replace(CLAIM, connection="late=", **change))
    assert store.session(SESSION) == before
    assert store.connection("late=") is None


def test_the_same_instance_claims_again_with_a_higher_epoch_and_the_first_deadline(
    store: SessionStore,
) -> None:
    open_session(store)
    store.claim(replace(CLAIM, connection="again=", epoch=3, at=CLAIM.at + 100))
    session = stored_session(store)
    assert session.relay == Side("again=", 3, previous=RELAY)
    assert session.expires == CLAIM.at + RELAY_TIME


def test_a_claim_repeated_by_the_sdk_counts_as_done(store: SessionStore) -> None:
    open_session(store)
    store.claim(CLAIM)
    assert stored_session(store).relay == Side(RELAY, 1)


@pytest.mark.parametrize(("role", "connection"), [(Role.DIALER, DIALER), (Role.RELAY, RELAY)])
def test_clearing_forgets_only_that_connection(store: SessionStore, role: Role, connection: str) -> None:
    open_session(store)
    before = stored_session(store)
    session, done = store.clear(SESSION, role, connection, 1, NOW)
    changes: dict[str, Any] = {role.value: Side(None, 1)}
    assert done
    assert session == replace(before, **changes)
    assert store.connection(connection) is not None
    assert store.clear(SESSION, role, connection, 1, NOW + 9).done, "repeated by the SDK"
    assert stored_session(store).side(role).left == NOW, "when it was first found to be gone"
    assert stored_session(store).side(role.other).left is None


def test_when_both_sides_left_stands_in_the_item(store: SessionStore) -> None:
    open_session(store)
    store.clear(SESSION, Role.RELAY, RELAY, 1, NOW + 4.25)
    store.clear(SESSION, Role.DIALER, DIALER, 1, NOW + 6.5)
    assert stored_session(store).deserted == Loss(Code.RELAY_GONE, NOW + 6.5)
    store.resume(RESUME)
    assert stored_session(store).deserted is None


def test_clearing_a_connection_that_is_not_current_changes_nothing(store: SessionStore) -> None:
    open_session(store)
    store.claim(replace(CLAIM, connection="again=", epoch=2))
    before = store.session(SESSION)
    assert store.clear(SESSION, Role.RELAY, RELAY, 1, NOW) == (before, False)
    assert store.clear("0" * 64, Role.RELAY, RELAY, 1, NOW) == (None, False)


@pytest.mark.parametrize("until", [launch_session, open_session, lambda store: store.create(NEW)])
def test_a_session_ends_from_any_state_and_once(
    store: SessionStore, until: Callable[[SessionStore], None]
) -> None:
    until(store)
    session, done = store.end(SESSION, ENDING, RecordStep.END)
    assert done
    assert session is not None
    assert (session.state, session.ending) == (RecordState.ENDED, ENDING)
    later = replace(ENDING, code=Code.OK, by="later=")
    assert store.end(SESSION, later, RecordStep.END) == (session, False)
    assert store.end(SESSION, ENDING, RecordStep.END) == (session, True), "repeated by the SDK"


def test_abandoning_ends_only_what_is_not_claimed(store: SessionStore) -> None:
    open_session(store)
    before = store.session(SESSION)
    assert store.end(SESSION, ENDING, RecordStep.ABANDON) == (before, False)


def test_no_session_is_made_by_ending_one(store: SessionStore) -> None:
    assert store.end(SESSION, ENDING, RecordStep.END) == (None, False)
    assert store.session(SESSION) is None


def test_a_record_is_for_the_first_who_notes_it(store: SessionStore) -> None:
    open_session(store)
    before = store.session(SESSION)
    assert store.note_record(SESSION, "one")
    assert not store.note_record(SESSION, "another")
    assert store.session(SESSION) == before


def test_there_is_no_record_of_a_session_that_was_purged(store: SessionStore) -> None:
    assert not store.note_record(SESSION, "one")
    assert store.session(SESSION) is None


OF_DIALER = replace(ENDING, reporter=Role.DIALER, dialer_messages=1, reason="why")
OF_RELAY = EndRecord(
    Code.OK, 5, 6, "later=", NOW + 9, 7, 8, reporter=Role.RELAY, carried=(5, 6), connections=9
)


def test_the_relays_figures_take_the_place_of_the_dialers(store: SessionStore) -> None:
    open_session(store)
    assert store.end(SESSION, OF_DIALER, RecordStep.END).done
    assert stored_session(store).ending == OF_DIALER
    outcome = store.end(SESSION, OF_RELAY, RecordStep.END)
    assert not outcome.done, "there is a record of this end already"
    assert stored_session(store).ending == replace(
        OF_DIALER, dialer_messages=7, relay_messages=8, reporter=Role.RELAY, carried=(5, 6), connections=9
    ), "clients are told what they were told before"
    assert outcome.session == stored_session(store)
    assert stored_session(store).state is RecordState.ENDED


@pytest.mark.parametrize("first", [OF_RELAY, ENDING], ids=["relay", "bridge"])
@pytest.mark.parametrize("role", Role)
def test_no_other_figures_are_replaced(store: SessionStore, first: EndRecord, role: Role) -> None:
    open_session(store)
    store.end(SESSION, first, RecordStep.END)
    late = replace(first, dialer_final=1, relay_final=1, by="again=", reporter=role)
    assert not store.end(SESSION, late, RecordStep.END).done
    assert stored_session(store).ending == first


@pytest.mark.parametrize("ending", [OF_DIALER, OF_RELAY])
def test_an_end_repeated_by_the_sdk_counts_as_done(
    real: DynamoSessionStore, dynamo: Dynamo, ending: EndRecord
) -> None:
    open_session(real)
    dynamo.lose_answers = 1
    assert real.end(SESSION, ending, RecordStep.END).done
    assert stored_session(real).ending == ending


def test_the_counts_of_connections_are_noted_and_the_end_keeps_them(store: SessionStore) -> None:
    open_session(store)
    before = stored_session(store)
    for counts in (Connections(1, 1, 0), Connections(3, 2, 1), Connections(3, 0, 1)):
        outcome = store.note_connections(SESSION, counts)
        assert outcome == (replace(before, connections=counts), True)
    store.end(SESSION, OF_DIALER, RecordStep.END)
    session = stored_session(store)
    assert (session.connections, session.connections_opened) == (Connections(3, 0, 1), 3)
    store.end(SESSION, OF_RELAY, RecordStep.END)
    assert stored_session(store).connections_opened == 9


def test_counts_of_fewer_connections_than_are_known_are_older(store: SessionStore) -> None:
    open_session(store)
    store.note_connections(SESSION, Connections(10, 0, 5))
    before = store.session(SESSION)
    for opened in (0, 2, 9):
        assert store.note_connections(SESSION, Connections(opened, 1, 9)) == (before, False)
    assert store.note_connections(SESSION, Connections(10, 1, 5)).done, "numbers, not texts"


@pytest.mark.parametrize("until", [launch_session, lambda store: store.create(NEW)])
def test_no_counts_are_noted_before_the_claim(
    store: SessionStore, until: Callable[[SessionStore], None]
) -> None:
    until(store)
    before = store.session(SESSION)
    assert store.note_connections(SESSION, Connections(1, 1, 0)) == (before, False)


def test_no_counts_are_noted_after_the_end_nor_of_no_session(store: SessionStore) -> None:
    assert store.note_connections(SESSION, Connections(1, 1, 0)) == (None, False)
    open_session(store)
    store.end(SESSION, ENDING, RecordStep.END)
    before = store.session(SESSION)
    assert store.note_connections(SESSION, Connections(1, 1, 0)) == (before, False)
