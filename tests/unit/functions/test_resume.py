"""RESUME: whoever asks, both sides are told where both are, and the replaced connection is closed."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from emissary_lib.bridge.session import CONNECT_TIME, RELAY_TIME, Connection, RecordState, Side
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import Disconnected, End, Ended, Resumed
from functions.common.ports import Outcome
from functions.common.responses import MessageNotHandledError
from tests.helpers.events import DIALER, DIALER_AGAIN, NOW, RELAY, SESSION, load_event
from tests.helpers.fakes import FakeStore
from tests.unit.functions.bridge import Bridge

RELAY_AGAIN = "relay again="
RESUME = Frame(FrameType.RESUME, generation=3)


def opened(store: FakeStore | None = None) -> Bridge:
    bridge = Bridge()
    bridge.store = store or bridge.store
    bridge.open()
    return bridge


def resumed() -> Bridge:
    """The dialer has come back, and has not asked yet."""
    bridge = opened()
    bridge.resume()
    return bridge


def told(bridge: Bridge) -> dict[str, Resumed]:
    """Who was told what; nothing else was posted."""
    posts = bridge.link.take()
    assert {frame.type for _, frame in posts} <= {FrameType.RESUMED}
    assert {frame.generation for _, frame in posts} <= {bridge.session.generation}
    return {to: Resumed.decode(frame.payload) for to, frame in posts}


def test_the_real_event_tells_both_sides_and_closes_the_connection_before() -> None:
    bridge = resumed()
    assert bridge.message(load_event("default_resume")) == {"statusCode": 200}
    expected = Resumed(2, 1, DIALER_AGAIN, RELAY)
    assert told(bridge) == {DIALER_AGAIN: expected, RELAY: expected}
    assert bridge.link.deleted == [DIALER]


def test_a_relay_that_comes_back_tells_both_and_has_its_old_connection_closed() -> None:
    bridge = opened()
    bridge.reclaim()
    bridge.send(RELAY_AGAIN, RESUME)
    expected = Resumed(1, 2, DIALER, RELAY_AGAIN)
    assert told(bridge) == {DIALER: expected, RELAY_AGAIN: expected}
    assert bridge.link.deleted == [RELAY]


@pytest.mark.parametrize("order", [(DIALER_AGAIN, RELAY_AGAIN), (RELAY_AGAIN, DIALER_AGAIN)])
def test_when_both_come_back_at_once_both_end_up_with_both_new_connections(order: tuple[str, str]) -> None:
    bridge = opened()
    for name in ("disconnect_dialer", "disconnect_relay"):
        bridge.disconnect(load_event(name))
    bridge.link.take()
    bridge.reclaim()
    bridge.resume()
    expected = Resumed(2, 2, DIALER_AGAIN, RELAY_AGAIN)
    for sender in order:
        bridge.send(sender, RESUME)
        assert told(bridge) == {DIALER_AGAIN: expected, RELAY_AGAIN: expected}


def test_while_the_peer_is_away_only_the_sender_is_told() -> None:
    bridge = resumed()
    bridge.disconnect(load_event("disconnect_relay"))
    bridge.link.take()
    bridge.send(DIALER_AGAIN, RESUME)
    assert told(bridge) == {DIALER_AGAIN: Resumed(2, 1, DIALER_AGAIN, None)}


def test_resume_is_a_question_on_an_open_connection_too() -> None:
    bridge = opened()
    bridge.send(RELAY, RESUME)
    expected = Resumed(1, 1, DIALER, RELAY)
    assert told(bridge) == {DIALER: expected, RELAY: expected}
    assert bridge.link.deleted == []
    assert bridge.session.relay == Side(RELAY, 1)


def test_an_epoch_past_16_bits_is_told_whole() -> None:
    bridge = opened()
    bridge.resume(70_000)
    bridge.send(DIALER_AGAIN, RESUME)
    assert told(bridge)[RELAY].dialer_epoch == 70_000


@pytest.mark.parametrize("gone", [False, True])
def test_the_resume_of_a_replaced_connection_changes_nothing_and_is_not_answered(gone: bool) -> None:
    bridge = resumed()
    if gone:
        bridge.disconnect(load_event("disconnect_dialer", connection_id=DIALER_AGAIN))
        bridge.link.take()
    before = bridge.session
    assert bridge.send(DIALER, RESUME) == {"statusCode": 200}
    assert told(bridge) == {}
    assert bridge.link.deleted == []
    assert bridge.session == before


@pytest.mark.parametrize(("role", "sender"), [(Role.DIALER, DIALER), (Role.RELAY, RELAY)])
def test_a_connection_that_was_forgotten_but_is_there_is_restored(role: Role, sender: str) -> None:
    bridge = opened()
    bridge.store.clear(SESSION, role, sender, 1, NOW)
    bridge.send(sender, RESUME)
    expected = Resumed(1, 1, DIALER, RELAY)
    assert told(bridge) == {DIALER: expected, RELAY: expected}
    assert bridge.session.side(role) == Side(sender, 1)


class ReturnsMeanwhile(FakeStore):
    """The dialer's next connection is admitted while its forgotten one is about to be restored."""

    overtake: Callable[[], object] = staticmethod(lambda: None)

    def restore(self, connection: Connection) -> Outcome:
        self.overtake()
        return super().restore(connection)


