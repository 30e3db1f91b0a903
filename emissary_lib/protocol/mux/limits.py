"""Names and numbers of shared sessions, each with its unit and its rule in docs/protocol.md section 11."""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET as SHARED_TARGET

#: Connections at once over one session, until the relay says otherwise and at most (11.2-1, 11.2-2).
MAX_CONNECTIONS: Final = 64

#: Window of a stream at first, in bytes: what HTTP/2 has without SETTINGS (RFC 9113 section 6.9.2).
STREAM_WINDOW: Final = 65_535

#: Window of a stream that its reader keeps up with, at most, in bytes (11.5-5): twice a session's capacity,
#: since credit comes back when half of it is used, so that one connection alone can fill the session.
MAX_STREAM_WINDOW: Final = 4 * 1024 * 1024

#: All streams' windows together, in bytes (11.5-5).
RECEIVE_MEMORY: Final = 32 * 1024 * 1024

#: Unsent bytes of one connection, at most (11.5-3).
SEND_BUFFER: Final = 131_072

#: Window of the HTTP/2 connection, in bytes (11.2-3): four times what a session can have under way.
CONNECTION_WINDOW: Final = 8 * 1024 * 1024

#: Bytes of a connection in one frame, at most, and so what one is served before the next (11.2-4, 11.5-1).
QUANTUM: Final = 16_384

#: Bytes that may wait unsent in the session before it is given more (11.5-2).
SESSION_BACKLOG: Final = 188_952

#: Largest HTTP/2 frame, header block and header list, in bytes (11.2-1, 11.2-5, 11.6-2).
MAX_FRAME: Final = 16_384
MAX_HEADER_BLOCK: Final = 1_024
MAX_HEADER_LIST: Final = 1_024

#: Entries of the table that compresses headers, in bytes (11.2-1; RFC 7541 section 4.2).
HEADER_TABLE: Final = 4_096

#: SETTINGS frames in a session, and settings in one of them, at most (11.6-2).
MAX_SETTINGS_FRAMES: Final = 16
MAX_SETTINGS: Final = 32

#: Frames other than DATA: how many at once, and how many a second (11.6-2).
CONTROL_FRAMES: Final = (2_000, 500.0)

#: Requests that are reset before they were answered: how many at once, and how many a second (11.6-2).
RAPID_RESETS: Final = (256, 32.0)

#: How many of them an honest dialer keeps to: half, because they may be held up on the way and come together.
GIVE_UPS: Final = (128, 16.0)

#: Bytes of frames other than DATA that wait because the peer takes nothing, at most (11.6-2); and from how
#: many on a dialer asks for no more connections.
MAX_WAITING: Final = 98_304
BUSY_WAITING: Final = 65_536

#: Closed streams that are remembered, so that what was under way to one is known for that.
CLOSED_STREAMS: Final = 4_096

#: What a side holds for all connections together, at most, in bytes (11.5-6): what has come, what waits to be
#: sent, and frames that are incomplete or ready to go.
MEMORY: Final = RECEIVE_MEMORY + MAX_CONNECTIONS * SEND_BUFFER + 131_072


class MuxLimits(Record):
    """How much one side of a shared session holds.

    Attributes:
        connections: At once; 1 to ``MAX_CONNECTIONS``. A relay tells the dialer its own.
        window: Of a stream at first, in bytes; 1 to 65,535.
        most_window: Of a stream that its reader keeps up with, in bytes; at least ``window``.
        receive_memory: All windows together, in bytes; at least ``connections * window``.
        send_buffer: Unsent bytes of one connection; at least 1.

    Raises:
        ValueError: A number is out of its range.
    """

    connections: int = MAX_CONNECTIONS
    window: int = STREAM_WINDOW
    most_window: int = MAX_STREAM_WINDOW
    receive_memory: int = RECEIVE_MEMORY
    send_buffer: int = SEND_BUFFER

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= MAX_CONNECTIONS:
            raise ValueError(f"{self.connections} connections; 1 to {MAX_CONNECTIONS} are possible")
        if not 1 <= self.window <= STREAM_WINDOW:
            raise ValueError(f"a window of {self.window} bytes; 1 to {STREAM_WINDOW} are possible")
        if self.most_window < self.window:
            raise ValueError(f"a greatest window of {self.most_window} bytes is below {self.window}")
        if self.receive_memory < self.connections * self.window:
            raise ValueError(
                f"{self.receive_memory} bytes are too few for {self.connections} windows of {self.window}"
            )
        if self.send_buffer < 1:
            raise ValueError(f"a send buffer of {self.send_buffer} bytes holds nothing")


class Allowance:
    """How often a peer may do what costs us and gains it nothing: some at once, then so many a second.

    Args:
        burst: At once.
        rate: More of them a second, up to ``burst`` again.
        now: Seconds on a monotonic clock.

    Raises:
        LocalProtocolError: ``burst`` or ``rate`` is negative.
    """

    def __init__(self, burst: int, rate: float, now: float) -> None:
        if burst < 0 or rate < 0:
            raise LocalProtocolError("an allowance is not negative")
        self._burst = float(burst)
        self._rate = rate
        self._left = self._burst
        self._earned = 0
        self._at = now

    def earn(self) -> None:
        """One more, whenever it is wanted."""
        self._earned += 1

    def left(self, now: float) -> int:
        """How many there are now, without what was earned."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._left)

    def spend(self, now: float) -> bool:
        """Take one; False if there is none."""
        if self.left(now) >= 1:
            self._left -= 1
        elif self._earned:
            self._earned -= 1
        else:
            return False
        return True
