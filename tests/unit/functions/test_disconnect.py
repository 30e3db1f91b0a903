"""``$disconnect``: late, doubled, missing; and what the other side hears."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.session import OPERATOR, RELAY_TIME, Claim, EndRecord, RecordState, RecordStep, Side
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import Disconnected, Ended
from functions.common.errors import StoreError
from functions.common.ports import Outcome
from tests.helpers.events import DIALER, DIALER_AGAIN, INSTANCE, NOW, RELAY, SESSION, load_event
from tests.helpers.fakes import FakeStore
from tests.unit.functions.bridge import Bridge

GONE = {"dialer": (DIALER, RELAY, 1), "relay": (RELAY, DIALER, 2)}


@pytest.mark.parametrize("role", list(Role))
def test_the_other_side_is_told_and_the_session_stays_open(role: Role) -> None:
    bridge = Bridge()
    bridge.open()
    _, peer, wire = GONE[role.value]
    assert bridge.disconnect(load_event(f"disconnect_{role.value}")) == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type, frame.generation) == (peer, FrameType.DISCONNECTED, 2)
    assert Disconnected.decode(frame.payload) == Disconnected(wire, 1)
    assert bridge.session.side(role) == Side(None, 1)
    assert bridge.session.state is RecordState.OPEN


@pytest.mark.parametrize("role", list(Role))
def test_a_late_disconnect_of_an_old_epoch_changes_nothing(role: Role) -> None:
    bridge = Bridge()
    bridge.open()
    token = bridge.launcher.events[0]["relay_token"]
    again = load_event(
        "connect_relay",
        connection_id="again=",
        headers={"X-Emissary-Relay-Token": token, "X-Emissary-Epoch": "2"},
    )
    bridge.connect(again)
    bridge.disconnect(load_event("disconnect_relay"))
    assert bridge.link.take() == []
    assert bridge.session.relay == Side("again=", 2, previous=RELAY)


def test_the_item_of_the_connection_stays_so_that_a_late_end_still_finds_its_session() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.disconnect(load_event("disconnect_dialer"))
    bridge.link.take()
    bridge.link.gone.add(DIALER)
    bridge.message(load_event("default_end"))
    ((to, frame),) = bridge.link.take()
    assert to == RELAY
    assert Ended.decode(frame.payload) == Ended(Code.OK, 111, 400, "clean")


@pytest.mark.parametrize("launched", [False, True])
def test_a_dialer_that_leaves_before_the_claim_ends_the_session(
    launched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge()
    if launched:
        bridge.launch()
    else:
        bridge.admit()
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.disconnect(load_event("disconnect_dialer"))
        bridge.disconnect(load_event("disconnect_dialer", request_id="again="))
    assert bridge.link.take() == []
    assert bridge.session.state is RecordState.ENDED
    assert bridge.session.ending is not None
    assert bridge.session.ending.code is Code.DIALER_GONE
    assert [r.getMessage() for r in caplog.records].count("session ended") == 1


class CannotNote(FakeStore):
    """The table fails as a record is about to be noted."""

    failing = True

    def note_record(self, session_id: str, by: str) -> bool:
        if self.failing:
            raise StoreError("the session table did not answer")
        return super().note_record(session_id, by)


class ClaimedMeanwhile(FakeStore):
    """A relay claims the session between the two writes of ``$disconnect``."""

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        outcome = super().clear(session_id, role, connection_id, epoch, at)
        old = self.sessions[session_id]
        self.claim(Claim(SESSION, RELAY, min(old.relay_token_hashes), INSTANCE, 1, old.started + 1))
        return outcome


def test_a_relay_that_claims_while_the_dialer_leaves_is_told() -> None:
    bridge = Bridge()
    bridge.store = ClaimedMeanwhile()
    bridge.launch()
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.session.state is RecordState.OPEN
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (RELAY, FrameType.DISCONNECTED)
    assert Disconnected.decode(frame.payload) == Disconnected(1, 1)


def test_a_relay_that_leaves_an_ended_session_tells_nobody() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.message(load_event("default_end"))
    bridge.link.take()
    bridge.disconnect(load_event("disconnect_relay"))
    assert bridge.link.take() == []


@pytest.mark.parametrize(("first", "second"), [("dialer", "relay"), ("relay", "dialer")])
def test_when_both_sides_are_gone_the_session_stays_open_and_the_log_says_whose_it_was(
    first: str, second: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both may come back; if neither does, nobody is left to report the end."""
    bridge = Bridge()
    bridge.open()
    bridge.disconnect(load_event(f"disconnect_{first}"))
    bridge.link.take()
    bridge.clock.now += 7
    with caplog.at_level(logging.WARNING, logger="emissary"):
        bridge.disconnect(load_event(f"disconnect_{second}"))
    assert bridge.link.take() == []
    assert bridge.session.state is RecordState.OPEN
    (record,) = caplog.records
    fields = vars(record)
    assert (record.getMessage(), fields["session"]) == ("both connections gone", SESSION)
    assert (fields["key_id"], fields["target"]) == (1, "db.internal:5432")
    assert fields["code"] == f"{first.upper()}_GONE"
    assert (fields[f"{first}_left"], fields[f"{second}_left"]) == (NOW, NOW + 7)


