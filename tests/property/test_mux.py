"""Shared sessions: whatever is opened, sent, ended, lost, cut off or left unread, in any order and pieces."""

from __future__ import annotations

import random
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import LINGER
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import (
    Closed,
    CutOff,
    Declined,
    Left,
    Opened,
    Readable,
    Refused,
    Requested,
    Writable,
)
from emissary_lib.protocol.mux.limits import MAX_FRAME, MAX_WAITING, MEMORY, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.mux.windows import WindowPool
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.mux_pair import NOW, PLAIN_ALERT

#: Seconds between two steps: most, so that what waits is given up, or so few that next to nothing is.
PACES: Final = st.sampled_from([(0.0, 0.01, 0.3, 12.0), (0.0, 0.01, 0.05)])

#: Frames of a side that are incomplete or ready to go, at most.
FRAMES: Final = MAX_WAITING + 2 * MAX_FRAME

LIMITS: Final = st.builds(
    lambda connections, window, growth, spare, buffer: MuxLimits(
        connections, window, window * growth, connections * window + spare, buffer
    ),
    st.integers(1, 20),
    st.sampled_from([1, 10, 1_000, 20_000, 65_535]),
    st.integers(1, 8),
    st.sampled_from([0, 1, 5_000, 200_000]),
    st.sampled_from([1, 100, 3_000, 131_072]),
)


#: Bytes of alerts that need not arrive, at most (docs/protocol.md rule 6-22).
MOST_ALERTS: Final = 128


