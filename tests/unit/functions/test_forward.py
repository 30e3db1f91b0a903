"""Copying messages: cheap when the peer is known, right when it is not."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.frames import Frame, FrameType, encode
from emissary_lib.protocol.payloads import Ended
from functions.common.responses import MessageNotHandledError
from functions.common.routes.peers import PeerCache
from functions.common.session import State
from tests.helpers.events import DIALER, NOW, RELAY, load_event
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
    assert bridge.link.posts == [(RELAY, DATA["body"]), (DIALER, DATA["body"])]


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
    body = encode(data())[:8] + "é not base64 at all {}"
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
    assert bridge.session.state is State.OPEN


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "sender, gone, code", [(DIALER, RELAY, Code.RELAY_GONE), (RELAY, DIALER, Code.DIALER_GONE)]
)
def test_a_410_of_the_current_peer_ends_the_session(warm: bool, sender: str, gone: str, code: Code) -> None:
    bridge = Bridge(warm=warm)
    bridge.open()
    bridge.send(sender, data())
    bridge.link.take()
    bridge.link.gone.add(gone)
    bridge.link.tries.clear()
    assert bridge.send(sender, data()) == {"statusCode": 200}
    # Once with the message, once with ENDED; a connection known to be gone is not tried with it again.
    assert bridge.link.tries.count(gone) == 2
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type, frame.generation) == (sender, FrameType.ENDED, 2)
    assert Ended.decode(frame.payload).code is code
    assert bridge.session.state is State.ENDED


def test_a_peer_that_disconnect_has_reported_gone_gets_nothing() -> None:
    bridge = Bridge(warm=True)
    bridge.open()
    bridge.send(DIALER, data())
    bridge.link.gone.add(RELAY)
    bridge.disconnect(load_event("disconnect_relay"))
    bridge.link.take()
    bridge.send(DIALER, data())
    assert bridge.link.take() == []
    assert bridge.session.state is State.OPEN
    assert bridge.peers is not None
    assert len(bridge.peers) == 0, "a connection that is gone is not remembered"


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
    bridge.clock.now = NOW + 900.001
    bridge.message(DATA)
    assert bridge.session.state is State.ENDED
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
    assert bridge.session.state is State.OPEN


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