def test_whoever_reads_a_deserted_session_past_its_time_records_why_and_since_when(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.disconnect(load_event("disconnect_relay"))
    bridge.clock.now += 7
    bridge.disconnect(load_event("disconnect_dialer"))
    bridge.link.take()
    bridge.clock.now += 1000
    late = Frame(FrameType.DATA, generation=2, payload=b"handled late")
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.send(DIALER, late)
    ending = bridge.session.ending
    assert ending is not None
    assert (ending.code, ending.at) == (Code.RELAY_GONE, NOW + 7)
    (record,) = [each for each in caplog.records if each.getMessage() == "session ended"]
    assert (vars(record)["code"], vars(record)["ended"]) == ("RELAY_GONE", NOW + 7)


def test_a_disconnect_past_the_relays_end_ends_a_session_that_nobody_has_ended() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.clock.now += RELAY_TIME + 0.1
    bridge.disconnect(load_event("disconnect_relay"))
    ((to, frame),) = bridge.link.take()
    assert (to, Ended.decode(frame.payload).code) == (DIALER, Code.RELAY_DEADLINE)
    assert bridge.session.state is RecordState.ENDED


def kill(bridge: Bridge) -> None:
    """End the session as ``emissary sessions kill`` does."""
    bridge.store.end(SESSION, EndRecord(Code.KILLED, 0, 0, f"{OPERATOR}1", bridge.clock.now), RecordStep.END)


@pytest.mark.parametrize("request_id", [None, "another="])
@pytest.mark.parametrize(("first", "last"), [("dialer", "relay"), ("relay", "dialer")])
def test_a_killed_session_is_recorded_once_however_often_its_disconnects_come(
    first: str, last: str, request_id: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge()
    bridge.open()
    kill(bridge)
    with caplog.at_level(logging.INFO, logger="emissary"):
        for name in (first, first, last, last, first):
            again = request_id if caplog.records else None
            bridge.disconnect(load_event(f"disconnect_{name}", request_id=again))
    assert [each.getMessage() for each in caplog.records] == ["session ended"]


@pytest.mark.parametrize("ended_by", ["a client", "an operator"])
def test_whoever_records_a_session_reckons_with_the_stacks_way_out(
    ended_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    for nat in (True, False):
        bridge = Bridge()
        bridge.nat = nat
        bridge.open()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="emissary"):
            if ended_by == "a client":
                bridge.message(load_event("default_end"))
            else:
                kill(bridge)
                bridge.disconnect(load_event("disconnect_dialer"))
                bridge.disconnect(load_event("disconnect_relay"))
        (record,) = [each for each in caplog.records if each.getMessage() == "session ended"]
        told.append(vars(record)["prices"].split()[-1])
    assert told == ["NAT", "IPv6"]


def test_a_side_that_comes_back_to_hear_of_the_kill_is_not_recorded_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge()
    bridge.open()
    kill(bridge)
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.disconnect(load_event("disconnect_dialer"))
        bridge.disconnect(load_event("disconnect_relay"))
        assert bridge.resume()["statusCode"] == 200
        bridge.disconnect(load_event("disconnect_dialer", connection_id=DIALER_AGAIN))
    assert bridge.session.dialer == Side(None, 2)
    assert caplog.messages.count("session ended") == 1


def test_a_disconnect_that_cannot_note_its_record_fails_and_the_next_one_writes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge()
    bridge.store = cannot_note = CannotNote()
    bridge.open()
    kill(bridge)
    bridge.disconnect(load_event("disconnect_dialer"))
    with caplog.at_level(logging.INFO, logger="emissary"):
        assert bridge.disconnect(load_event("disconnect_relay")) == {"statusCode": 503}
        assert "session ended" not in caplog.messages
        cannot_note.failing = False
        assert bridge.disconnect(load_event("disconnect_relay")) == {"statusCode": 200}
    assert caplog.messages.count("session ended") == 1


def test_a_peer_that_cannot_be_told_is_no_failure() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.link.busy.add(RELAY)
    assert bridge.disconnect(load_event("disconnect_dialer")) == {"statusCode": 200}


def test_an_unknown_connection_is_nobodys_business() -> None:
    bridge = Bridge()
    assert bridge.disconnect(load_event("disconnect_dialer")) == {"statusCode": 200}
    assert bridge.store.writes == 0


def test_a_store_that_is_down_is_503() -> None:
    bridge = Bridge()
    bridge.store.down = True
    assert bridge.disconnect(load_event("disconnect_dialer")) == {"statusCode": 503}
