"""Launch at the door: what an upgrade shows starts its relay at once, once, and otherwise changes nothing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.bridge.limits import Limit, Limits
from emissary_lib.bridge.session import CONNECT_TIME, RecordState
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.auth.macs import encode_unpadded, sign_connect, sign_opening
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import Ended
from functions.common.adapters.keys import EnvironmentKeys
from tests.helpers.events import DATE, DIALER, HOST, KEY, NONCE, NOW, RELAY, SESSION, load_event
from tests.unit.functions.bridge import Bridge, example_stream

#: As the OPENING of the events has it.
WINDOW = 65_536

OPENING, MAC = "X-Emissary-Opening", "X-Emissary-Opening-Mac"
DOOR = sign_connect(KEY, date=DATE, nonce=NONCE, host=HOST)


def shown(stream: bytes, *, key: Key = KEY, window: int = WINDOW) -> dict[str, str | None]:
    """The headers that show an opening with the example upgrade."""
    signed = sign_opening(key, date=DATE, nonce=NONCE, host=HOST, window=window, stream=stream)
    return {**signed.to_headers()}


def knock(
    bridge: Bridge, stream: bytes | None = None, changes: Mapping[str, str | None] | None = None
) -> int:
    """The example dialer's upgrade, which shows its opening; the status."""
    headers = shown(example_stream() if stream is None else stream) | dict(changes or {})
    status: int = bridge.connect(load_event("connect_dialer", headers=headers))["statusCode"]
    return status


def claim(bridge: Bridge, connection_id: str = RELAY) -> int:
    token = bridge.launcher.events[-1]["relay_token"]
    event = load_event(
        "connect_relay", connection_id=connection_id, headers={"X-Emissary-Relay-Token": token}
    )
    status: int = bridge.connect(event)["statusCode"]
    return status


def test_an_upgrade_that_shows_its_opening_launches_a_relay_as_its_opening_would() -> None:
    by_message = Bridge()
    by_message.launch()
    bridge = Bridge()
    assert knock(bridge) == 200
    (expected,) = by_message.launcher.events
    (event,) = bridge.launcher.events
    tokens = {"relay_token": event["relay_token"], "resume_token": event["resume_token"]}
    assert event == expected | tokens | {"window": WINDOW}
    session = bridge.session
    assert (session.state, session.target, session.invoked_at) == (
        RecordState.INVOKED,
        "db.internal:5432",
        NOW,
    )
    assert bridge.link.posts == []
    assert claim(bridge) == 200
    assert bridge.session.state is RecordState.OPEN


def test_what_follows_the_socks5_bytes_is_given_to_the_relay() -> None:
    bridge = Bridge()
    stream = example_stream(str(SHARED_TARGET)) + b"what begins HTTP/2"
    assert knock(bridge, stream) == 200
    (event,) = bridge.launcher.events
    assert event["early"] == "d2hhdCBiZWdpbnMgSFRUUC8y"
    assert bridge.session.shared


