"""The relay of a shared session tells the bridge of its connections (docs/protocol.md section 11.7)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode
from emissary_lib.protocol.wire.payloads import (
    CAPABILITY_SHARED,
    Connections,
    Disconnected,
    End,
    Resumed,
)
from tests.helpers.pair import client_session, frames, give, relay_session, session_of

NOW = 1000.0


def shared_session() -> Session:
    return relay_session(NOW, capabilities=CAPABILITY_SHARED)


def told(session: Session, now: float) -> list[Connections]:
    return [
        Connections.decode(frame.payload)
        for frame in frames(session, now)
        if frame.type == FrameType.CONNECTIONS
    ]


def test_the_bridge_is_told_at_once_over_the_relays_own_websocket() -> None:
    session = shared_session()
    session.tell_connections(1, 1, 0, NOW)
    (message,) = session.messages_to_send(NOW)
    expected = Frame(
        FrameType.CONNECTIONS, Flag.IGNORABLE, generation=2, payload=Connections(1, 1, 0).encode()
    )
    assert (decode(message.data), message.to_bridge) == (expected, True)
    assert session.messages_to_send(NOW) == []


def test_opened_goes_ahead_of_it() -> None:
    session = shared_session()
    session.send_data(b"banner")
    session.tell_connections(1, 1, 0, NOW)
    kinds = [frame.type for frame in frames(session, NOW)]
    assert kinds == [FrameType.OPENED, FrameType.CONNECTIONS]


def test_changes_within_ten_seconds_wait_and_are_told_as_one() -> None:
    session = shared_session()
    session.tell_connections(1, 1, 0, NOW)
    assert told(session, NOW) == [Connections(1, 1, 0)]
    assert session.next_timeout() == NOW + 870  # GOAWAY, and nothing before it
    session.tell_connections(2, 2, 0, NOW + 1)
    session.tell_connections(2, 1, 3, NOW + 2)
    assert told(session, NOW + 2) == []
    assert session.next_timeout() == NOW + 10
    session.handle_timeout(NOW + 10)
    assert told(session, NOW + 10) == [Connections(2, 1, 3)]
    assert session.next_timeout() == NOW + 870


def test_what_waits_for_a_websocket_is_told_when_there_is_one_and_keeps_nobody_awake() -> None:
    session = shared_session()
    session.link_lost(Code.RELAY_GONE, "cut", NOW)
    session.tell_connections(1, 1, 0, NOW)
    assert session.next_timeout() == NOW + 60  # the grace
    assert session.messages_to_send(NOW) == []
    session.begin_attempt()
    session.link_restored(NOW + 2)
    assert told(session, NOW + 2) == [Connections(1, 1, 0)]


def test_a_dialer_that_is_away_does_not_keep_the_bridge_from_hearing() -> None:
    session = shared_session()
    give(session, Frame(FrameType.DISCONNECTED, payload=Disconnected(1, 1).encode()), NOW)
    session.tell_connections(1, 0, 0, NOW)
    assert session.next_timeout() == NOW
    assert told(session, NOW) == [Connections(1, 0, 0)]
    back = Resumed(2, 1, "dialer", "relay")
    give(session, Frame(FrameType.RESUMED, payload=back.encode()), NOW + 1)
    assert told(session, NOW + 1) == []


def test_a_session_that_is_ending_tells_by_its_end_alone() -> None:
    session = shared_session()
    session.tell_connections(3, 2, 1, NOW)
    session.abort(Code.TARGET_RESET, "", NOW)
    session.tell_connections(4, 0, 1, NOW)
    found = {frame.type: frame for frame in frames(session, NOW)}
    assert set(found) == {FrameType.END, FrameType.RESET}
    assert End.decode(found[FrameType.END].payload).connections == 4


def test_a_shared_session_that_never_had_a_connection_says_so() -> None:
    session = shared_session()
    session.abort(Code.DIALER_GONE, "", NOW)
    (end,) = [frame for frame in frames(session, NOW) if frame.type == FrameType.END]
    assert End.decode(end.payload).connections == 0


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_no_other_session_has_connections(role: Role) -> None:
    session = session_of(role, NOW)
    with pytest.raises(LocalProtocolError, match="only the relay of a shared session has connections"):
        session.tell_connections(1, 1, 0, NOW)
    session.abort(Code.DIALER_RESET, "", NOW)
    (end,) = [frame for frame in frames(session, NOW) if frame.type == FrameType.END]
    assert End.decode(end.payload).connections is None


def test_no_client_takes_it_for_its_own() -> None:
    session = client_session(NOW)
    frame = Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, payload=Connections(1, 1, 0).encode())
    give(session, frame, NOW)
    assert session.alive
    give(session, Frame(FrameType.CONNECTIONS, payload=frame.payload), NOW)
    assert not session.alive