def test_a_connection_is_not_restored_over_a_newer_one() -> None:
    store = ReturnsMeanwhile()
    bridge = opened(store)
    store.clear(SESSION, Role.DIALER, DIALER, 1, NOW)
    store.overtake = bridge.resume
    bridge.send(DIALER, RESUME)
    assert told(bridge) == {}
    assert bridge.session.dialer == Side(DIALER_AGAIN, 2)


def test_a_peer_that_answers_410_once_is_told_all_the_same() -> None:
    bridge = resumed()
    bridge.link.untrue[RELAY] = 1
    bridge.send(DIALER_AGAIN, RESUME)
    assert set(told(bridge)) == {DIALER_AGAIN, RELAY}


def test_a_peer_that_is_gone_is_forgotten_and_the_sender_told_so_in_the_same_answer() -> None:
    bridge = resumed()
    bridge.clock.now += CONNECT_TIME
    bridge.link.gone.add(RELAY)
    bridge.send(DIALER_AGAIN, RESUME)
    assert told(bridge) == {DIALER_AGAIN: Resumed(2, 1, DIALER_AGAIN, None)}
    assert bridge.session.relay == Side(None, 1)
    assert bridge.session.state is RecordState.OPEN


class ClearMeets(FakeStore):
    """Something happens between a post's 410 and the write that forgets the connection."""

    happens: Callable[[], object] = staticmethod(lambda: None)

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        happens, self.happens = self.happens, lambda: None
        happens()
        return super().clear(session_id, role, connection_id, epoch, at)


def test_a_peer_that_has_just_come_back_is_told_on_its_new_connection() -> None:
    store = ClearMeets()
    bridge = opened(store)
    bridge.resume()
    bridge.clock.now += CONNECT_TIME
    bridge.link.gone.add(RELAY)
    store.happens = bridge.reclaim
    bridge.send(DIALER_AGAIN, RESUME)
    expected = Resumed(2, 2, DIALER_AGAIN, RELAY_AGAIN)
    assert told(bridge) == {DIALER_AGAIN: expected, RELAY_AGAIN: expected}


@pytest.mark.parametrize("purged", [False, True])
def test_a_session_that_ends_while_its_peer_is_looked_for_is_answered_ended(purged: bool) -> None:
    store = ClearMeets()
    bridge = opened(store)
    bridge.clock.now += CONNECT_TIME
    bridge.link.gone.add(RELAY)
    if purged:
        store.happens = store.sessions.clear
    else:
        store.happens = lambda: bridge.message(load_event("default_end"))
    bridge.send(DIALER, RESUME)
    posts = bridge.link.take()
    assert {to for to, _ in posts} == {DIALER}
    code = Code.UNKNOWN_SESSION if purged else Code.OK
    assert {Ended.decode(frame.payload).code for _, frame in posts} == {code}


def test_a_peer_that_is_busy_is_left_to_the_next_resume_and_the_sender_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = resumed()
    bridge.clock.now += CONNECT_TIME
    bridge.link.busy.add(RELAY)
    with caplog.at_level(logging.WARNING, logger="emissary"):
        assert bridge.send(DIALER_AGAIN, RESUME) == {"statusCode": 200}
    assert told(bridge) == {DIALER_AGAIN: Resumed(2, 1, DIALER_AGAIN, RELAY)}
    assert [record.getMessage() for record in caplog.records] == ["notice not delivered"]


def test_a_sender_that_cannot_be_told_fails_the_invocation_so_that_it_asks_again() -> None:
    bridge = resumed()
    bridge.link.busy.add(DIALER_AGAIN)
    with pytest.raises(MessageNotHandledError, match="PeerBusyError"):
        bridge.send(DIALER_AGAIN, RESUME)
    bridge.link.busy.clear()
    assert bridge.send(DIALER_AGAIN, RESUME) == {"statusCode": 200}
    assert DIALER_AGAIN in told(bridge)


def test_a_connection_that_cannot_be_closed_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    bridge = resumed()
    bridge.link.busy.add(DIALER)
    with caplog.at_level(logging.WARNING, logger="emissary"):
        assert bridge.send(DIALER_AGAIN, RESUME) == {"statusCode": 200}
    assert [record.getMessage() for record in caplog.records] == ["connection not closed"]


