"""Copying messages: cheap when the peer is known, right when it is not."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.session import CONNECT_TIME, RELAY_TIME, Claim, RecordState, Side
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import SHORT_PAYLOAD
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Disconnected, Ended, Reset, Resumed
from functions.common.ports import Outcome
from functions.common.responses import MessageNotHandledError
from functions.common.routes.peers import PeerCache
from tests.helpers.events import DIALER, INSTANCE, NOW, RELAY, SESSION, load_event
from tests.helpers.fakes import FakeStore
from tests.unit.functions.bridge import Bridge

DATA = load_event("default_data")


def data(generation: int = 2) -> Frame:
    return Frame(FrameType.DATA, generation=generation, payload=b"bytes")


def reconnect_relay(bridge: Bridge, connection: str, epoch: str) -> None:
    event = load_event(
        "connect_relay",
        connection_id=connection,
        headers={
            "X-Emissary-Epoch": epoch,
            "X-Emissary-Relay-Token": bridge.launcher.events[-1]["relay_token"],
        },
    )
    assert bridge.connect(event)["statusCode"] == 200


@pytest.mark.parametrize("warm", [False, True])
def test_a_message_is_copied_unchanged_to_the_peer_both_ways(warm: bool) -> None:
    bridge = Bridge(warm=warm)
    bridge.open()
    assert bridge.message(DATA) == {"statusCode": 200}
    assert bridge.message(load_event("default_data", connection_id=RELAY)) == {"statusCode": 200}
    body = DATA["body"].encode()
    assert bridge.link.posts == [(RELAY, body), (DIALER, body)]


@pytest.mark.parametrize("kind", sorted(t for t in FrameType if t <= 5))
def test_types_1_to_5_are_copied(kind: FrameType) -> None:
    bridge = Bridge()
    bridge.open()
    frame = Frame(kind, generation=2)
    bridge.send(DIALER, frame)
    assert bridge.link.take() == [(RELAY, frame)]


def test_a_known_peer_costs_one_post_and_no_table_request_and_no_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge(warm=True)
    bridge.open()
    bridge.message(DATA)
    reads, writes = bridge.store.reads, bridge.store.writes
    bridge.store.down = True
    with caplog.at_level(logging.DEBUG):
        for _ in range(100):
            bridge.message(DATA)
    assert (bridge.store.reads, bridge.store.writes) == (reads, writes)
    assert len(bridge.link.posts) == 101
    assert caplog.records == []


def test_only_the_first_8_characters_are_looked_at() -> None:
    bridge = Bridge(warm=True)
    bridge.open()
    body = encode(data())[:8] + "é not base64 at all {}".encode()
    bridge.message(load_event("default_data", body=body))
    bridge.message(load_event("default_data", body=body))
    assert bridge.link.posts == [(RELAY, body)] * 2


def test_a_new_environment_costs_two_reads() -> None:
    bridge = Bridge()
    bridge.open()
    before = bridge.store.reads
    bridge.message(DATA)
    assert bridge.store.reads - before == 2


def test_an_absent_peer_is_not_remembered_and_the_message_is_dropped() -> None:
    bridge = Bridge(warm=True)
    bridge.launch()
    assert bridge.send(DIALER, data(1)) == {"statusCode": 200}
    assert bridge.link.posts == []
    event = load_event(
        "connect_relay", headers={"X-Emissary-Relay-Token": bridge.launcher.events[0]["relay_token"]}
    )
    bridge.connect(event)
    bridge.send(DIALER, data(1))
    assert bridge.link.take() == [(RELAY, data(1))]


def test_a_newer_generation_is_looked_up_again() -> None:
    bridge = Bridge(warm=True)
    bridge.open()
    bridge.send(DIALER, data(2))
    reconnect_relay(bridge, "again=", "2")
    bridge.send(DIALER, data(2))
    bridge.send(DIALER, data(3))
    assert [to for to, _ in bridge.link.take()] == [RELAY, RELAY, "again="]


@pytest.mark.parametrize("warm", [False, True])
def test_after_a_410_the_message_goes_to_the_new_peer(warm: bool) -> None:
    bridge = Bridge(warm=warm)
    bridge.open()
    bridge.send(DIALER, data())
    bridge.link.take()
    bridge.link.gone.add(RELAY)
    reconnect_relay(bridge, "again=", "2")
    bridge.send(DIALER, data())
    assert bridge.link.take() == [("again=", data())]
    assert bridge.session.state is RecordState.OPEN


@pytest.mark.parametrize("warm", [False, True])
def test_a_single_410_is_not_believed(warm: bool) -> None:
    bridge = Bridge(warm=warm)
    bridge.open()
    bridge.send(DIALER, data())
    bridge.link.untrue[RELAY] = 1
    writes = bridge.store.writes
    assert bridge.send(DIALER, data()) == {"statusCode": 200}
    assert bridge.link.take() == [(RELAY, data())] * 2
    assert bridge.store.writes == writes
    assert bridge.session.relay == Side(RELAY, 1)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("sender", "gone", "role"), [(DIALER, RELAY, Role.RELAY), (RELAY, DIALER, Role.DIALER)]
)
def test_a_peer_that_answers_410_twice_is_forgotten_and_its_sender_told(
    warm: bool, sender: str, gone: str, role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = Bridge(warm=warm)
    bridge.open()
    bridge.clock.now += CONNECT_TIME
    bridge.send(sender, data())
    bridge.link.take()
    bridge.link.gone.add(gone)
    bridge.link.tries.clear()
    with caplog.at_level(logging.INFO, logger="emissary"):
        assert bridge.send(sender, data()) == {"statusCode": 200}
    assert bridge.link.tries.count(gone) == 2
    assert bridge.link.deleted == [gone], "an owner that is there must notice"
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type, frame.generation) == (sender, FrameType.DISCONNECTED, 2)
    assert Disconnected.decode(frame.payload) == Disconnected(role.wire, 1)
    assert bridge.session.state is RecordState.OPEN
    assert bridge.session.side(role) == Side(None, 1)
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["role"]) == ("connection gone", role.value)
    if bridge.peers is not None:
        assert len(bridge.peers) == 0, "a connection that is gone is not remembered"


@pytest.mark.parametrize("warm", [False, True])
def test_a_relay_that_has_just_claimed_and_cannot_be_posted_to_yet_is_not_forgotten(warm: bool) -> None:
    """Its claim is written before it has its 101, and until then a post is answered 410."""
    bridge = Bridge(warm=warm)
    bridge.open()
    bridge.link.gone.add(RELAY)
    assert bridge.send(DIALER, data()) == {"statusCode": 200}
    assert bridge.send(DIALER, Frame(FrameType.RESUME, generation=2)) == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    assert (to, Resumed.decode(frame.payload)) == (DIALER, Resumed(1, 1, DIALER, RELAY))
    assert (bridge.session.relay, bridge.link.deleted) == (Side(RELAY, 1), [])
    bridge.link.gone.clear()
    bridge.send(DIALER, data())
    assert bridge.link.take() == [(RELAY, data())]


class RelayReturnsMeanwhile(FakeStore):
    """A relay claims again between the read of the session and the write that would forget its connection."""

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        old = self.sessions[session_id]
        if old.relay.epoch == 1:
            self.claim(Claim(SESSION, "again=", min(old.relay_token_hashes), INSTANCE, 2, old.started + 1))
        return super().clear(session_id, role, connection_id, epoch, at)


@pytest.mark.parametrize("warm", [False, True])
def test_a_peer_that_was_replaced_since_the_read_is_not_forgotten_but_posted_to(warm: bool) -> None:
    bridge = Bridge(warm=warm)
    bridge.store = RelayReturnsMeanwhile()
    bridge.open()
    bridge.clock.now += CONNECT_TIME
    bridge.send(DIALER, data())
    bridge.link.take()
    bridge.link.gone.add(RELAY)
    bridge.send(DIALER, data())
    assert bridge.link.take() == [("again=", data())]
    assert bridge.session.relay == Side("again=", 2, previous=RELAY)


def test_two_connections_gone_one_after_the_other_leave_the_peer_absent() -> None:
    bridge = Bridge()
    bridge.store = RelayReturnsMeanwhile()
    bridge.open()
    bridge.clock.now += CONNECT_TIME
    bridge.link.gone |= {RELAY, "again="}
    bridge.send(DIALER, data())
    ((to, frame),) = bridge.link.take()
    assert (to, Disconnected.decode(frame.payload)) == (DIALER, Disconnected(2, 2))
    assert bridge.session.relay.connection is None


def test_each_message_to_a_peer_that_is_away_is_answered_disconnected() -> None:
    """The first notice may have been lost; whoever has heard one falls silent."""
    bridge = Bridge(warm=True)
    bridge.open()
    bridge.send(DIALER, data())
    bridge.link.gone.add(RELAY)
    bridge.disconnect(load_event("disconnect_relay"))
    bridge.link.take()
    for _ in range(2):
        bridge.send(DIALER, data())
        ((to, frame),) = bridge.link.take()
        assert (to, Disconnected.decode(frame.payload)) == (DIALER, Disconnected(2, 1))
    assert bridge.session.state is RecordState.OPEN
    assert bridge.peers is not None
    assert len(bridge.peers) == 0, "a connection that is gone is not remembered"


def test_a_message_that_finds_its_session_purged_and_its_peer_gone_is_answered_unknown() -> None:
    bridge = Bridge()
    bridge.store = PurgedMeanwhile()
    bridge.open()
    bridge.clock.now += CONNECT_TIME
    bridge.link.gone.add(RELAY)
    bridge.send(DIALER, data())
    ((to, frame),) = bridge.link.take()
    assert (to, Ended.decode(frame.payload).code) == (DIALER, Code.UNKNOWN_SESSION)


class PurgedMeanwhile(FakeStore):
    """The table deletes the session between its read and the write that would forget a connection."""

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        del self.sessions[session_id]
        return super().clear(session_id, role, connection_id, epoch, at)


@pytest.mark.parametrize("warm", [False, True])
def test_a_busy_peer_makes_the_invocation_fail_so_that_the_gateway_tells_the_sender(warm: bool) -> None:
    bridge = Bridge(warm=warm)
    bridge.open()
    bridge.message(DATA)
    bridge.link.busy.add(RELAY)
    with pytest.raises(MessageNotHandledError, match="PeerBusyError"):
        bridge.message(DATA)
    bridge.link.busy.clear()
    assert bridge.message(DATA) == {"statusCode": 200}


def test_a_store_that_is_down_makes_the_invocation_fail() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.store.down = True
    with pytest.raises(MessageNotHandledError, match="StoreError"):
        bridge.message(DATA)


def test_a_message_to_an_ended_session_is_answered_with_how_it_ended() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.message(load_event("default_end"))
    bridge.link.take()
    bridge.message(DATA)
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.ENDED)
    assert Ended.decode(frame.payload) == Ended(Code.OK, 111, 400, "clean")


def test_a_message_of_an_unknown_connection_is_answered_unknown() -> None:
    bridge = Bridge()
    bridge.message(DATA)
    ((to, frame),) = bridge.link.take()
    assert (to, Ended.decode(frame.payload).code) == (DIALER, Code.UNKNOWN_SESSION)


def test_a_session_past_its_relays_end_is_lost() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.clock.now = NOW + RELAY_TIME + 0.001
    bridge.message(DATA)
    assert bridge.session.state is RecordState.ENDED
    assert {to for to, _ in bridge.link.posts} == {DIALER, RELAY}
    _, frame = bridge.link.take()[0]
    assert Ended.decode(frame.payload).code is Code.RELAY_DEADLINE


def test_a_connection_reaches_no_other_session_than_its_own() -> None:
    bridge = Bridge()
    bridge.open()
    stranger = "stranger="
    bridge.store.connections[stranger] = bridge.store.connections[DIALER].__class__(
        stranger, "f" * 64, bridge.store.connections[DIALER].role, 1
    )
    bridge.send(stranger, data())
    assert [to for to, _ in bridge.link.take()] == [stranger]
    assert bridge.session.state is RecordState.OPEN


def test_the_peer_cache_is_bounded_and_forgets_the_oldest_first() -> None:
    cache = PeerCache(most=2)
    for number in range(3):
        cache.remember("sender", number, f"peer {number}")
    assert len(cache) == 2
    assert cache.get("sender", 0) is None
    assert cache.get("sender", 2) == "peer 2"
    cache.forget("sender", 2)
    cache.forget("sender", 2)
    assert cache.get("sender", 2) is None


def test_a_message_that_is_too_large_for_the_peers_gateway_is_a_reset_for_its_sender() -> None:
    """Symptom: the sender was told to send it again, for ever."""
    bridge = Bridge()
    bridge.open()
    bridge.link.too_large.add(RELAY)
    assert bridge.message(DATA) == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    reset = Reset.decode(frame.payload)
    assert (to, frame.type, reset.code) == (DIALER, FrameType.RESET, Code.MESSAGE_REFUSED)
    assert "status 413" in reset.reason


def test_a_long_message_that_is_too_large_fails_so_that_it_is_sent_again_as_short_ones() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.link.too_large.add(RELAY)
    with pytest.raises(MessageNotHandledError):
        bridge.send(DIALER, Frame(FrameType.DATA, generation=2, payload=bytes(SHORT_PAYLOAD + 1)))
    assert bridge.link.take() == []