class Direction:
    """What one user has written of a connection, and what the other has read."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.read = bytearray()
        self.unread = 0  # bytes that its user wrote and that we were never given
        self.alerts_from = 0  # from here on, all that was written is alerts, whole
        self.ended = False
        self.end_read = False

    def write(self, content: bytes, taken: int) -> None:
        """So much of this was taken."""
        self.written += content[:taken]
        if taken and (content != PLAIN_ALERT or taken < len(content)):
            self.alerts_from = len(self.written)

    @property
    def behind(self) -> int:
        """How much the other has not read."""
        return len(self.written) - len(self.read)

    @property
    def lacks_alerts_alone(self) -> bool:
        """Whether the other has read all but alerts, the last of which it may have begun."""
        return len(self.read) >= self.alerts_from

    @property
    def ends_in_alert(self) -> bool:
        """Whether its user has said its last word, in TLS."""
        return self.written.endswith(PLAIN_ALERT)

    @property
    def missing(self) -> int:
        """How much the other has not read, but for whole alerts."""
        whole = (len(self.read) - self.alerts_from) % len(PLAIN_ALERT) == 0 and self.behind <= MOST_ALERTS
        return 0 if whole and self.lacks_alerts_alone else self.behind


class End:
    """One side: its state, what its user knows, and what is on the way to it.

    Args:
        side: The state.
        limits: What it was made with.
        goes: What a lost user of this side's is called.
    """

    def __init__(self, side: Multiplexer, limits: MuxLimits, goes: Code) -> None:
        self.side = side
        self.limits = limits
        self.goes = goes
        self.wire = bytearray()  # to this side
        self.outgoing: dict[int, Direction] = {}
        self.incoming: dict[int, Direction] = {}
        self.known: set[int] = set()  # asked for here, or heard of
        self.open: set[int] = set()
        self.lost: dict[int, tuple[int, float]] = {}  # users: what waited of theirs, and since when
        self.given_up: dict[int, int] = {}  # lost ones, and how much was not waited for any longer
        self.left: set[int] = set()  # lost ones whose end was told
        self.dropped: set[int] = set()  # cut off here, at once
        self.closed: set[int] = set()
        self.cut: dict[int, CutOff] = {}
        self.stalled: set[int] = set()
        self.free = self.pool._free

    @property
    def pool(self) -> WindowPool:
        return self.side._pool


class World:
    """Two ends and a model of each connection.

    Args:
        chance: Decides everything.
        dialer: Limits of the one end.
        relay: Limits of the other.
        pace: Seconds between two steps, any of these.
    """

    def __init__(
        self,
        chance: random.Random,
        dialer: MuxLimits,
        relay: MuxLimits,
        pace: tuple[float, ...] = (0.0,),
    ) -> None:
        self.chance = chance
        self.pace = pace
        self.now = NOW
        self.relay_side = RelayMultiplexer(relay, NOW)
        self.dialer_side = DialerMultiplexer(dialer, NOW)
        self.dialer = End(self.dialer_side, dialer, Code.DIALER_RESET)
        self.relay = End(self.relay_side, relay, Code.TARGET_RESET)
        self.ends = (self.dialer, self.relay)
        self.requested: set[int] = set()
        self.cut_here: set[int] = set()
        self.turned_away: set[int] = set()  # refused, or declined, by the relay
        self.over: set[int] = set()  # and the dialer has heard of it
        self.reported: dict[int, float] = {}  # when a stream's position was last told

    def other(self, end: End) -> End:
        return self.relay if end is self.dialer else self.dialer

    # -- what users do ---------------------------------------------------------------------------

    def open(self) -> None:
        if self.dialer_side.room and len(self.dialer.outgoing) < 20:
            stream = self.dialer_side.open(Target("db.internal", 5432))
            self.dialer.known.add(stream)
            there, back = Direction(), Direction()
            self.dialer.outgoing[stream] = self.relay.incoming[stream] = there
            self.dialer.incoming[stream] = self.relay.outgoing[stream] = back

    def answer(self, *, kindly: bool = False) -> None:
        for stream in sorted(self.requested):
            self.requested.remove(stream)
            if kindly or self.chance.random() < 0.8:
                self.relay_side.accept(stream)
                if stream not in self.relay.cut:
                    self.relay.open.add(stream)
                continue
            self.turned_away.add(stream)
            if self.chance.random() < 0.5:
                self.relay_side.refuse(stream, Code.TARGET_REFUSED)
            else:
                self.relay_side.decline(stream)

    def write(self, end: End) -> None:
        for stream in self.some(end.open):
            # No more than some windows: each takes a turn of everybody's to be opened again.
            most = 50 * self.other(end).limits.window
            content = self.chance.randbytes(min(most, self.chance.choice((1, 10, 1_000, 30_000))))
            if self.chance.random() < 0.2:
                content = PLAIN_ALERT
            taken = end.side.send_data(stream, content)
            assert 0 <= taken <= len(content)
            end.outgoing[stream].write(content, taken)

    def finish(self, end: End, streams: list[int]) -> None:
        for stream in streams:
            end.side.send_eof(stream)
            end.outgoing[stream].ended = True
            end.open.discard(stream)

    def cut(self, end: End) -> None:
        for stream in self.some(set(end.outgoing)):
            if stream not in end.closed and stream not in end.cut and stream not in self.over:
                end.side.reset(stream, Code.MESSAGE_REFUSED)
                self.cut_here.add(stream)
                end.dropped.add(stream)
                end.open.discard(stream)
                if end is self.relay:
                    self.requested.discard(stream)

    def lose(self, end: End) -> None:
        self.hear(end)
        over = self.over if end is self.dialer else self.turned_away
        gone = end.closed | self.cut_here | over | end.cut.keys() | end.lost.keys()
        for stream in self.some(end.known - gone):
            direction = end.outgoing[stream]
            direction.unread = 0 if direction.ended else self.chance.choice((0, 0, 7))
            end.side.user_lost(stream, end.goes, self.now, unread=direction.unread)
            end.lost[stream] = end.side.unsent(stream), self.now
            end.open.discard(stream)
            if end is self.relay:
                self.requested.discard(stream)

    def tick(self, end: End, *, away: bool) -> None:
        """The clock goes on; a lost user's bytes are given up once none of them has moved for long enough."""
        waits = {stream: end.side.unsent(stream) for stream in end.lost}
        for stream, count in waits.items():
            if away or count != end.lost[stream][0]:
                end.lost[stream] = count, self.now
        end.side.handle_timeout(self.now, away=away)
        for stream, count in waits.items():
            if count and not end.side.unsent(stream):
                assert self.now >= end.lost[stream][1] + LINGER
                end.given_up[stream] = count
        soonest = end.side.next_timeout()
        assert soonest is None or self.now < soonest <= self.now + LINGER

    def read(self, end: End, streams: list[int]) -> None:
        for stream in streams:
            if stream in end.stalled:
                continue
            data = end.side.peek(stream, self.chance.choice((1, 100, 70_000, 1 << 30)))
            assert not (data and stream in end.lost)
            end.side.consume(stream, len(data))
            end.incoming[stream].read += data
            if end.side.receive_ended(stream):
                end.incoming[stream].end_read = True
            if end is self.relay:
                if self.now >= self.reported.get(stream, NOW) + 0.5:
                    self.reported[stream] = self.now
                    end.side.report(stream)
                if self.chance.random() < 0.5:
                    self.relay_side.release_end(stream)

    def some(self, streams: set[int]) -> list[int]:
        return self.chance.sample(sorted(streams), min(len(streams), self.chance.choice((0, 1, 1, 3))))

    # -- what the session does -------------------------------------------------------------------

    def send(self, end: End, room: int) -> int:
        data = end.side.data_to_send(room)
        assert len(data) <= room
        self.other(end).wire += data
        return len(data)

    def deliver(self, end: End, size: int) -> int:
        piece = bytes(end.wire[:size])
        del end.wire[:size]
        end.side.receive(piece, self.now)
        self.hear(end)
        return len(piece)

    def hear(self, end: End) -> None:
        while event := end.side.next_event():
            stream = getattr(event, "stream", None)
            assert stream not in end.left
            assert isinstance(event, Left) == (stream in end.lost)
            match event:
                case Requested(stream, _):
                    end.known.add(stream)
                    self.requested.add(stream)
                case Opened(stream):
                    end.open.add(stream)
                case Refused(stream, _) | Declined(stream):
                    self.over.add(stream)
                case CutOff(stream, code, _, _):
                    assert stream not in end.closed
                    end.cut[stream] = event
                    if code is Code.RELAY_GONE:
                        self.check_lost(end.outgoing[stream], event.lost)
                    else:
                        assert event.lost == end.outgoing[stream].missing
                    if code is self.other(end).goes:
                        self.check_last_bytes(end, stream, end.side.peek(stream, 1 << 30))
                    end.open.discard(stream)
                    if end is self.relay:
                        self.requested.discard(stream)
                case Left():
                    self.check_left(end, event)
                case Closed(stream):
                    self.check_closed(end, stream)
                case Readable(stream):
                    assert end.side.peek(stream, 1) or stream in end.closed or stream not in end.cut
                case Writable(stream):
                    assert stream in end.outgoing

    def check_closed(self, end: End, stream: int) -> None:
        end.closed.add(stream)
        end.incoming[stream].end_read = True
        assert stream not in end.cut
        if end is self.dialer:  # it alone knows that the other user has all
            there = end.outgoing[stream]
            assert there.ended
            assert there.read == there.written

    def check_left(self, end: End, event: Left) -> None:
        """What did not go out is lost; or what the other user has not read, if that side has cut it off."""
        stream = event.stream
        end.left.add(stream)
        assert (end.side.written(stream), end.side.unsent(stream)) == (0, 0)
        if event.code is end.goes:
            assert event.lost == end.given_up.get(stream, 0)
        elif event.code is Code.RELAY_GONE:
            self.check_lost(end.outgoing[stream], event.lost)
        else:
            assert event.code in (self.other(end).goes, Code.MESSAGE_REFUSED)
            assert event.lost == end.outgoing[stream].missing

    def check_lost(self, direction: Direction, lost: int) -> None:
        """The other side has not told all that its user has read."""
        assert lost <= len(direction.written)
        assert lost >= direction.behind or (not lost and direction.lacks_alerts_alone)

    def check_all_left(self) -> None:
        """The end of each lost user's connection was told, unless it was cut off here at once."""
        for end in self.ends:
            assert end.lost.keys() - end.dropped <= end.left <= end.lost.keys()

    def check_last_bytes(self, end: End, stream: int, unread: bytes) -> None:
        """What a user wrote before it was lost has come, but for what was given up."""
        there, direction = self.other(end), end.incoming[stream]
        if stream in there.lost and stream not in there.given_up.keys() | self.cut_here | set(end.lost):
            assert bytes(direction.read) + unread == bytes(direction.written)

    # -- what always holds -----------------------------------------------------------------------

    def check(self) -> None:
        if self.dialer_side.idle and not self.relay.wire:
            self.relay_side.receive_eof()  # as the dialer may end the session now
        for end in self.ends:
            waits, came = end.side.buffered
            assert came <= end.limits.receive_memory
            assert waits <= end.limits.connections * end.limits.send_buffer + FRAMES
            assert waits + came <= MEMORY
            assert end.side.connections <= end.limits.connections
            assert end.pool._free >= 0
            for stream, direction in end.incoming.items():
                unread = end.side.peek(stream, 1 << 30)
                known = direction.read + unread
                if stream not in self.cut_here:
                    assert bytes(known) == bytes(direction.written[: len(known)])

    def step(self) -> None:
        end = self.chance.choice(self.ends)
        what = self.chance.random()
        self.now += self.chance.choice(self.pace)
        for each in self.ends:
            self.tick(each, away=self.chance.random() < 0.1)
        if what < 0.1:
            self.open()
        elif what < 0.2:
            self.answer()
        elif what < 0.4:
            self.write(end)
        elif what < 0.45:
            self.finish(end, self.some(end.open))
        elif what < 0.47:
            self.cut(end)
        elif what < 0.49:
            self.lose(end)
        elif what < 0.65:
            self.read(end, self.some(set(end.incoming)))
        elif what < 0.83:
            self.send(end, self.chance.choice((1, 9, 2_000, 100_000)))
        else:
            self.deliver(end, self.chance.choice((1, 5, 100, 100_000)))

    def settle(self) -> None:
        """Let everybody who is not stalled do what is left to do, until nothing moves any more."""
        moved = True
        while moved:
            self.answer(kindly=True)
            for end in self.ends:
                self.finish(end, sorted(end.open))
            before = sum(len(each.read) for end in self.ends for each in end.incoming.values())
            for end in self.ends:
                self.read(end, sorted(end.incoming))
            for stream in self.relay.incoming:
                if stream not in self.relay.stalled:
                    self.relay_side.release_end(stream)
            after = sum(len(each.read) for end in self.ends for each in end.incoming.values())
            moved = after > before
            for end in self.ends:
                moved = self.send(end, 1 << 20) > 0 or moved
            for end in self.ends:
                moved = self.deliver(end, 1 << 30) > 0 or moved
            self.check()

    def is_whole(self, stream: int) -> bool:
        """Whether both directions of a connection were read to their ends."""
        for end in self.ends:
            direction = end.incoming[stream]
            if not (direction.end_read and direction.read == direction.written):
                return False
        return stream in self.dialer.closed and stream in self.relay.closed


