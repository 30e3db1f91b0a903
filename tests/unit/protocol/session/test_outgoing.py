"""Frames made of what a session has to say (docs/protocol.md sections 2 to 6)."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.config import Outgoing
from emissary_lib.protocol.session.lifecycle import Ending
from emissary_lib.protocol.session.outgoing import ConnectionNotice, FrameBuilder
from emissary_lib.protocol.stream.congestion import CongestionWindow, OpenGate
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.stream.duplex import Duplex, StreamConfig
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode
from emissary_lib.protocol.wire.payloads import Connections, End, Reset

NOW = 1000.0
CAPACITY = 65_536


def outgoing() -> tuple[FrameBuilder, Duplex]:
    counters = Counters()
    duplex = Duplex(StreamConfig(capacity=CAPACITY), CongestionWindow(4, 16), OpenGate(), counters)
    made = FrameBuilder(duplex, counters, opened=None, first=0)
    made.opening = False
    return made, duplex


def read(messages: list[Outgoing]) -> list[tuple[Frame, bool]]:
    return [(decode(message.data), message.to_bridge) for message in messages]


def test_resume_is_for_the_bridge_and_carries_the_position() -> None:
    box, duplex = outgoing()
    duplex.receive(0, b"abc", fin=False, ack_now=False, now=NOW)
    ((frame, to_bridge),) = read([box.resume(7, NOW)])
    assert (frame, to_bridge) == (Frame(FrameType.RESUME, 0, 7, CAPACITY - 3, 0, 3, b""), True)


def test_probe_end_and_connections_are_for_the_bridge_and_the_other_controls_for_the_peer() -> None:
    box, _duplex = outgoing()
    for_the_bridge = (FrameType.PROBE, FrameType.END, FrameType.CONNECTIONS)
    for kind in (*for_the_bridge, FrameType.GOAWAY, FrameType.RESET):
        ((frame, to_bridge),) = read([box.control(kind, 7, b"12345678")])
        assert frame == Frame(kind, 0, 7, 0, 0, 0, b"12345678")  # positions mean nothing there
        assert to_bridge is (kind in for_the_bridge)
    ((frame, _),) = read([box.control(FrameType.CONNECTIONS, 7, b"", Flag.IGNORABLE)])
    assert frame == Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, 7)


def test_an_acknowledgement_that_is_asked_for_goes_out_once_though_nothing_is_new() -> None:
    box, _duplex = outgoing()
    box.ack()
    box.ack()
    ((frame, to_bridge),) = read(box.to_peer(3, 0, NOW))
    assert (frame, to_bridge) == (Frame(FrameType.ACK, 0, 3, CAPACITY, 0, 0, b""), False)
    assert box.to_peer(3, 0, NOW) == []


def test_the_peer_is_told_of_an_end_only_if_it_is_there_to_hear() -> None:
    box, _duplex = outgoing()
    ending = Ending.begin(Code.KILLED, "ops", NOW, tell_peer=True)
    end = Frame(FrameType.END, 0, 3, payload=End(Code.KILLED, 0, 0).encode())
    reset = Frame(FrameType.RESET, 0, 3, payload=Reset(Code.KILLED, "ops").encode())
    assert read(box.closing_frames(ending, 3, heard=True)) == [(end, True), (reset, False)]
    assert read(box.closing_frames(ending, 3, heard=False)) == [(end, True)]


def test_the_end_of_a_shared_session_says_how_many_connections_there_were() -> None:
    box, _duplex = outgoing()
    ending = Ending.begin(Code.OK, "", NOW, tell_peer=False)
    ((frame, _),) = read(box.closing_frames(ending, 3, heard=True, connections=0))
    assert End.decode(frame.payload).connections == 0


def test_the_first_counts_are_told_at_once_and_the_newest_of_the_others_ten_seconds_later() -> None:
    notice = ConnectionNotice()
    assert (notice.next_timeout(), notice.take(NOW)) == (None, None)
    notice.note(Connections(1, 1, 0), NOW)
    assert notice.next_timeout() == NOW
    assert notice.take(NOW) == Connections(1, 1, 0)
    assert (notice.next_timeout(), notice.take(NOW + 60)) == (None, None)
    for opened in (2, 3, 4):
        notice.note(Connections(opened, 2, 0), NOW + opened)
    assert (notice.next_timeout(), notice.take(NOW + 9.9)) == (NOW + 10, None)
    assert notice.take(NOW + 10.5) == Connections(4, 2, 0)
    notice.note(Connections(5, 3, 0), NOW + 60)
    assert notice.next_timeout() == NOW + 60


def test_counts_that_the_bridge_knows_already_are_not_told_again() -> None:
    notice = ConnectionNotice()
    notice.note(Connections(1, 1, 0), NOW)
    notice.take(NOW)
    notice.note(Connections(1, 1, 0), NOW + 20)
    assert notice.next_timeout() is None
