"""A gateway's side that says anything at any pace: on real sockets, and in memory on a test's own clock."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Disconnected
from emissary_lib.transport.deadline import Deadline
from tests.helpers.clock import Clock
from tests.helpers.ws_server import CLOSE, CONT, PING, PONG, TEXT, frame_bytes

#: Reads that may follow a deadline, of all calls of a test together: what is there already, not a flood.
LATE: Final = 100


@dataclass(frozen=True)
class Script:
    """What such a side says.

    Attributes:
        start: First.
        again: Then, again and again without end; empty for silence.
        pace: Seconds between two pieces; in memory, of each read.
        ends: Whether it closes the connection where there would be silence.
        takes: Bytes that it takes before it reads no more; ``None`` for all.
    """

    start: bytes = b""
    again: bytes = b""
    pace: float = 0.001
    ends: bool = False
    takes: int | None = None


def _text(frame: Frame) -> bytes:
    return frame_bytes(TEXT, encode(frame))


#: After a good 101.
FLOODS: Final[dict[str, Script]] = {
    "pings": Script(again=frame_bytes(PING)),
    "pings of one who reads nothing": Script(again=frame_bytes(PING, bytes(125)), takes=4000),
    "pongs": Script(again=frame_bytes(PONG)),
    "empty fragments": Script(frame_bytes(TEXT, b"A", fin=False), frame_bytes(CONT, fin=False)),
    "one-byte fragments": Script(frame_bytes(TEXT, b"A", fin=False), frame_bytes(CONT, b"A", fin=False)),
    "pings between fragments": Script(frame_bytes(TEXT, b"A", fin=False), frame_bytes(PING)),
    "gateway errors": Script(again=frame_bytes(TEXT, b"{{{{")),
    "ignorable frames of a type to come": Script(again=_text(Frame(31, Flag.IGNORABLE, generation=1))),
    "the bridge's word on keepalive": Script(again=_text(Frame(FrameType.PROBED, payload=bytes(8)))),
    "a relay that comes and goes": Script(
        again=_text(Frame(FrameType.DISCONNECTED, payload=Disconnected(1, 1).encode()))
    ),
    "acknowledgements wanted, none read": Script(
        again=_text(Frame(FrameType.DATA, Flag.ACK_NOW, generation=1)), takes=4000
    ),
    "answers to no question": Script(again=_text(Frame(FrameType.PONG, generation=1, payload=bytes(8)))),
    "half a frame": Script(frame_bytes(TEXT, bytes(1000))[:500]),
    "a frame that drips": Script(b"\x81\x7e\xff\xff", b"A", pace=0.05),
    "a frame byte by byte": Script(b"\x81\x7e\xff\xff", b"A"),
    "close frames": Script(again=frame_bytes(CLOSE, b"\x03\xe8")),
    "a close frame, and silence": Script(frame_bytes(CLOSE, b"\x03\xe8")),
    "silence": Script(),
    "an end": Script(ends=True),
}

#: Instead of a 101.
HEADS: Final[dict[str, Script]] = {
    "half a head": Script(b"HTTP/1.1 403 Forbidden\r\nDate: Sun"),
    "headers without end": Script(b"HTTP/1.1 403 Forbidden\r\n", b"X: y\r\n"),
    "a line without end": Script(b"HTTP/1.1 403 Forbidden\r\nX: ", b"y"),
    "a body that never comes": Script(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n"),
    "a body without end": Script(b"HTTP/1.1 403 No\r\nContent-Length: 999999999999\r\n\r\n", b"x" * 1000),
    "chunks without end": Script(
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    ),
    "a drip": Script(again=b"H", pace=0.05),
    "throttled, with a body that never comes": Script(b"HTTP/1.1 429 No\r\nContent-Length: 9\r\n\r\n"),
    "elsewhere": Script(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n"),
    "silence": Script(),
    "an end": Script(ends=True),
}


class Talkative:
    """A transport over which the same message never stops coming, each a while later on the test's clock."""

    def __init__(self, text: bytes) -> None:
        self.clock = Clock()
        self.sent: list[bytes] = []
        self._text = text

    def send(self, message: bytes, timeout: float | None = None) -> None:
        self.sent.append(message)

    def recv(self, timeout: float | None) -> bytes:
        self.clock.advance(0.01)
        assert self.clock.now < 2000, "it goes on and on"
        return self._text

    def close(self) -> None:
        pass

    release = abort = close


class Torrent:
    """As :class:`ByteStream`, in memory: the other side follows a script on the test's clock.

    A read that comes after its deadline is counted, and too many are a failure: a loop that never looks at
    the time would not end by itself.
    """

    def __init__(self, script: Script, clock: Clock) -> None:
        self._script = script
        self._clock = clock
        self._buffer = script.start
        self._room = script.takes
        self._over = False
        self._late = 0

    def read(self, size: int, deadline: Deadline) -> bytes:
        if self._over:
            return b""
        if deadline.passed():
            self._late += 1
            assert self._late <= LATE, "it reads on and on after its deadline"
        if not self._buffer:
            self._clock.advance(self._script.pace)
            self._buffer = self._script.again
        if not self._buffer and not self._script.ends:
            self._run_out(deadline)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def write(self, data: bytes, deadline: Deadline) -> None:
        if self._over:
            raise BrokenPipeError
        if self._room is not None:
            self._room -= len(data)
            if self._room < 0:
                self._run_out(deadline)

    def _run_out(self, deadline: Deadline) -> None:
        left = deadline.remaining()
        assert left is not None, "it would wait for ever"
        self._clock.advance(left)
        raise TimeoutError

    def shutdown(self) -> None:
        self._over = True

    def close(self) -> None:
        self._over = True


def play(script: Script, sock: socket.socket, closed: Iterator[bool]) -> None:
    """Follow a script on a connected socket until the other side has gone, or ``closed`` gives true.

    Raises:
        OSError: The other side has gone.
    """
    sock.settimeout(0.01)
    taken = 0
    unsent = script.start
    # A frame a send would be the test's own processor's limit, not the other side's.
    again = script.again if script.pace > 0.001 else script.again * max(1, 4000 // max(1, len(script.again)))
    for over in closed:
        if over or (script.ends and not unsent and not again):
            return
        with contextlib.suppress(TimeoutError):
            if unsent:
                unsent = unsent[sock.send(unsent) :]
            if not unsent:
                unsent = again
        if script.takes is None or taken < script.takes:
            sock.settimeout(script.pace if script.pace > 0.001 or not again else 0.0001)
            with contextlib.suppress(TimeoutError):
                data = sock.recv(4096)
                taken += len(data)
                if not data:
                    return
            sock.settimeout(0.01)