@given(seed=st.integers(0, 2**32), dialer=LIMITS, relay=LIMITS, stalled=st.integers(0, 5), pace=PACES)
def test_bytes_are_whole_and_in_order_nobody_stalls_and_memory_is_bounded(
    seed: int, dialer: MuxLimits, relay: MuxLimits, stalled: int, pace: tuple[float, ...]
) -> None:
    world = World(random.Random(seed), dialer, relay, pace)
    for _ in range(300):
        world.step()
        if world.chance.random() < 0.05 and stalled:
            stalled -= 1
            end = world.chance.choice(world.ends)
            end.stalled |= set(world.some(set(end.incoming)))
        world.check()
    world.settle()
    stopped = world.dialer.stalled | world.relay.stalled
    given_up = world.cut_here | world.over | set(world.dialer.lost) | set(world.relay.lost)
    for stream in world.dialer.outgoing:
        assert stream in stopped | given_up or world.is_whole(stream), stream
    for end in world.ends:
        end.stalled.clear()
    world.settle()
    for stream in world.dialer.outgoing:
        assert stream in given_up or world.is_whole(stream), stream
    for end in world.ends:
        assert end.side.idle
        assert end.pool._free == end.free
        for stream, event in end.cut.items():
            wrote, came = end.outgoing[stream], end.incoming[stream]
            if event.whole:
                assert wrote.ended or wrote.ends_in_alert
                assert came.read == came.written
                assert not came.unread
        for stream in end.incoming:
            world.check_last_bytes(end, stream, b"")
    world.check_all_left()
    world.dialer_side.receive_eof()
    world.relay_side.receive_eof()


