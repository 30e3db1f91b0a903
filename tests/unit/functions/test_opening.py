"""The opening, in any cut and order, over handlers that remember nothing."""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import random
from typing import Any

import pytest

from emissary_lib.bridge.launch import Launch
from emissary_lib.bridge.limits import Limit, Limits
from emissary_lib.bridge.session import LAUNCH_MARGIN, RecordState
from emissary_lib.protocol.auth.keys import KeyRing
from emissary_lib.protocol.auth.macs import decode_unpadded, verify_relay_token
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import OPENING_TIME
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import End, Ended, Reset
from functions.common.responses import MessageNotHandledError
from tests.helpers.events import DIALER, HOST, KEY, NOW, RELAY, SESSION, load_event
from tests.unit.functions.bridge import Bridge, example_stream

STREAM = example_stream()
#: Where the greeting ends, and the credentials (RFC 1928 section 3, RFC 1929 section 2).
GREETING = 3
CREDENTIALS = GREETING + 3 + 29 + 48
BANNER = 0x5E + 1


def server_bytes(bridge: Bridge) -> bytes:
    return base64.b64decode(bridge.launcher.events[-1]["server_bytes"])


def test_a_whole_opening_launches_a_relay_and_posts_nothing() -> None:
    bridge = Bridge()
    bridge.launch()
    assert bridge.link.posts == []
    session = bridge.session
    assert session.state is RecordState.INVOKED
    assert (session.target, session.invoked_at) == ("db.internal:5432", NOW)


def test_the_log_says_who_and_to_where_from_the_launch_on(caplog: pytest.LogCaptureFixture) -> None:
    """Of a session whose end nobody reports, and whose $disconnects get lost, it has nothing else."""
    bridge = Bridge()
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.launch()
    (line,) = (each.__dict__ for each in caplog.records if each.message == "relay launched")
    session = bridge.session
    assert {name: line[name] for name in ("session", "key_id", "source", "target")} == {
        "session": session.id,
        "key_id": 1,
        "source": session.source,
        "target": "db.internal:5432",
    }
    assert session.source


def test_the_launch_event_is_complete() -> None:
    bridge = Bridge()
    bridge.launch()
    (event,) = bridge.launcher.events
    example = load_event("relay_start")
    relay_token = decode_unpadded(event["relay_token"])
    verify_relay_token(relay_token, KeyRing([KEY]), session=SESSION)
    assert bridge.session.relay_token_hashes == {hashlib.sha256(relay_token).hexdigest()}
    tokens = {"relay_token": event["relay_token"], "resume_token": event["resume_token"]}
    assert event == example | tokens
    assert event["relay_token"] != event["resume_token"]
    assert server_bytes(bridge)[BANNER:] == b"\x05\x02\x01\x00"
    assert (event["host"], event["expires"]) == (HOST, NOW + 60)


def test_three_messages_get_the_answers_of_a_socks5_server() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(0, STREAM[:GREETING])
    ((to, frame),) = bridge.link.take()
    assert to == DIALER
    assert (frame.type, frame.generation, frame.window, frame.offset) == (FrameType.DATA, 1, 65_536, 0)
    assert frame.ack == GREETING
    assert frame.payload[BANNER:] == b"\x05\x02"
    bridge.send_opening(GREETING, STREAM[GREETING:CREDENTIALS])
    ((_, frame),) = bridge.link.take()
    assert frame.ack == CREDENTIALS
    assert frame.payload[BANNER:] == b"\x05\x02\x01\x00"
    bridge.send_opening(CREDENTIALS, STREAM[CREDENTIALS:])
    assert bridge.link.take() == []
    assert len(bridge.launcher.events) == 1


def test_less_than_a_greeting_is_not_answered() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(0, STREAM[:2])
    assert bridge.link.take() == []


@pytest.mark.parametrize("seed", range(5))
def test_a_byte_at_a_time_in_any_order_launches_once_with_the_same_event(seed: int) -> None:
    whole, bridge = Bridge(), Bridge()
    whole.launch()
    bridge.admit()
    pieces = [(offset, STREAM[offset : offset + 1]) for offset in range(len(STREAM))]
    random.Random(seed).shuffle(pieces)
    for offset, payload in pieces:
        bridge.send_opening(offset, payload)
    assert bridge.session.state is RecordState.INVOKED
    expected = whole.launcher.events[0] | {"window": 65_536}
    assert bridge.launcher.events == [expected]