def test_the_log_says_who_and_to_where_and_nothing_that_was_shown(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    with caplog.at_level(logging.DEBUG, logger="emissary"):
        knock(bridge)
    lines = [vars(each) for each in caplog.records]
    assert [line["msg"] for line in lines] == ["relay launched", "dialer admitted"]
    assert (lines[0]["target"], lines[0]["key_id"]) == ("db.internal:5432", 1)
    headers = shown(example_stream())
    for value in (*headers.values(), example_stream()[-90:].hex()):
        assert str(value) not in str(lines)


def test_the_opening_that_follows_is_not_launched_for_again() -> None:
    bridge = Bridge()
    knock(bridge)
    bridge.send_opening(0, example_stream())
    assert len(bridge.launcher.events) == 1
    assert bridge.link.posts == []


def test_the_opening_that_follows_launches_again_if_no_relay_comes() -> None:
    bridge = Bridge()
    knock(bridge)
    bridge.clock.now += 5.1
    bridge.send_opening(0, example_stream())
    first, second = bridge.launcher.events
    assert first["relay_token"] != second["relay_token"]
    assert len(bridge.session.relay_token_hashes) == 2


def test_an_opening_behind_the_claim_goes_to_the_relay() -> None:
    bridge = Bridge()
    knock(bridge)
    claim(bridge)
    bridge.send_opening(0, example_stream())
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (RELAY, FrameType.OPENING)
    assert len(bridge.launcher.events) == 1


def test_a_launch_that_failed_lets_the_dialer_in_and_its_opening_launches_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.launcher.fails = True
    assert knock(bridge) == 200
    assert caplog.messages == ["relay not launched at the door"]
    bridge.launcher.fails = False
    bridge.clock.now += 0.1
    bridge.send_opening(0, example_stream())
    bridge.send_opening(0, example_stream())
    assert len(bridge.launcher.events) == 1
    assert claim(bridge) == 200
    assert bridge.store.in_use(Limit(1), bridge.clock.now) == 1


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(example_stream()[:-1], id="cut short"),
        pytest.param(example_stream("elsewhere.internal:5432"), id="off the list"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no SOCKS5"),
        pytest.param(example_stream().replace(b"Nov", b"Dec"), id="wrong username"),
    ],
)
def test_what_launches_nothing_is_answered_when_it_comes_by_message(stream: bytes) -> None:
    bridge, without = Bridge(), Bridge()
    without.admit()
    assert knock(bridge, stream) == 200
    assert bridge.session == without.session, "as if nothing had been shown"
    assert bridge.launcher.events == []
    bridge.send_opening(0, stream)
    without.send_opening(0, stream)
    assert bridge.link.take() == without.link.take()


def test_without_a_place_the_opening_is_what_is_refused() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.store.leases["L#0"] = ("another", NOW + 100)
    assert knock(bridge) == 200
    assert bridge.session.state is RecordState.OPENING
    bridge.send_opening(0, example_stream())
    ((_, frame),) = bridge.link.take()
    assert Ended.decode(frame.payload).code is Code.SESSION_LIMIT
    assert bridge.launcher.events == []


@pytest.mark.parametrize("target", ["db.internal:5432", str(SHARED_TARGET)])
def test_an_allow_list_that_cannot_be_read_launches_nothing(target: str) -> None:
    bridge = Bridge()
    bridge.allow, bridge.allow_fault = AllowList(), "it is no JSON"
    assert knock(bridge, example_stream(target)) == 200
    assert bridge.launcher.events == []
    bridge.send_opening(0, example_stream(target))
    ((_, frame),) = bridge.link.take()
    assert Ended.decode(frame.payload).code is Code.CONFIGURATION_ERROR


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(shown(example_stream(), key=Key(1, bytes(32))), id="another secret"),
        pytest.param({MAC: encode_unpadded(DOOR.mac)}, id="the door's own"),
        pytest.param({OPENING: shown(example_stream(), window=1)[OPENING]}, id="another window"),
    ],
)
def test_a_wrong_mac_of_the_opening_is_refused_and_nothing_is_read_or_written(
    changes: dict[str, Any],
) -> None:
    bridge = Bridge()
    assert knock(bridge, changes=changes) == 403
    assert (bridge.store.reads, bridge.store.writes, bridge.launcher.events) == (0, 0, [])


@pytest.mark.parametrize("header", [OPENING, MAC])
@pytest.mark.parametrize("value", [None, "", "nonsense!"])
def test_half_an_opening_or_a_malformed_one_is_refused(header: str, value: str | None) -> None:
    bridge = Bridge()
    assert knock(bridge, changes={header: value}) == 401
    assert (bridge.store.reads, bridge.store.writes) == (0, 0)


def test_who_has_no_key_costs_no_more_for_showing_an_opening() -> None:
    bridge = Bridge()
    assert knock(bridge, changes={"X-Emissary-Mac": encode_unpadded(bytes(32))}) == 403
    bridge.keys = EnvironmentKeys(KeyRing([Key(9, bytes(32))]))
    assert knock(bridge) == 403
    assert (bridge.store.reads, bridge.store.writes, bridge.launcher.events) == (0, 0, [])


