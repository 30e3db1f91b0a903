"""CONNECTIONS and END of a shared session's relay, through the handlers (docs/protocol.md section 11.7)."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.session import RecordState
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType
from emissary_lib.protocol.wire.payloads import Connections, End, Ended, Reset
from functions.common.responses import MessageNotHandledError, Response
from tests.helpers.events import DIALER, NOW, RELAY, SESSION, load_event
from tests.unit.functions.bridge import Bridge, example_stream


def shared() -> Bridge:
    """A shared session whose relay has claimed it."""
    bridge = Bridge()
    bridge.admit()
    bridge.send_opening(0, example_stream(str(SHARED_TARGET)))
    assert bridge.reclaim(1, connection_id=RELAY)["statusCode"] == 200
    return bridge


def tell(bridge: Bridge, opened: int, open_: int, refused: int, *, sender: str = RELAY) -> Response:
    payload = Connections(opened, open_, refused).encode()
    return bridge.send(sender, Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, 2, payload=payload))


def test_a_relay_s_counts_are_noted_by_one_write_and_answered_by_nothing() -> None:
    bridge = shared()
    reads, writes = bridge.store.reads, bridge.store.writes
    assert tell(bridge, 3, 2, 1) == {"statusCode": 200}
    assert bridge.session.connections == Connections(3, 2, 1)
    assert (bridge.store.reads, bridge.store.writes) == (reads + 1, writes + 1)
    assert bridge.link.take() == []
    assert bridge.session.state is RecordState.OPEN


def test_the_newest_counts_stand_and_older_ones_do_not() -> None:
    bridge = shared()
    for counts in ((5, 1, 0), (4, 4, 0), (5, 0, 2)):
        tell(bridge, *counts)
    assert bridge.session.connections == Connections(5, 0, 2)
    tell(bridge, 4, 3, 9)
    assert bridge.session.connections == Connections(5, 0, 2)
    assert bridge.link.take() == []


def test_what_a_later_relay_adds_is_ignored() -> None:
    bridge = shared()
    payload = Connections(1, 1, 0).encode() + b"more"
    bridge.send(RELAY, Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, 2, payload=payload))
    assert bridge.session.connections == Connections(1, 1, 0)


@pytest.mark.parametrize("flags", [0, Flag.IGNORABLE])
def test_a_dialer_may_not_tell_of_connections(flags: int) -> None:
    bridge = shared()
    payload = Connections(9, 9, 9).encode()
    bridge.send(DIALER, Frame(FrameType.CONNECTIONS, flags, 2, payload=payload))
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.RESET)
    reset = Reset.decode(frame.payload)
    assert reset == Reset(Code.PROTOCOL_ERROR, "CONNECTIONS is not for the dialer to send")
    assert bridge.session.connections is None


def test_counts_cut_short_are_refused_and_nothing_is_noted() -> None:
    bridge = shared()
    bridge.send(RELAY, Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, 2, payload=bytes(11)))
    ((to, frame),) = bridge.link.take()
    assert (to, Reset.decode(frame.payload).code) == (RELAY, Code.PROTOCOL_ERROR)
    assert bridge.session.connections is None


def test_a_relay_that_tells_of_a_session_that_is_over_hears_that() -> None:
    bridge = shared()
    bridge.message(load_event("default_end"))
    bridge.link.take()
    tell(bridge, 1, 1, 0)
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type, Ended.decode(frame.payload).code) == (RELAY, FrameType.ENDED, Code.OK)
    assert bridge.session.connections is None
    bridge.store.sessions.clear()
    tell(bridge, 1, 1, 0)
    ((_, frame),) = bridge.link.take()
    assert Ended.decode(frame.payload).code is Code.UNKNOWN_SESSION


def test_a_session_that_is_past_its_time_is_ended_by_what_is_told_of_it() -> None:
    bridge = shared()
    bridge.clock.now = bridge.session.expires + 1
    tell(bridge, 1, 1, 0)
    assert {to for to, _ in bridge.link.take()} == {DIALER, RELAY}
    ending = bridge.session.ending
    assert ending is not None
    assert ending.code is Code.RELAY_DEADLINE


def test_a_table_that_is_down_fails_the_invocation() -> None:
    bridge = shared()
    bridge.store.down = True
    with pytest.raises(MessageNotHandledError, match="StoreError"):
        tell(bridge, 1, 1, 0)


def audit_record(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    (record,) = [each for each in caplog.records if each.getMessage() == "session ended"]
    return vars(record)


END_OF_RELAY = End(Code.OK, 400, 111, 4, 3, connections=7)


def test_the_audit_record_has_the_connections_that_the_relay_reports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = shared()
    tell(bridge, 5, 2, 0)
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.send(RELAY, Frame(FrameType.END, generation=2, payload=END_OF_RELAY.encode()))
    fields = audit_record(caplog)
    assert (fields["target"], fields["connections"]) == ("emissary.mux.invalid:1", 7)
    assert bridge.session.connections_opened == 7


def test_a_dialer_that_reports_first_leaves_the_record_what_was_told_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = shared()
    tell(bridge, 5, 2, 0)
    end = End(Code.OK, 111, 400, 3, 4, connections=1_000)
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.send(DIALER, Frame(FrameType.END, generation=2, payload=end.encode()))
        bridge.send(
            RELAY,
            Frame(FrameType.END, generation=2, payload=END_OF_RELAY.encode()),
            request_id="second=",
        )
    assert audit_record(caplog)["connections"] == 5
    assert bridge.session.connections_opened == 7, "the item has the relay's word, whoever was first"


def test_of_other_sessions_the_record_says_nothing_of_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.clock.now = NOW + 90
    with caplog.at_level(logging.INFO, logger="emissary"):
        bridge.message(load_event("default_end"))
    fields = audit_record(caplog)
    assert (fields["session"], fields["connections"]) == (SESSION, None)