@given(seed=st.integers(0, 2**32), dialer=LIMITS, relay=LIMITS, steps=st.integers(0, 300), pace=PACES)
def test_the_end_of_the_session_is_told_of_each_connection_once_and_truly(
    seed: int, dialer: MuxLimits, relay: MuxLimits, steps: int, pace: tuple[float, ...]
) -> None:
    world = World(random.Random(seed), dialer, relay, pace)
    for _ in range(steps):
        world.step()
    for end in world.ends:
        world.hear(end)
        before = set(end.cut)
        end.side.cut_off_all(Code.RELAY_GONE)
        world.hear(end)
        for stream in end.known:
            ways = (end.closed, end.cut, world.over, world.cut_here, end.lost)
            assert any(stream in each for each in ways) or end is world.relay
            came = bytes(end.incoming[stream].read) + end.side.peek(stream, 1 << 30)
            if stream in end.cut.keys() - before and end.cut[stream].whole:
                assert end.outgoing[stream].ended
                assert end.outgoing[stream].lacks_alerts_alone
                assert came == end.incoming[stream].written
        world.read(end, sorted(end.incoming))
        while sum(end.side.buffered):
            world.read(end, sorted(end.incoming))
        assert (end.side.idle, end.side.data_to_send(1 << 20)) == (True, b"")
        assert end.pool._free == end.free


