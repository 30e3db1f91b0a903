"""A shared session that is cut off takes its connections with it; each test once as either."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux.events import CutOff, Left
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from tests.helpers.mux_pair import GOAWAY, NOW, MuxPair, drain_events, frame, position

Way = Callable[[MuxPair], tuple[Multiplexer, Multiplexer]]


@pytest.fixture
def pair() -> MuxPair:
    return MuxPair()


@pytest.fixture(params=["dialer to relay", "relay to dialer"])
def way(request: pytest.FixtureRequest) -> Way:
    """Gives sender and receiver."""
    if request.param == "dialer to relay":
        return lambda pair: (pair.dialer, pair.relay)
    return lambda pair: (pair.relay, pair.dialer)


def test_each_connection_is_told_and_what_came_can_be_read(pair: MuxPair, way: Way) -> None:
    streams = [pair.connect() for _ in range(3)]
    sender, receiver = way(pair)
    for stream in streams[:2]:
        receiver.send_data(stream, b"came")
        sender.send_data(stream, b"lost")
    pair.pass_on()
    drain_events(sender)
    receiver.receive(position(streams[0], 4, 3), NOW)
    receiver.reset(streams[1], Code.TARGET_RESET)
    pair.pass_on()
    assert drain_events(sender) == [CutOff(streams[1], Code.TARGET_RESET, whole=False, lost=4)]
    sender.send_data(streams[0], b"unsent")
    for _ in range(2):
        sender.cut_off_all(Code.RELAY_GONE)
    assert drain_events(sender) == [
        CutOff(streams[0], Code.RELAY_GONE, whole=False, lost=10),
        CutOff(streams[2], Code.RELAY_GONE, whole=False, lost=0),
    ]
    assert (sender.connections, sender.buffered) == (2, (0, 8))
    sender.receive(b"what comes late", NOW)
    sender.receive_eof()
    assert (sender.send_room(streams[0]), sender.unsent(streams[0]), sender.lost(streams[0])) == (0, 0, 0)
    assert [pair.take(sender, stream) for stream in streams] == [b"came", b"came", b""]
    assert (sender.idle, sender.data_to_send(1 << 20), drain_events(sender)) == (True, b"", [])


def test_nothing_is_lost_where_both_users_have_all(pair: MuxPair) -> None:
    """Only the word that the target has the end is missing."""
    stream = pair.connect()
    pair.dialer.send_data(stream, b"query")
    pair.dialer.send_eof(stream)
    pair.relay.send_eof(stream)
    pair.pass_on()
    pair.relay.consume(stream, 5)
    pair.relay.report(stream)
    pair.pass_on()
    drain_events(pair.dialer)
    pair.dialer.cut_off_all(Code.RELAY_GONE)
    assert drain_events(pair.dialer) == [CutOff(stream, Code.RELAY_GONE, whole=True, lost=0)]


def test_what_was_written_long_ago_is_not_all(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_eof(stream)
    pair.pass_on()
    pair.relay.report(stream)
    pair.dialer.report(stream)
    pair.relay.release_end(stream)
    pair.pass_on()
    drain_events(sender)
    sender.cut_off_all(Code.RELAY_GONE)  # the peer's user may have written since
    assert drain_events(sender) == [CutOff(stream, Code.RELAY_GONE, whole=False, lost=0)]
    assert receiver.connections == 1


def test_a_peers_own_reason_comes_first(pair: MuxPair, way: Way) -> None:
    stream = pair.connect()
    _, receiver = way(pair)
    receiver.receive(position(stream, 0, 0, Code.TARGET_RESET), NOW)  # its RST_STREAM is on the way
    receiver.cut_off_all(Code.RELAY_GONE)
    assert drain_events(receiver) == [CutOff(stream, Code.TARGET_RESET, whole=False, lost=0)]


def test_one_whose_user_is_lost_has_left(pair: MuxPair, way: Way) -> None:
    stream, other = pair.connect(), pair.connect()
    sender, _ = way(pair)
    sender.send_data(stream, b"bytes")
    sender.user_lost(stream, Code.TARGET_RESET, NOW)
    for _ in range(2):
        sender.cut_off_all(Code.RELAY_GONE)
    assert drain_events(sender) == [
        Left(stream, Code.RELAY_GONE, lost=5), CutOff(other, Code.RELAY_GONE, whole=False, lost=0)
    ]  # fmt: skip
    assert (sender.idle, drain_events(sender), sender.next_timeout()) == (True, [], None)


def test_a_peer_that_breaks_the_protocol_cuts_all_off(pair: MuxPair, way: Way) -> None:
    """The driver hears it as of any other end, but for what came, which nothing vouches for any more."""
    stream = pair.connect()
    sender, receiver = way(pair)
    sender.send_data(stream, b"bytes")
    pair.pass_on()
    drain_events(receiver)
    with pytest.raises(RemoteProtocolError):
        receiver.receive(frame(GOAWAY, 0, 0, bytes(8)), NOW)
    receiver.cut_off_all(Code.PROTOCOL_ERROR)
    assert drain_events(receiver) == [CutOff(stream, Code.PROTOCOL_ERROR, whole=False, lost=0)]
    assert (receiver.peek(stream, 9), receiver.connections) == (b"", 0)