@pytest.mark.parametrize("seed", range(5))
def test_lost_and_doubled_messages_are_made_good_by_retransmission(seed: int) -> None:
    chance = random.Random(seed)
    bridge = Bridge()
    bridge.admit()
    for _round in range(50):
        if bridge.launcher.events:
            break
        # Each retransmission may cut the stream differently (docs/protocol.md section 4.1).
        cuts = sorted({0, len(STREAM), *(chance.randrange(len(STREAM)) for _ in range(3))})
        pieces = [(a, STREAM[a:b]) for a, b in itertools.pairwise(cuts)] * 2
        chance.shuffle(pieces)
        for offset, payload in pieces:
            if chance.random() < 0.6:
                bridge.send_opening(offset, payload)
    assert len(bridge.launcher.events) == 1
    assert bridge.launcher.events[0]["client_offset"] == len(STREAM)


def test_bytes_after_connect_travel_as_early_bytes() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(0, STREAM + b"early")
    (event,) = bridge.launcher.events
    assert base64.b64decode(event["early"]) == b"early"
    assert event["client_offset"] == len(STREAM)


@pytest.mark.parametrize(
    ("target", "reply"), [("other.internal:5432", 2), ("db.internal:5433", 2), ("10.0.0.9:5432", 2)]
)
def test_a_target_off_the_allow_list_is_refused_and_again_when_asked_again(target: str, reply: int) -> None:
    bridge = Bridge()
    bridge.admit()
    for _ in range(2):
        bridge.send_opening(0, example_stream(target))
        ((to, frame),) = bridge.link.take()
        assert to == DIALER
        assert frame.payload[BANNER:] == bytes([5, 2, 1, 0, 5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
    assert bridge.launcher.events == []
    assert bridge.session.state is RecordState.OPENING


def test_a_shared_session_is_launched_though_the_allow_list_is_empty() -> None:
    bridge = Bridge()
    bridge.allow = AllowList()
    bridge.admit()
    stream = example_stream(str(SHARED_TARGET))
    begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    bridge.send_opening(len(stream), begun)
    bridge.send_opening(0, stream)
    assert bridge.link.take() == []
    (event,) = bridge.launcher.events
    assert event["target"] == {"host": "emissary.mux.invalid", "port": 1}
    launch = Launch.parse(event)
    assert (launch.target, launch.client_offset, launch.early) == (SHARED_TARGET, len(stream), begun)
    assert (bridge.session.state, bridge.session.target) == (RecordState.INVOKED, "emissary.mux.invalid:1")


def test_a_shared_session_takes_one_place_for_all_its_connections() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1, per_key=1)
    bridge.admit()
    bridge.send_opening(0, example_stream(str(SHARED_TARGET)))
    assert set(bridge.store.leases) == {"L#0", "K#1#0"}


@pytest.mark.parametrize("port", [2, 5432])
def test_no_rule_lets_anybody_dial_the_reserved_name(port: int) -> None:
    bridge = Bridge()
    bridge.allow = AllowList.parse(f'[{{"host": "*.mux.invalid", "port": {port}}}]')
    bridge.admit()
    bridge.send_opening(0, example_stream(f"emissary.mux.invalid:{port}"))
    ((_to, frame),) = bridge.link.take()
    assert frame.payload[BANNER:] == bytes([5, 2, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0])
    assert bridge.launcher.events == []


@pytest.mark.parametrize("target", ["db.internal:5432", str(SHARED_TARGET)])
def test_an_allow_list_that_cannot_be_read_is_told_to_who_has_a_key(target: str) -> None:
    """Symptom: a stack with a wrong parameter let each dial wait 20 s for a relay, whose log was empty."""
    bridge = Bridge()
    bridge.allow, bridge.allow_fault = AllowList(), "EMISSARY_ALLOWED_PROXY_TARGETS: it is no list"
    bridge.admit()
    bridge.send_opening(0, example_stream(target))
    ended = [Ended.decode(frame.payload) for _to, frame in bridge.link.take()]
    assert [(each.code, each.reason) for each in ended] == [(Code.CONFIGURATION_ERROR, bridge.allow_fault)]
    assert bridge.launcher.events == []


def test_who_has_no_key_is_not_told_of_the_allow_list() -> None:
    bridge = Bridge()
    bridge.allow, bridge.allow_fault = AllowList(), "EMISSARY_ALLOWED_PROXY_TARGETS: it is no list"
    bridge.admit()
    stream = example_stream("db.internal:5432")
    at = len(stream) // 2  # in the password
    bridge.send_opening(0, stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :])
    assert bridge.allow_fault.encode() not in b"".join(frame.payload for _to, frame in bridge.link.take())
    assert bridge.session.ending is None


def test_a_wrong_password_is_refused() -> None:
    bridge = Bridge()
    bridge.admit()
    broken = bytearray(STREAM)
    broken[CREDENTIALS - 1] ^= 1
    bridge.send_opening(0, bytes(broken))
    ((_, frame),) = bridge.link.take()
    assert frame.payload[BANNER:] == b"\x05\x02\x01\x01"
    assert bridge.launcher.events == []


