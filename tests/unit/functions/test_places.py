"""When the place of a session that is over is free: not before its relay has returned, and not long after."""

from __future__ import annotations

import pytest

from emissary_lib.bridge.limits import Limit, Limits
from emissary_lib.bridge.session import (
    LAUNCH_MARGIN,
    LEAVE_MARGIN,
    OPERATOR,
    RELAY_TIME,
    EndRecord,
    RecordState,
    RecordStep,
)
from emissary_lib.protocol.auth.macs import encode_unpadded, relay_token
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import End
from tests.helpers.events import DIALER, KEY, NOW, RELAY, SESSION, load_event
from tests.unit.functions.bridge import Bridge, example_stream

GRACE = 20.0
END = Frame(FrameType.END, generation=2, payload=End(Code.OK, 1, 2).encode())
RESUME = Frame(FrameType.RESUME, generation=2)


def one_place() -> Bridge:
    """An open session that has the only place there is."""
    bridge = Bridge()
    bridge.limits, bridge.grace = Limits(total=1), GRACE
    bridge.open()
    return bridge


def launched(launches: int = 1) -> Bridge:
    """A session that has the only place there is, launched so often, each time 6 s later."""
    bridge = Bridge()
    bridge.limits, bridge.grace = Limits(total=1), GRACE
    bridge.launch()
    for _ in range(launches - 1):
        bridge.clock.now += 6
        bridge.send_opening(0, example_stream())
    assert len(bridge.launcher.events) == launches
    return bridge


def taken(bridge: Bridge, at: float) -> bool:
    return bridge.store.in_use(Limit(1), at) == 1


def free_from(bridge: Bridge, at: float) -> bool:
    return taken(bridge, at - 0.1) and not taken(bridge, at)


def leave(bridge: Bridge, name: str = "relay", connection: str | None = None, code: int = 1000) -> None:
    bridge.disconnect(load_event(f"disconnect_{name}", connection_id=connection, close_code=code))


def test_a_lost_disconnect_locks_a_place_for_no_longer_than_a_relay_may_come_back() -> None:
    bridge = one_place()
    bridge.clock.now += 5
    bridge.send(DIALER, END)
    assert free_from(bridge, NOW + 5 + GRACE + LEAVE_MARGIN)


@pytest.mark.parametrize("code", [1001, 1006])
def test_a_relay_whose_connection_is_lost_comes_back_to_hear_of_the_end_and_keeps_its_place(
    code: int,
) -> None:
    bridge = one_place()
    bridge.send(DIALER, END)
    leave(bridge, code=code)
    assert taken(bridge, NOW)
    assert bridge.reclaim()["statusCode"] == 200
    leave(bridge, connection=RELAY)
    assert taken(bridge, NOW), "that was the connection before"
    leave(bridge, connection="relay again=")
    assert not taken(bridge, NOW)
    leave(bridge, connection="relay again=")
    assert not taken(bridge, NOW), "once more, and nothing is taken by that"


def test_a_relay_that_crashed_before_the_end_is_waited_for_from_then_on() -> None:
    bridge = one_place()
    leave(bridge, code=1006)
    assert taken(bridge, NOW + 60), "it may come back"
    bridge.clock.now += GRACE
    bridge.send(DIALER, END)
    assert free_from(bridge, NOW + GRACE + LEAVE_MARGIN)


def test_when_a_second_launch_is_under_way_the_place_waits_for_its_relay_too() -> None:
    bridge = launched(2)
    assert bridge.reclaim(1, connection_id=RELAY)["statusCode"] == 200
    bridge.send(DIALER, END)
    leave(bridge)
    assert free_from(bridge, NOW + 6 + LAUNCH_MARGIN)


@pytest.mark.parametrize("end", ["by a report", "by leaving"])
def test_a_relay_that_is_refused_because_its_session_has_ended_leaves_its_place_free_at_once(
    end: str,
) -> None:
    """Clients that hung up behind the launch kept a stack's places taken for half a minute."""
    bridge = launched()
    if end == "by a report":
        bridge.send(DIALER, END)
    else:
        leave(bridge, "dialer", code=1006)
    assert free_from(bridge, NOW + LAUNCH_MARGIN), "no relay has come yet"
    assert bridge.reclaim(1)["statusCode"] == 409
    assert not taken(bridge, NOW)


def test_of_a_session_launched_twice_a_refused_relay_may_leave_another_behind() -> None:
    bridge = launched(2)
    bridge.send(DIALER, END)
    assert bridge.reclaim(1)["statusCode"] == 409
    assert free_from(bridge, NOW + 6 + LAUNCH_MARGIN)


def test_a_place_that_a_refused_relay_has_left_is_not_taken_again_by_who_ended_its_session() -> None:
    """The end is written before its place is given back, and a claim may come in between."""
    bridge = launched()
    kill(bridge)
    assert bridge.reclaim(1)["statusCode"] == 409
    assert not taken(bridge, NOW)
    leave(bridge, "dialer")
    assert not taken(bridge, NOW)