def test_an_upgrade_that_is_shown_a_second_time_launches_nothing() -> None:
    bridge = Bridge()
    knock(bridge)
    headers = shown(example_stream())
    again = load_event("connect_dialer", connection_id="thief=", headers=headers)
    assert bridge.connect(again)["statusCode"] == 409
    assert len(bridge.launcher.events) == 1
    assert "thief=" not in bridge.store.connections


def end(code: Code) -> Frame:
    return Frame(FrameType.END, generation=2, payload=code.to_bytes(2, "big") + bytes(24))


def test_the_place_of_a_dialer_that_never_came_is_free_when_its_relay_has_left() -> None:
    """The upgrade failed behind the launch: no $disconnect tells of it, and the relay finds it out."""
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    knock(bridge)
    bridge.link.gone.add(DIALER)
    assert claim(bridge) == 200
    assert bridge.store.in_use(Limit(1), NOW) == 1
    bridge.send(RELAY, end(Code.DIALER_GONE))
    bridge.disconnect(load_event("disconnect_relay", close_code=1000))
    assert bridge.store.in_use(Limit(1), NOW) == 0
    assert bridge.session.ending is not None
    assert bridge.session.ending.code is Code.DIALER_GONE


def test_a_relay_that_comes_behind_a_dialers_leaving_frees_the_place() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    knock(bridge)
    bridge.disconnect(load_event("disconnect_dialer"))
    assert bridge.session.state is RecordState.ENDED
    assert claim(bridge) == 409
    assert bridge.store.in_use(Limit(1), NOW) == 0


def open_later(bridge: Bridge) -> None:
    bridge.admit()
    bridge.clock.now += 1
    bridge.send_opening(0, example_stream())


@pytest.mark.parametrize(
    ("opens", "forgotten"),
    [(knock, False), (open_later, True)],
    ids=["at the door", "by OPENING"],
)
def test_a_dialer_whose_connection_does_not_exist_yet_is_not_forgotten(
    opens: Callable[[Bridge], object], forgotten: bool
) -> None:
    bridge = Bridge()
    opens(bridge)
    claim(bridge)
    bridge.link.gone.add(DIALER)
    bridge.send(RELAY, Frame(FrameType.RESUME, generation=2))
    assert (bridge.session.dialer.connection is None) is forgotten
    assert (DIALER in bridge.link.deleted) is forgotten
    bridge.clock.now += CONNECT_TIME
    bridge.send(RELAY, Frame(FrameType.RESUME, generation=2))
    assert bridge.session.dialer.connection is None


def test_a_bridge_that_cannot_reach_its_table_launches_nothing() -> None:
    bridge = Bridge()
    bridge.store.down = True
    assert knock(bridge) == 503
    assert bridge.launcher.events == []


@given(
    late=st.sampled_from(["before the claim", "after the claim", "never"]),
    fails=st.booleans(),
    cuts=st.lists(st.integers(1, len(example_stream()) - 1), max_size=3),
    waits=st.lists(st.sampled_from([0.0, 0.5, 3.0, 6.0]), max_size=4),
)
def test_whatever_comes_by_message_each_launch_is_due_and_one_relay_has_the_session(
    late: str, fails: bool, cuts: list[int], waits: list[float]
) -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=1)
    bridge.launcher.fails = fails
    assert knock(bridge) == 200
    bridge.launcher.fails = False
    stream, launches = example_stream(), [] if fails else [NOW]
    edges = sorted({0, *cuts, len(stream)})
    for wait in waits if late == "before the claim" else []:
        bridge.clock.now += wait
        for start, stop in itertools.pairwise(edges):
            bridge.send_opening(start, stream[start:stop])
        due = not launches or bridge.clock.now > launches[-1] + 5
        launches += [bridge.clock.now] if due else []
    assert len(bridge.launcher.events) == len(launches)
    granted = [claim(bridge, f"relay {each}=") for each in range(2)] if launches else []
    assert granted == ([200, 409] if launches else [])
    if late == "after the claim":
        bridge.clock.now += 6
        bridge.send_opening(0, stream)
        assert len(bridge.launcher.events) == len(launches) + (not launches)
    assert bridge.store.in_use(Limit(1), bridge.clock.now) == 1
    assert bridge.session.id == SESSION