def test_the_disconnect_that_the_closing_brings_about_changes_nothing() -> None:
    bridge = resumed()
    bridge.send(DIALER_AGAIN, RESUME)
    bridge.link.take()
    before = bridge.session
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.link.take() == []
    assert bridge.session == before


def test_the_disconnect_of_the_new_connection_is_told_with_its_epoch() -> None:
    bridge = resumed()
    bridge.disconnect(load_event("disconnect_dialer", connection_id=DIALER_AGAIN))
    ((to, frame),) = bridge.link.take()
    assert (to, Disconnected.decode(frame.payload)) == (RELAY, Disconnected(1, 2))


def test_resume_in_an_ended_session_is_answered_ended_even_on_a_replaced_connection() -> None:
    bridge = resumed()
    bridge.message(load_event("default_end", connection_id=DIALER_AGAIN))
    bridge.link.take()
    for sender in (DIALER, DIALER_AGAIN):
        bridge.send(sender, RESUME)
        ((to, frame),) = bridge.link.take()
        assert (to, Ended.decode(frame.payload)) == (sender, Ended(Code.OK, 111, 400, "clean"))


@pytest.mark.parametrize("known", [False, True])
def test_resume_of_an_unknown_session_is_answered_unknown(known: bool) -> None:
    bridge = opened()
    bridge.store.sessions.clear()
    if not known:
        bridge.store.connections.clear()
    bridge.send(DIALER, RESUME)
    ((to, frame),) = bridge.link.take()
    assert (to, Ended.decode(frame.payload).code) == (DIALER, Code.UNKNOWN_SESSION)


@pytest.mark.parametrize("forgotten", [False, True])
def test_resume_past_the_relays_end_ends_the_session(forgotten: bool) -> None:
    bridge = opened()
    if forgotten:
        bridge.store.clear(SESSION, Role.DIALER, DIALER, 1, NOW)
    bridge.clock.now = NOW + RELAY_TIME + 0.001
    bridge.send(DIALER, RESUME)
    posts = bridge.link.take()
    assert {to for to, _ in posts} == {DIALER, RELAY}
    assert {Ended.decode(frame.payload).code for _, frame in posts} == {Code.RELAY_DEADLINE}
    assert bridge.session.state is RecordState.ENDED


def test_an_end_after_a_resume_reaches_the_new_connection() -> None:
    bridge = resumed()
    bridge.message(load_event("default_end", connection_id=RELAY))
    assert {to for to, _ in bridge.link.take()} == {DIALER_AGAIN, RELAY}


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
@pytest.mark.parametrize(
    "frame",
    [
        RESUME,
        Frame(FrameType.END, generation=3, payload=End(Code.DIALER_RESET, 1, 2).encode()),
        Frame(FrameType.DATA, generation=3, payload=b"late"),
    ],
    ids=["RESUME", "END", "DATA"],
)
def test_whoever_comes_back_after_the_end_is_told_how_it_ended(role: Role, frame: Frame) -> None:
    bridge = opened()
    bridge.message(load_event("default_end"))
    ending = bridge.session.ending
    assert ending is not None
    if role is Role.RELAY and frame.type is FrameType.END:  # the record has the relay's figures then
        ending = replace(ending, dialer_messages=0, relay_messages=0, reporter=Role.RELAY, carried=(2, 1))
    bridge.link.gone.update({DIALER, RELAY})
    bridge.link.take()
    if role is Role.DIALER:
        assert bridge.resume()["statusCode"] == 200
    else:
        assert bridge.reclaim()["statusCode"] == 200
    sender = DIALER_AGAIN if role is Role.DIALER else RELAY_AGAIN
    assert bridge.send(sender, frame) == {"statusCode": 200}
    ((to, told),) = bridge.link.take()
    assert (to, told.type) == (sender, FrameType.ENDED)
    assert Ended.decode(told.payload) == Ended(Code.OK, 111, 400, "clean")
    assert (bridge.session.state, bridge.session.ending) == (RecordState.ENDED, ending)


def test_after_the_end_nobody_else_is_told_that_a_side_came_back() -> None:
    bridge = opened()
    bridge.message(load_event("default_end"))
    bridge.link.take()
    bridge.resume()
    bridge.send(DIALER_AGAIN, RESUME)
    bridge.disconnect(load_event("disconnect_dialer", connection_id=DIALER_AGAIN))
    assert [(to, frame.type) for to, frame in bridge.link.take()] == [(DIALER_AGAIN, FrameType.ENDED)]


def test_a_relay_that_starts_after_the_end_is_refused() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.session.state is RecordState.ENDED
    assert bridge.reclaim(1, connection_id=RELAY) == {"statusCode": 409}