def test_a_relay_that_is_refused_once_more_takes_nothing_from_the_next_session() -> None:
    """The answer was lost, or Lambda has repeated the launch."""
    bridge = launched()
    bridge.send(DIALER, END)
    assert bridge.reclaim(1)["statusCode"] == 409
    bridge.store.leases["L#0"] = ("another session", NOW + 100)
    assert bridge.reclaim(2)["statusCode"] == 409
    assert bridge.store.leases["L#0"] == ("another session", NOW + 100)


def test_a_token_that_the_dialer_made_frees_no_place() -> None:
    """Its MAC is good, for the dialer has the key; but no launch has had it."""
    bridge = launched()
    bridge.send(DIALER, END)
    forged = encode_unpadded(relay_token(KEY, session=SESSION, random=bytes(16)))
    event = load_event("connect_relay", headers={"X-Emissary-Relay-Token": forged})
    assert bridge.connect(event)["statusCode"] == 409
    assert free_from(bridge, NOW + LAUNCH_MARGIN)


def test_a_relay_that_is_refused_for_another_frees_no_place_of_that_one() -> None:
    bridge = one_place()
    bridge.send(DIALER, END)
    second = {"X-Emissary-Relay-Token": bridge.launcher.events[0]["relay_token"]}
    event = load_event("connect_relay", headers=second | {"X-Emissary-Instance": "f" * 32})
    assert bridge.connect(event)["statusCode"] == 409
    assert free_from(bridge, NOW + GRACE + LEAVE_MARGIN)
    leave(bridge)
    assert not taken(bridge, NOW)


@pytest.mark.parametrize("order", [("dialer", "relay"), ("relay", "dialer")])
def test_when_both_have_gone_the_place_is_free_after_the_grace(order: tuple[str, str]) -> None:
    """Whatever the relay's timeout: the bridge knows after seconds."""
    bridge = one_place()
    leave(bridge, order[0], code=1006)
    assert taken(bridge, NOW + RELAY_TIME)
    leave(bridge, order[1], code=1006)
    assert bridge.session.state is RecordState.OPEN, "both may come back"
    assert free_from(bridge, NOW + GRACE + LEAVE_MARGIN)


def kill(bridge: Bridge) -> None:
    """What ``emissary sessions kill`` writes: the end alone."""
    ending = EndRecord(Code.KILLED, 0, 0, f"{OPERATOR}1", bridge.clock.now)
    assert bridge.store.end(SESSION, ending, RecordStep.END).done


def test_the_place_of_a_killed_session_is_free_when_its_relay_has_left() -> None:
    bridge = one_place()
    kill(bridge)
    leave(bridge, "dialer")
    assert free_from(bridge, NOW + GRACE + LEAVE_MARGIN), "if no more is heard of the relay"
    leave(bridge)
    assert not taken(bridge, NOW)


def test_the_place_of_a_session_that_is_killed_before_the_claim_waits_for_the_launch_alone() -> None:
    bridge = launched()
    kill(bridge)
    assert taken(bridge, NOW + RELAY_TIME)
    leave(bridge, "dialer")
    assert free_from(bridge, NOW + LAUNCH_MARGIN)


def test_a_killed_session_whose_relay_is_lost_keeps_its_place_for_the_grace() -> None:
    bridge = one_place()
    leave(bridge, "dialer")
    kill(bridge)
    bridge.clock.now += 5
    leave(bridge, code=1006)
    assert free_from(bridge, NOW + 5 + GRACE + LEAVE_MARGIN)


def desert(bridge: Bridge) -> None:
    leave(bridge, "dialer", code=1006)
    leave(bridge, "relay", code=1006)
    bridge.link.take()
    assert not taken(bridge, NOW + 60)


def test_a_relay_that_comes_back_has_its_place_again() -> None:
    bridge = one_place()
    desert(bridge)
    bridge.clock.now += GRACE - 1
    assert bridge.reclaim()["statusCode"] == 200
    bridge.send("relay again=", RESUME)
    assert bridge.session.slots_until is None
    assert free_from(bridge, bridge.session.expires)
    writes = bridge.store.writes
    bridge.send("relay again=", RESUME)
    assert bridge.store.writes == writes, "it is renewed once"


def test_a_relay_that_comes_back_when_its_place_is_taken_is_ended() -> None:
    bridge = one_place()
    desert(bridge)
    bridge.clock.now += 70
    bridge.store.leases["L#0"] = ("another session", bridge.clock.now + 100)
    assert bridge.reclaim()["statusCode"] == 200
    bridge.send("relay again=", RESUME)
    assert bridge.session.ending is not None
    assert bridge.session.ending.code is Code.RELAY_GONE
    assert [(to, frame.type) for to, frame in bridge.link.take()] == [("relay again=", FrameType.ENDED)]
    assert bridge.store.leases["L#0"] == ("another session", bridge.clock.now + 100)


def test_a_dialer_that_comes_back_alone_does_not_take_the_place_again() -> None:
    bridge = one_place()
    desert(bridge)
    assert bridge.resume()["statusCode"] == 200
    assert free_from(bridge, NOW + GRACE + LEAVE_MARGIN)