def test_a_greeting_without_passwords_is_refused() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(0, b"\x05\x01\x00")
    ((_, frame),) = bridge.link.take()
    assert frame.payload[BANNER:] == b"\x05\xff"


def test_what_is_no_socks5_is_reset() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(0, b"GET / HTTP/1.1\r\n\r\n")
    to, frame = bridge.link.take()[-1]
    assert (to, frame.type) == (DIALER, FrameType.RESET)
    assert Reset.decode(frame.payload).code is Code.PROTOCOL_ERROR


def test_an_opening_message_in_invoked_is_kept_but_neither_answered_nor_launched() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.clock.now += 5
    bridge.send_opening(len(STREAM), b"more")
    assert bridge.link.take() == []
    assert len(bridge.launcher.events) == 1
    assert len(bridge.session.fragments) == 2


def test_a_launch_that_nobody_claims_is_repeated_after_five_seconds_with_fresh_tokens() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.send_opening(len(STREAM), b"more")
    bridge.clock.now += 5.001
    bridge.send_opening(0, STREAM)
    first, second = bridge.launcher.events
    assert first["relay_token"] != second["relay_token"]
    assert base64.b64decode(second["early"]) == b"more"
    assert bridge.session.invoked_at == NOW + 5.001


@pytest.mark.parametrize("winner", [0, 1])
def test_the_first_of_the_launched_relays_that_claims_has_the_session(winner: int) -> None:
    """A start that took longer than the pause before the second launch was refused for its sake."""
    bridge = Bridge()
    bridge.launch()
    bridge.clock.now += 6
    bridge.send_opening(0, example_stream())
    first, second = bridge.launcher.events[winner], bridge.launcher.events[1 - winner]
    assert claim(bridge, first, "first=", "1" * 32) == 200
    assert claim(bridge, second, "second=", "2" * 32) == 409, "one instance holds a session"
    assert (bridge.session.state, bridge.session.instance) == (RecordState.OPEN, "1" * 32)
    shown = {"X-Emissary-Resume-Token": first["resume_token"]}
    assert bridge.resume(headers=shown)["statusCode"] == 200, "the token that the relay has told"


def claim(bridge: Bridge, event: dict[str, Any], connection_id: str, instance: str) -> int:
    """A relay that was launched by ``event`` dials back: the status."""
    headers = {"X-Emissary-Relay-Token": event["relay_token"], "X-Emissary-Instance": instance}
    shown = load_event("connect_relay", connection_id=connection_id, headers=headers)
    status: int = bridge.connect(shown)["statusCode"]
    return status


def test_a_relay_that_has_claimed_is_not_launched_again() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.clock.now += 30
    bridge.message(load_event("default_opening"))
    assert len(bridge.launcher.events) == 1


def test_a_launch_that_fails_tells_the_sender_and_the_next_one_after_five_seconds_works() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.launcher.fails = True
    with pytest.raises(MessageNotHandledError, match="LaunchError"):
        bridge.message(load_event("default_opening"))
    bridge.launcher.fails = False
    bridge.clock.now += 5.001
    bridge.message(load_event("default_opening"))
    assert len(bridge.launcher.events) == 1


def test_an_opening_message_in_open_is_copied_to_the_relay_unchanged() -> None:
    bridge = Bridge()
    bridge.open()
    event = load_event("default_opening")
    assert bridge.message(event) == {"statusCode": 200}
    assert bridge.link.posts == [(RELAY, event["body"].encode())]


def test_an_opening_that_takes_too_much_room_is_a_protocol_error() -> None:
    bridge = Bridge()
    bridge.admit()
    for offset in range(2000, 2000 + 910):  # 9 of 8,192 each
        bridge.send_opening(offset, b"x")
    kept = bridge.session.fragments
    assert (len(kept), bridge.link.take()) == (910, [])
    assert bridge.send_opening(2000, b"y") == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.RESET)
    assert Reset.decode(frame.payload) == Reset(Code.PROTOCOL_ERROR, "an opening of more than 8192 bytes")
    assert bridge.session.fragments == kept
    # One that is kept already is no other.
    bridge.send_opening(2000, b"x")
    assert bridge.link.take() == []


def test_a_launched_session_is_launched_again_though_its_opening_is_full() -> None:
    bridge = Bridge()
    bridge.launch()
    used = sum(fragment.weight for fragment in bridge.session.fragments)
    bridge.send_opening(1, bytes(4000))
    bridge.send_opening(2, bytes(8192 - used - 4008 - 8))
    bridge.clock.now += 6
    bridge.send_opening(0, example_stream())
    assert len(bridge.launcher.events) == 2