@given(
    seed=st.integers(0, 2**32), size=st.integers(1, 2_000_000), room=st.sampled_from([2_000, 94_476, 188_952])
)
def test_a_query_beside_a_bulk_transfer_waits_for_no_more_than_its_turn(
    seed: int, size: int, room: int
) -> None:
    """Beside seven transfers that always have bytes: a frame of each stands before it, and the room."""
    chance = random.Random(seed)
    world = World(chance, MuxLimits(), MuxLimits())
    for _ in range(8):
        world.open()
    for _ in range(3):
        for end in world.ends:
            world.send(end, 1 << 20)
        for end in world.ends:
            world.deliver(end, 1 << 30)
        world.answer(kindly=True)
    *bulk, query = sorted(world.dialer.open)
    left = size
    while left > 0:
        for stream in bulk:
            world.dialer_side.send_data(stream, bytes(131_072))
        left -= world.send(world.dialer, room)
        world.deliver(world.relay, 1 << 30)
        for stream in bulk:
            world.relay_side.consume(stream, len(world.relay_side.peek(stream, 1 << 30)))
        world.send(world.relay, 1 << 20)
        world.deliver(world.dialer, 1 << 30)
    world.dialer_side.send_data(query, b"SELECT 1")
    before = 0
    while not world.relay_side.peek(query, 1):
        before += world.send(world.dialer, room)
        world.deliver(world.relay, 1 << 30)
    assert before <= len(bulk) * (MAX_FRAME + 9) + room
