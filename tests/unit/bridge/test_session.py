"""The session's states and steps, as a whole table."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_lib.bridge.session import (
    CONNECT_TIME,
    LAUNCH_MARGIN,
    LEAVE_MARGIN,
    LONGEST_RELAY_TIME,
    RELAY_TIME,
    TRANSITIONS,
    Claim,
    EndRecord,
    LaunchRecord,
    Loss,
    RecordState,
    RecordStep,
    SessionRecord,
    Side,
    Transition,
    came_too_late,
    claim_refusal,
    launched_at_the_door,
    lease_after_relay,
    lease_left,
    may_launch,
    purge_time,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections
from tests.helpers.events import DATE, HOST, NONCE, NOW, SESSION

O, I, P, E = RecordState.OPENING, RecordState.INVOKED, RecordState.OPEN, RecordState.ENDED  # noqa: E741

SESSION_NOW = SessionRecord(SESSION, 1, NONCE, DATE, HOST, NOW, NOW + 60, 0)


@pytest.mark.parametrize(
    ("step", "sources", "to"),
    [
        (RecordStep.ADD_FRAGMENT, {O, I}, None),
        (RecordStep.LAUNCH, {O, I}, I),
        (RecordStep.LOSE, {I}, None),
        (RecordStep.CLAIM, {I, P}, P),
        (RecordStep.RESUME, {P}, None),
        (RecordStep.REVISIT, {E}, None),
        (RecordStep.RESTORE, {P}, None),
        (RecordStep.COUNT, {P}, None),
        (RecordStep.ABANDON, {O, I}, E),
        (RecordStep.END, {O, I, P}, E),
    ],
)
def test_every_transition(step: RecordStep, sources: set[RecordState], to: RecordState | None) -> None:
    assert TRANSITIONS[step] == Transition(frozenset(sources), to)


@pytest.mark.parametrize(
    ("noted", "reported", "opened"),
    [(None, None, None), (7, None, 7), (None, 9, 9), (7, 9, 9), (9, 0, 0)],
)
def test_a_session_has_carried_what_its_relay_has_last_told(
    noted: int | None, reported: int | None, opened: int | None
) -> None:
    ending = EndRecord(Code.OK, 0, 0, "request=", NOW, reporter=Role.RELAY, connections=reported)
    counts = None if noted is None else Connections(noted, 2, 1)
    session = replace(SESSION_NOW, state=E, ending=ending, connections=counts)
    assert session.connections_opened == opened
    assert replace(session, state=P, ending=None).connections_opened == noted


@pytest.mark.parametrize(
    ("target", "shared"),
    [
        ("emissary.mux.invalid:1", True),
        ("emissary.mux.invalid:2", False),
        ("db.internal:5432", False),
        (None, False),
    ],
)
def test_a_session_for_the_reserved_name_is_shared(target: str | None, shared: bool) -> None:
    assert replace(SESSION_NOW, target=target).shared is shared


def test_there_are_no_other_transitions_and_none_out_of_ended() -> None:
    assert set(TRANSITIONS) == set(RecordStep)
    from_ended = [transition.to for transition in TRANSITIONS.values() if E in transition.sources]
    assert from_ended == [None]


@pytest.mark.parametrize(
    ("state", "code"),
    [(O, Code.OPENING_EXPIRED), (I, Code.OPENING_EXPIRED), (P, Code.RELAY_DEADLINE), (E, None)],
)
def test_lost_is_derived_from_the_deadline(state: RecordState, code: Code | None) -> None:
    session = replace(SESSION_NOW, state=state)
    assert session.loss(NOW + 60) is None
    assert session.loss(NOW + 60.1) == (None if code is None else Loss(code, NOW + 60))


@pytest.mark.parametrize(
    ("dialer", "relay", "expected"),
    [
        (Side(None, 1, left=NOW + 5), Side(None, 1, left=NOW + 9), Loss(Code.DIALER_GONE, NOW + 9)),
        (Side(None, 1, left=NOW + 9), Side(None, 1, left=NOW + 5), Loss(Code.RELAY_GONE, NOW + 9)),
        (Side("d=", 2, left=NOW + 5), Side(None, 1, left=NOW + 9), None),
        (Side(None, 1, left=NOW + 9), Side("r=", 2, left=NOW + 5), None),
        (Side(None, 1), Side(None, 1, left=NOW + 9), None),
        (Side(None, 1, left=NOW + 9), Side(None, 1), None),
    ],
    ids=["dialer first", "relay first", "dialer is back", "relay is back", "unknown", "unknown too"],
)
def test_a_session_that_both_sides_left_is_lost_by_the_one_that_went_first(
    dialer: Side, relay: Side, expected: Loss | None
) -> None:
    session = replace(SESSION_NOW, state=P, dialer=dialer, relay=relay)
    assert session.deserted == expected
    assert session.loss(NOW + 60) is None, "both may come back"
    assert session.loss(NOW + 61) == (expected or Loss(Code.RELAY_DEADLINE, NOW + 60))


def test_who_leaves_after_the_relays_end_leaves_because_of_it() -> None:
    dialer, relay = Side(None, 1, left=NOW + 5), Side(None, 1, left=NOW + 60.5)
    session = replace(SESSION_NOW, state=P, dialer=dialer, relay=relay)
    assert session.loss(NOW + 61) == Loss(Code.RELAY_DEADLINE, NOW + 60)


CLAIMED = replace(SESSION_NOW, state=P, expires=NOW + RELAY_TIME, invoked_at=NOW + 1, instance="i")


@pytest.mark.parametrize(
    ("session", "until"),
    [
        (SESSION_NOW, NOW + 50 + LAUNCH_MARGIN),
        (replace(SESSION_NOW, invoked_at=NOW + 1), NOW + 1 + LAUNCH_MARGIN),
        (replace(CLAIMED, relay=Side("r=", 1, left=NOW + 5)), NOW + 50 + 20 + LEAVE_MARGIN),
        (replace(CLAIMED, relay=Side(None, 1)), NOW + 50 + 20 + LEAVE_MARGIN),
        (replace(CLAIMED, relay=Side(None, 1, left=NOW + 5)), NOW + 5 + 20 + LEAVE_MARGIN),
        (replace(CLAIMED, expires=NOW + 55), NOW + 55),
    ],
    ids=["not launched", "launched", "here", "gone", "gone since", "at its end"],
)
def test_a_relay_of_whom_nothing_is_heard_may_run_until(session: SessionRecord, until: float) -> None:
    assert lease_left(session, NOW + 50, 20) == until


def test_a_relay_that_has_left_leaves_nothing_behind_but_a_second_launch() -> None:
    once = replace(CLAIMED, relay_token_hashes=frozenset({"a"}))
    assert lease_after_relay(once) == 0
    twice = replace(CLAIMED, relay_token_hashes=frozenset({"a", "b"}))
    assert lease_after_relay(twice) == NOW + 1 + LAUNCH_MARGIN


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({"state": RecordState.ENDED}, True),
        ({"state": RecordState.INVOKED}, False),
        ({"state": RecordState.ENDED, "instance": "f" * 32}, False),
        ({"state": RecordState.ENDED, "relay_token_hashes": frozenset({"other"})}, False),
    ],
    ids=["ended unclaimed", "launched", "claimed", "no launch's token"],
)
def test_a_relay_comes_too_late_where_its_session_has_ended_unclaimed(
    changes: dict[str, Any], late: bool
) -> None:
    launched = replace(SESSION_NOW, relay_token_hashes=frozenset({"token"}))
    claim = Claim(launched.id, "r=", "token", "a" * 32, 1, NOW + 2)
    assert came_too_late(replace(launched, **changes), claim) is late


@pytest.mark.parametrize("relay_time", [60, RELAY_TIME, LONGEST_RELAY_TIME])
def test_a_relay_is_arriving_for_some_time_after_its_claim_whatever_its_timeout(relay_time: float) -> None:
    session = replace(CLAIMED, relay=Side("r=", 1), claimed_at=NOW + 3, expires=NOW + 3 + relay_time)
    assert session.arriving(Role.RELAY, NOW + 3 + CONNECT_TIME - 0.1)
    assert not session.arriving(Role.RELAY, NOW + 3 + CONNECT_TIME)
    assert not session.arriving(Role.DIALER, NOW + 3)
    assert not replace(session, relay=Side("r=", 2)).arriving(Role.RELAY, NOW + 3)


AT_THE_DOOR = launched_at_the_door(
    replace(SESSION_NOW, dialer=Side("d=", 1)), LaunchRecord("t:1", "r", "s", NOW), ["L#0"]
)


def test_a_dialer_is_arriving_for_some_time_after_a_launch_at_the_door() -> None:
    assert AT_THE_DOOR.arriving(Role.DIALER, NOW)
    assert AT_THE_DOOR.arriving(Role.DIALER, NOW + CONNECT_TIME - 0.1)
    assert not AT_THE_DOOR.arriving(Role.DIALER, NOW + CONNECT_TIME)
    assert not AT_THE_DOOR.arriving(Role.RELAY, NOW)


@pytest.mark.parametrize(
    "change", [{"invoked_at": NOW + 6}, {"dialer": Side("d2=", 2)}], ids=["launched again", "came back"]
)
def test_a_dialer_that_was_heard_of_since_is_not_arriving_any_more(change: dict[str, Any]) -> None:
    assert not replace(AT_THE_DOOR, **change).arriving(Role.DIALER, NOW + 7)


def test_a_session_launched_at_the_door_is_kept_and_may_be_claimed_as_any_other() -> None:
    assert (AT_THE_DOOR.state, AT_THE_DOOR.target, AT_THE_DOOR.slots) == (I, "t:1", frozenset({"L#0"}))
    assert AT_THE_DOOR.purge_at == LaunchRecord("t:1", "r", "s", NOW).purge_at
    assert claim_refusal(AT_THE_DOOR, Claim(SESSION, "c=", "r", "i", 1, NOW + 1)) is None


def test_a_launch_that_is_known_to_be_lost_does_not_hold_up_the_next() -> None:
    assert not may_launch(AT_THE_DOOR, NOW + 1)
    lost = replace(AT_THE_DOOR, launch_lost_at=NOW)
    assert may_launch(lost, NOW + 1)
    assert not may_launch(replace(lost, state=E), NOW + 1)


def test_the_generation_is_the_sum_of_the_epochs_in_16_bits() -> None:
    session = replace(SESSION_NOW, dialer=Side("d=", 65_535), relay=Side("r=", 3))
    assert session.generation == 2


def test_roles_know_their_other_side() -> None:
    assert (Role.DIALER.other, Role.RELAY.other) == (Role.RELAY, Role.DIALER)
    assert (Role.DIALER.wire, Role.RELAY.wire) == (1, 2)
    assert (Role.DIALER.gone, Role.RELAY.gone) == (Code.DIALER_GONE, Code.RELAY_GONE)


@pytest.mark.parametrize("skew", [-900, 0, 900])
def test_items_outlive_every_clock_that_accepts_the_date_and_the_session_itself(skew: int) -> None:
    purge = purge_time(date=NOW + skew, now=NOW)
    assert purge > NOW + skew + 900
    assert purge > NOW + 60 + LONGEST_RELAY_TIME


@pytest.mark.parametrize("relay_time", [60, RELAY_TIME, LONGEST_RELAY_TIME])
def test_a_session_whose_end_nobody_tells_is_kept_for_the_relays_time_and_a_week(relay_time: float) -> None:
    launch = LaunchRecord("db.internal:5432", "hash", "hash", at=NOW, relay_time=relay_time)
    assert launch.purge_at == NOW + 60 + relay_time + 7 * 86_400


def test_no_secret_is_shown() -> None:
    session = replace(
        SESSION_NOW, relay_token_hashes=frozenset({"hush"}), resume_token_hashes=frozenset({"hush"})
    )
    assert "hush" not in repr(session)
    assert "nonce" not in repr(session)
