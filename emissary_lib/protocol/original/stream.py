"""An open connection over the original's transport: bytes both ways, their confirmation, and the end.

The wire has no acknowledgements and no half-close. What there is: the server reads one message after the
other and answers a Ping in its turn, so a Pong confirms all bytes before its Ping; and a Close in each
direction. Source: docs/protocol.md sections 12.3 and 12.4.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable
from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.original.frames import (
    NO_STATUS,
    Close,
    Event,
    FrameReader,
    Payload,
    Ping,
    encode_close,
    encode_frame,
)
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.session.states import follow
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.wire.websocket import Opcode

#: Longest message of a user's bytes, and most of them that wait to be sent.
MAX_MESSAGE: Final = 65_536

#: Seconds after which a Ping that was not answered no longer keeps another from being sent.
CONFIRM_REPEAT: Final = 1.0

#: Seconds of silence of ours after which a Ping goes out: sooner than load balancers forget (60 s).
PING_INTERVAL: Final = 30.0

#: Seconds that a server may be silent after a Ping that nothing can hold up.
PONG_DEADLINE: Final = 20.0

#: Seconds of silence of the target's, behind the end of the user's stream, after which that is passed on.
HALF_CLOSE_WAIT: Final = 10.0

#: Seconds that the server's Close may take after ours; and where our user is gone.
CLOSE_WAIT: Final = 60.0
ABORT_WAIT: Final = 5.0

#: Statuses of a Close frame (RFC 6455 section 7.4.1): the end of a stream; and what the server passes on as
#: the end of the whole connection.
NORMAL: Final = 1000
GOING_AWAY: Final = 1001

_COUNT: Final = struct.Struct(">Q")

_NEVER: Final = float("inf")


class StreamState(enum.Enum):
    """Where a connection stands."""

    #: Both directions carry bytes.
    OPEN = "open"
    #: Our user has ended its stream; the server is not told yet.
    USER_ENDED = "user ended"
    #: Our Close is out, or to go behind what waits; the server's is awaited.
    CLOSING = "closing"
    #: Nothing more is sent or expected.
    ENDED = "ended"


class StreamStep(enum.Enum):
    """What moves a connection on."""

    END_READ = "end of the user's stream"
    CLOSED_HERE = "Close sent"
    CLOSED_THERE = "Close received"
    CUT_OFF = "cut off"


TRANSITIONS: Final[dict[tuple[StreamState, StreamStep], StreamState]] = {
    (StreamState.OPEN, StreamStep.END_READ): StreamState.USER_ENDED,
    (StreamState.OPEN, StreamStep.CLOSED_HERE): StreamState.CLOSING,
    (StreamState.OPEN, StreamStep.CLOSED_THERE): StreamState.ENDED,
    (StreamState.OPEN, StreamStep.CUT_OFF): StreamState.ENDED,
    (StreamState.USER_ENDED, StreamStep.CLOSED_HERE): StreamState.CLOSING,
    (StreamState.USER_ENDED, StreamStep.CLOSED_THERE): StreamState.ENDED,
    (StreamState.USER_ENDED, StreamStep.CUT_OFF): StreamState.ENDED,
    (StreamState.CLOSING, StreamStep.CLOSED_THERE): StreamState.ENDED,
    (StreamState.CLOSING, StreamStep.CUT_OFF): StreamState.ENDED,
}


def step(state: StreamState, what: StreamStep) -> StreamState:
    """The state after ``what`` happened in ``state``; raises as :func:`follow`."""
    return follow(TRANSITIONS, state, what)


class Times(Record):
    """In seconds.

    Attributes:
        interval: Silence of ours after which a Ping goes out.
        deadline: How long the server may be silent after that.
        half_close: Silence of the target's, behind the end of the user's stream, after which that is passed
            on.
    """

    interval: float = PING_INTERVAL
    deadline: float = PONG_DEADLINE
    half_close: float = HALF_CLOSE_WAIT


class End(Record):
    """How a connection ended.

    Attributes:
        code: ``OK`` for the end of the target's stream, with nothing known of a loss.
        reason: In words; empty for a clean end.
    """

    code: Code
    reason: str = ""


class OriginalStream:
    """One connection, from the SOCKS5 reply to its end.

    Args:
        reader: What has read the opening's frames.
        early: What came behind the reply.
        counters: Of the connection; it counts on.
        now: The time, in seconds on a monotonic clock, as everywhere here.
        draw_mask: Draws 4 random bytes for a frame.
        times: When to ask whether the server is still there.

    Attributes:
        state: Where it stands.
        end: How it ended; ``None`` before.
        sent: Bytes of the user's that were taken.
        confirmed: How many of them the target has, as far as the server has said.
        end_confirmed: Whether the target has the end of them, too.
        received: Bytes of the target's that have come.

    Thread safety: none; one owner.
    """

    def __init__(
        self,
        reader: FrameReader,
        early: Iterable[Event],
        counters: Counters,
        *,
        now: float,
        draw_mask: Callable[[], bytes],
        times: Times,
    ) -> None:
        self.state = StreamState.OPEN
        self.end: End | None = None
        self.sent = self.confirmed = 0
        self.end_confirmed = False
        self.received = 0
        self._counters = counters
        self._reader = reader
        self._draw_mask = draw_mask
        self._times = times
        self._in = bytearray()
        self._out = bytearray()
        self._pong: bytes | None = None  # the newest answer that is owed
        self._asked: int | None = None  # what the newest Ping says, if it was not answered
        self._asked_at = -_NEVER
        self._waits_since = _NEVER  # for bytes to be confirmed, as a Ping has asked
        self._sent_at = now
        self._closed_with: int | None = None
        self._dead_at = _NEVER
        self._quiet_at = _NEVER  # when the end of the user's stream is passed on
        self._close_at = _NEVER  # when the server's Close is awaited no longer
        for event in early:
            self._on_event(event, now)

    # -- the user ---------------------------------------------------------------------------------

    @property
    def send_room(self) -> int:
        """How many bytes of the user's are taken now."""
        return MAX_MESSAGE if self.state is StreamState.OPEN and len(self._out) < MAX_MESSAGE else 0

    def send_data(self, data: bytes, now: float) -> None:
        """Take bytes of the user's, at most :attr:`send_room`."""
        assert data and len(data) <= self.send_room
        self._frame(Opcode.BINARY, data, now)
        self.sent += len(data)
        self._counters.bytes_sent += len(data)
        self._confirm(now)

    def send_eof(self, now: float) -> None:
        """The user has ended its stream: it is passed on once the target has been silent for long."""
        self.state = step(self.state, StreamStep.END_READ)
        self._quiet_at = now + self._times.half_close

    def close(self, now: float) -> None:
        """End the target's stream, behind all that was taken; nothing that the target sends then comes.

        Idempotent.
        """
        if self.state in (StreamState.OPEN, StreamState.USER_ENDED):
            self._close(NORMAL, now + CLOSE_WAIT, now)

    def abort(self, now: float) -> None:
        """End the connection, behind all that was taken: the user is gone. Idempotent."""
        if self.state in (StreamState.OPEN, StreamState.USER_ENDED):
            self._close(GOING_AWAY, now + ABORT_WAIT, now)
        self._close_at = min(self._close_at, now + ABORT_WAIT)

    def peek(self) -> memoryview:
        """What has come for the user and was not consumed."""
        return memoryview(self._in)

    def consume(self, count: int, now: float) -> None:
        """The user has taken so much of :meth:`peek`, whose view was released."""
        del self._in[:count]
        self._not_quiet(now)

    @property
    def complete(self) -> bool:
        """Whether all of the user's bytes are confirmed."""
        return self.confirmed == self.sent

    @property
    def closed_here(self) -> bool:
        """Whether this side has sent its Close before the server's came."""
        return self._closed_with is not None

    # -- the server -------------------------------------------------------------------------------

    @property
    def wants_data(self) -> bool:
        """Whether to read more from the server: not while its bytes wait for the user."""
        return self.state is not StreamState.ENDED and len(self._in) < MAX_MESSAGE

    def receive(self, data: bytes, now: float) -> None:
        """Take what has come from the server; empty for the end of the connection."""
        if self.state is StreamState.ENDED:
            return
        if not data:
            self.cut(Code.DIALER_GONE, "the server's connection ended without a Close frame")
            return
        self._dead_at = _NEVER  # whatever it says, it is there
        try:
            for event in self._reader.receive(data):
                self._on_event(event, now)
        except RemoteProtocolError as exc:
            self.cut(Code.PROTOCOL_ERROR, str(exc))

    def cut(self, code: Code, reason: str) -> None:
        """The connection is over, and not by its own end."""
        if self.state is not StreamState.ENDED:
            self.state = step(self.state, StreamStep.CUT_OFF)
            self.end = End(code, reason)
            self._out.clear()

    def data_to_send(self) -> memoryview:
        """What is to be written to the server's connection now; see :meth:`data_sent`."""
        answers = self.state in (StreamState.OPEN, StreamState.USER_ENDED) and len(self._out) < MAX_MESSAGE
        if self._pong is not None and answers:  # else the newest one has to do, later
            pong, self._pong = self._pong, None
            self._out += encode_frame(Opcode.PONG, pong, self._draw_mask())
        return memoryview(self._out)

    def data_sent(self, count: int) -> None:
        """So much of :meth:`data_to_send` was written."""
        del self._out[:count]

    def _on_event(self, event: Event, now: float) -> None:
        if isinstance(event, Payload):
            self._counters.messages_received += event.ends
            self._counters.bytes_received += len(event.data)
            self.received += len(event.data)
            self._in += event.data
            self._not_quiet(now)
        elif isinstance(event, Ping):
            self._pong = event.data
        elif isinstance(event, Close):
            self._on_close(event, now)
        else:
            self._on_pong(event.data, now)

    def _on_pong(self, data: bytes, now: float) -> None:
        if len(data) != _COUNT.size or self._asked is None:
            return
        (count,) = _COUNT.unpack(data)
        if not self.confirmed <= count <= self._asked:
            return
        self._counters.pongs += 1
        self.confirmed = count
        self._waits_since = _NEVER if self.complete else now
        self._not_quiet(now)
        if count == self._asked:
            self._asked = None
            self._confirm(now)

    def _on_close(self, close: Close, now: float) -> None:
        answers = self._closed_with == close.code and not close.reason
        self.state = step(self.state, StreamStep.CLOSED_THERE)
        if answers:
            self.confirmed, self.end_confirmed = self.sent, True
        self.end = self._judge(close, now, answers=answers)
        self._out.clear()
        if self._closed_with is None:
            self._out += encode_close(NORMAL, self._draw_mask())

    def _judge(self, close: Close, now: float, *, answers: bool) -> End:
        if answers:
            return End(Code.OK)
        if close.code != NORMAL:
            code = "no status" if close.code == NO_STATUS else str(close.code)
            said = f"the server closed the WebSocket: {code} ({close.reason or 'no reason'})"
            return End(Code.DIALER_GONE, said)
        if not self.complete and (self._out or now >= self._waits_since + CONFIRM_REPEAT):
            return End(
                Code.INCOMPLETE,
                f"the server ended it while {self.sent - self.confirmed} bytes of this program's were on "
                "their way to a target that took none: perhaps it has reset its connection",
            )
        return End(Code.OK)

    # -- the clock --------------------------------------------------------------------------------

    def next_timeout(self) -> float:
        """When :meth:`handle_timeout` is to be called; infinity for never."""
        if self.state is StreamState.ENDED:
            return _NEVER
        if self.state is StreamState.CLOSING:
            return self._close_at
        first = self._dead_at
        if not self._out:
            first = min(first, self._sent_at + self._times.interval)
            if not self.complete:
                first = min(first, self._asked_at + CONFIRM_REPEAT)
        return min(first, self._quiet_at) if self._quiet else first

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if self.state is StreamState.ENDED:
            return
        if self.state is StreamState.CLOSING:
            if now >= self._close_at:
                self.cut(Code.INCOMPLETE, "the server did not answer the end of it in time")
            return
        if now >= self._dead_at:
            if self.wants_data:
                self.cut(Code.LINK_DEAD, "the server did not answer a Ping")
                return
            self._dead_at = _NEVER  # what it says waits for the user
        if self._quiet and now >= self._quiet_at:
            self.close(now)
            return
        if self._out:  # the server takes nothing now: a question more would only wait with the others
            return
        self._confirm(now)
        if now >= self._sent_at + self._times.interval:
            self._ping(now)
            # All is confirmed, or that would have been asked for just now.
            self._dead_at = min(self._dead_at, now + self._times.deadline)

    @property
    def _quiet(self) -> bool:
        """Whether the user has ended its stream, and everything else is done that is known of."""
        return self.state is StreamState.USER_ENDED and self.complete and not self._in

    def _not_quiet(self, now: float) -> None:
        if self.state is StreamState.USER_ENDED:
            self._quiet_at = now + self._times.half_close

    def _confirm(self, now: float) -> None:
        """Ask what the target has, unless all of it is known or the last question is still fresh."""
        asks = self._asked is None or now >= self._asked_at + CONFIRM_REPEAT
        if asks and not self.complete and self.state in (StreamState.OPEN, StreamState.USER_ENDED):
            self._ping(now)

    def _ping(self, now: float) -> None:
        self._asked, self._asked_at = self.sent, now
        if not self.complete:
            self._waits_since = min(self._waits_since, now)
        self._frame(Opcode.PING, _COUNT.pack(self.sent), now)

    def _frame(self, opcode: Opcode, payload: bytes, now: float) -> None:
        self._out += encode_frame(opcode, payload, self._draw_mask())
        self._counters.messages_sent += 1
        self._sent_at = now

    def _close(self, code: int, until: float, now: float) -> None:
        self.state = step(self.state, StreamStep.CLOSED_HERE)
        self._out += encode_close(code, self._draw_mask())
        self._closed_with = code
        self._sent_at, self._close_at = now, until
