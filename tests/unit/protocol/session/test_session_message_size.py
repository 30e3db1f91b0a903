"""A session whose long messages do not pass goes on with short ones (docs/protocol.md section 4.8)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_PAYLOAD, SHORT_PAYLOAD
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import MessagesShortened
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType
from tests.helpers.pair import events, frames, give, session_of

NOW = 1000.0
BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])


def stream_frames(sent: list[Frame]) -> list[Frame]:
    return [frame for frame in sent if frame.type in (FrameType.DATA, FrameType.OPENED)]


@BOTH
@pytest.mark.parametrize("by_the_peer", [False, True], ids=["the gateway says so", "the peer says so"])
def test_what_was_long_is_sent_again_as_short_messages_and_the_peer_is_told(
    role: Role, by_the_peer: bool
) -> None:
    session = session_of(role, NOW)
    session.send_data(bytes(MAX_PAYLOAD))
    assert max(len(frame.payload) for frame in frames(session, NOW)) > SHORT_PAYLOAD
    if by_the_peer:
        give(session, Frame(FrameType.PONG, Flag.SHORT, 2, payload=bytes(8)), NOW)
    else:
        session.message_too_long(NOW)
        session.message_too_long(NOW)
    assert session.short
    assert events(session) == [MessagesShortened()]
    again = frames(session, NOW)
    sent = stream_frames(again)
    assert max(len(frame.payload) for frame in sent) <= SHORT_PAYLOAD
    assert len(sent) > 1
    assert all(frame.flags & Flag.SHORT for frame in again)
    session.abort(Code.KILLED, "enough", NOW)
    last = {frame.type: frame.flags for frame in frames(session, NOW)}
    assert set(last) == {FrameType.END, FrameType.RESET}
    assert all(flags & Flag.SHORT for flags in last.values())


@BOTH
def test_one_that_knows_it_from_before_begins_with_short_messages_and_has_not_found_it_out(
    role: Role,
) -> None:
    session = session_of(role, NOW, streams=StreamConfig(short=True))
    session.send_data(bytes(MAX_PAYLOAD))
    sent = stream_frames(frames(session, NOW))
    assert max(len(frame.payload) for frame in sent) <= SHORT_PAYLOAD
    assert all(frame.flags & Flag.SHORT for frame in sent)
    session.abort(Code.KILLED, "enough", NOW)
    (end,) = [frame for frame in frames(session, NOW) if frame.type is FrameType.END]
    assert not end.flags & Flag.SHORT
    assert MessagesShortened() not in events(session)


@BOTH
def test_a_throttled_session_goes_on_with_one_message_at_a_time(role: Role) -> None:
    session = session_of(role, NOW)
    session.throttled()
    session.send_data(bytes(3 * MAX_PAYLOAD))
    assert len(stream_frames(frames(session, NOW))) == 1
