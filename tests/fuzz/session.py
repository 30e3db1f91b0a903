"""A whole session, of either side, whose peer and gateway say anything at any time."""

from __future__ import annotations

import base64
import contextlib
from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import INITIAL_WINDOW, MAX_MESSAGE
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.session.events import Finished
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import encode_ranges
from tests.helpers.clock import Clock
from tests.helpers.pair import PARAMETERS, client_session, events, relay_session

#: Each byte of the peer's stream tells its position, as far as a byte can.
_CONTENT: Final = bytes(range(256)) * 400

#: Frames with stream bytes; most of what the peer says.
_STREAM: Final = (FrameType.DATA, FrameType.OPENING, FrameType.OPENED, FrameType.DATA)

#: Times that come of one moment before a session counts as spinning.
_SPIN: Final = 20


def session(data: bytes) -> None:
    """The first byte says whose side; the others, what happens, one thing after another."""
    play = _Play(data)
    while play.left and play.session.state is not State.ENDED:
        play.step()
    play.finish()


class _Play:
    def __init__(self, data: bytes) -> None:
        self.left = data
        self.clock = Clock()
        self.told: list[object] = []
        self.read = self.edge = 0
        self.honest = True  # each byte of the stream has been what its position says
        streams = StreamConfig(capacity=INITIAL_WINDOW)
        if self.byte() % 2:
            self.session = relay_session(self.clock.now, streams=streams, probing=ProbeTimes())
        else:
            self.session = client_session(self.clock.now, streams=streams, keepalive=KeepaliveTimes())

    def take(self, count: int) -> bytes:
        piece, self.left = self.left[:count], self.left[count:]
        return piece.ljust(count, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]

    def near(self, position: int, unit: int) -> int:
        """A position a little before or behind another, and sometimes out of all bounds."""
        way = int.from_bytes(self.take(1), "big", signed=True)
        return (position + way * unit) % 2**64 if way != -128 else 2**64 - 1

    # -- what happens ---------------------------------------------------------------------------

    def step(self) -> None:
        now, subject = self.clock.now, self.session
        match self.byte() % 16:
            case 0 | 1 | 2 | 3:
                self.hear_stream(_STREAM[self.byte() % 4])
            case 4 | 5:
                self.hear_ack()
            case 6:
                payload = self.take(self.byte() % 64)
                frame = Frame(self.byte() % 32, self.byte() & 7, self.generation(), payload=payload)
                self.hear_text(encode(frame))
            case 7:
                self.hear_text(base64.b64encode(self.take(24 + self.byte())))
            case 8:
                self.hear_text(self.take(self.byte()))
            case 9 if not subject.send_ended:
                subject.send_data(bytes(self.byte() * 100))
            case 10:
                self.consume(self.byte() * 100)
            case 11:
                self.clock.advance(self.byte() / 10)
            case 12:
                self.clock.advance_to(subject.next_timeout() or now)
            case 13:
                subject.link_lost(Code.LINK_DEAD, "lost", now)
            case 14:
                if subject.link_deadline is not None:
                    subject.begin_attempt()
                    subject.link_restored(now)
            case 15:
                self.act(self.byte() % 9)
        self.drive()

    def act(self, what: int) -> None:
        now, subject = self.clock.now, self.session
        match what:
            case 0 | 1:
                subject.finish_opening()
            case 2:
                subject.send_eof()
            case 3:
                subject.abort(Code.DIALER_RESET, "reset", now, unread=self.byte())
            case 4:
                subject.message_refused(now)
            case 5:
                subject.peer_unknown(now)
            case 6:
                subject.on_suspend()
            case 7:
                subject.ping()
            case 8:
                subject.link_refused(Code.UNKNOWN_SESSION, "refused")

    def hear_stream(self, kind: FrameType) -> None:
        offset, size = self.near(self.session.received, 7), self.byte() * 3
        payload = (PARAMETERS.encode() if kind is FrameType.OPENED else b"") + _CONTENT[offset % 256 :][:size]
        flags, ack = self.byte() & 7, self.near(self.session.acked, 1)
        self.hear(Frame(kind, flags, self.generation(), self.window(), offset, ack, payload))

    def hear_ack(self) -> None:
        start, ack = self.session.acked, self.near(self.session.acked, 10)
        ranges = []
        for _range in range(self.byte() % 4):
            start += 1 + self.byte()
            ranges.append((start, start := start + 1 + self.byte()))
        payload = encode_ranges(ranges)
        self.hear(Frame(FrameType.ACK, 0, self.generation(), self.window(), 0, ack, payload))

    def generation(self) -> int:
        way = self.byte()
        return (self.session.generation + (way - 253 if way > 250 else 0)) % 65_536

    def window(self) -> int:
        return (1 << self.byte() % 33) - 1

    def hear_text(self, text: bytes) -> None:
        """Anything; if it is of the stream, what is read from there on tells nothing any more."""
        with contextlib.suppress(RemoteProtocolError):
            self.honest = self.honest and decode(text).type not in _STREAM
        self.session.receive_message(text, self.clock.now)

    def hear(self, frame: Frame) -> None:
        self.session.receive_message(encode(frame), self.clock.now)

    def consume(self, most: int) -> None:
        view = self.session.peek()[:most]
        if self.honest:
            content = _CONTENT[self.read % 256 :][: len(view)]
            assert view == content, "it reads other bytes than were sent"
        self.read += len(view)
        self.session.consume(len(view), self.clock.now)

    # -- what has to hold -----------------------------------------------------------------------

    def drive(self) -> None:
        now, subject = self.clock.now, self.session
        for _turn in range(_SPIN):
            for message in subject.messages_to_send(now):
                self.check_message(message.data)
            due = subject.next_timeout()
            if due is None or due > now:
                break
            subject.handle_timeout(now)
        else:
            raise AssertionError("it spins")
        assert max(subject.buffered) <= INITIAL_WINDOW
        assert subject.acked <= subject.written + 1
        self.told += events(subject)
        ends = [event for event in self.told if isinstance(event, Finished)]
        assert ends == (self.told[-1:] if subject.state is State.ENDED else [])

    def check_message(self, text: bytes) -> None:
        assert len(text) <= MAX_MESSAGE
        frame = decode(text)
        if frame.type in (FrameType.DATA, FrameType.ACK, FrameType.OPENING, FrameType.OPENED):
            assert frame.ack + frame.window >= self.edge, "the window's edge moved back"
            self.edge = frame.ack + frame.window

    def finish(self) -> None:
        """Left alone from now on, it ends by itself; but for an opening, which has the dial's deadline."""
        self.drive()
        for _turn in range(2_000):
            if self.session.state in (State.ENDED, State.OPENING):
                return
            due = self.session.next_timeout()
            assert due is not None, "it waits for something that cannot come"
            self.clock.advance_to(due)
            self.drive()
        raise AssertionError("it goes on and on")