def test_bytes_beyond_offset_4096_are_left_to_retransmission() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(4090, bytes(100))
    bridge.send_opening(4096, b"beyond")
    ((fragment),) = bridge.session.fragments
    assert (fragment.offset, len(fragment.payload)) == (4090, 6)


def test_an_opening_that_has_expired_is_ended() -> None:
    bridge = Bridge()
    bridge.launch()
    bridge.clock.now = NOW + 60.001
    bridge.message(load_event("default_opening"))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.ENDED)
    assert Ended.decode(frame.payload).code is Code.OPENING_EXPIRED
    assert bridge.session.state is RecordState.ENDED


def test_an_opening_message_to_an_unknown_session_is_answered_ended() -> None:
    bridge = Bridge()
    bridge.send_opening(0, STREAM)
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.ENDED)
    assert Ended.decode(frame.payload).code is Code.UNKNOWN_SESSION


def test_a_purged_session_is_unknown() -> None:
    bridge = Bridge()
    bridge.admit()
    del bridge.store.sessions[SESSION]
    bridge.send_opening(0, STREAM)
    ((_, frame),) = bridge.link.take()
    assert Ended.decode(frame.payload).code is Code.UNKNOWN_SESSION


def test_a_relay_may_not_send_opening_messages() -> None:
    bridge = Bridge()
    bridge.open()
    bridge.send(RELAY, Frame(FrameType.OPENING, payload=STREAM))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (RELAY, FrameType.RESET)


def test_a_busy_dialer_makes_the_sender_ask_again() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.link.busy.add(DIALER)
    with pytest.raises(MessageNotHandledError, match="PeerBusyError"):
        bridge.send_opening(0, STREAM[:GREETING])


def test_a_dialer_that_has_gone_needs_no_answer() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.link.gone.add(DIALER)
    assert bridge.send_opening(0, STREAM[:GREETING]) == {"statusCode": 200}


def test_a_session_over_the_limit_is_ended_and_the_dialer_told_which_limit() -> None:
    bridge = Bridge()
    bridge.limits = Limits(per_key=1)
    bridge.store.leases["K#1#0"] = ("another session", bridge.clock.now + 1)
    bridge.admit()
    bridge.send_opening(0, example_stream())
    assert bridge.launcher.events == []
    assert bridge.session.state is RecordState.ENDED
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.ENDED)
    assert Ended.decode(frame.payload) == Ended(
        Code.SESSION_LIMIT, 0, 0, "limit of 1 sessions for key 1 reached"
    )
    bridge.send_opening(0, example_stream())
    assert [Ended.decode(frame.payload).code for _to, frame in bridge.link.take()] == [Code.SESSION_LIMIT]


def test_a_place_that_became_free_is_taken() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1, per_key=1)
    bridge.open()
    assert set(bridge.store.leases) == {"L#0", "K#1#0"}
    end = Frame(FrameType.END, generation=2, payload=End(Code.OK, 1, 2).encode())
    bridge.send(DIALER, end)
    assert bridge.store.in_use(Limit(1), bridge.clock.now) == 1, "its relay runs until it has left"
    bridge.disconnect(load_event("disconnect_relay", close_code=1000))
    assert {expires for _session, expires in bridge.store.leases.values()} == {0}


def test_an_opening_that_is_abandoned_gives_its_place_back_when_its_relay_has_returned() -> None:
    """Else whoever gives up at once, again and again, has as many relays connecting as it likes."""
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.launch()
    assert bridge.store.in_use(Limit(1), bridge.clock.now) == 1
    bridge.clock.now += 4
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.session.state is RecordState.ENDED
    assert bridge.store.in_use(Limit(1), NOW + LAUNCH_MARGIN - 0.1) == 1
    assert bridge.store.in_use(Limit(1), NOW + LAUNCH_MARGIN) == 0


def test_a_place_is_leased_for_as_long_as_a_relay_of_the_stack_can_live() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.relay_time = 60
    bridge.open()
    assert bridge.store.leases["L#0"][1] == NOW + OPENING_TIME + 60
    assert (bridge.session.claimed_at, bridge.session.expires) == (NOW, NOW + 60)


def test_a_session_that_is_found_lost_gives_its_place_back() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.open()
    bridge.clock.now = bridge.session.expires + 1
    bridge.send(DIALER, Frame(FrameType.RESUME, generation=2))
    assert bridge.session.state is RecordState.ENDED
    assert bridge.store.in_use(Limit(1), bridge.clock.now) == 0


def test_a_second_launch_keeps_the_place() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.launch()
    bridge.clock.now += 6
    bridge.send_opening(0, example_stream())
    assert len(bridge.launcher.events) == 2
    assert bridge.store.in_use(Limit(1), bridge.clock.now) == 1
