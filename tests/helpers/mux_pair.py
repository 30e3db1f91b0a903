"""Two ends of a shared session, back to back, and HTTP/2 frames written by hand."""

from __future__ import annotations

import struct
from typing import Final

from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import Event, Opened, Requested
from emissary_lib.protocol.mux.limits import MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.targets.allow_list import Target

NOW: Final = 1000.0
TARGET: Final = Target("db.internal", 5432)
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types and flags (RFC 9113 section 6).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
POSITION = 0xF0
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8

#: TLS alerts (docs/protocol.md rule 6-22): without a cipher, of TLS 1.3, and the same as Java pads it.
PLAIN_ALERT: Final = bytes.fromhex("15030100020100")
ALERT: Final = bytes.fromhex("1703030013") + bytes(19)
JAVA_ALERT: Final = bytes.fromhex("1703030023") + bytes(35)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame (RFC 9113 section 4.1)."""
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def literal(index: int, value: bytes) -> bytes:
    """A header field without compression, its name of the static table (RFC 7541 section 6.2.2)."""
    name = bytes([index]) if index < 15 else bytes([15, index - 15])
    return name + _string(value)


def named(name: bytes, value: bytes) -> bytes:
    """A header field without compression, with its name."""
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, length = len(text) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + text


def request(stream: int, authority: bytes = b"db.internal:5432", flags: int = END_HEADERS) -> bytes:
    """A CONNECT; :authority is entry 1 of the static table, :method entry 2."""
    return frame(HEADERS, flags, stream, literal(2, b"CONNECT") + literal(1, authority))


def answer(stream: int, status: bytes, *fields: bytes, flags: int = END_HEADERS) -> bytes:
    """An answer; :status is entry 8 of the static table."""
    return frame(HEADERS, flags, stream, literal(8, status) + b"".join(fields))


def setting(number: int, value: int) -> bytes:
    """One setting in a SETTINGS frame."""
    return struct.pack(">HL", number, value)


def position(stream: int, written: int, taken: int, code: int = 0) -> bytes:
    """A POSITION frame."""
    return frame(POSITION, 0, stream, struct.pack(">QQH", written, taken, code))


def drain_events(side: Multiplexer) -> list[Event]:
    """All that has happened."""
    events = []
    while event := side.next_event():
        events.append(event)
    return events


class MuxPair:
    """A dialer's and a relay's side; what one sends, the other gets when it is passed on.

    Args:
        dialer: Limits of the one.
        relay: Limits of the other.
    """

    def __init__(self, dialer: MuxLimits | None = None, relay: MuxLimits | None = None) -> None:
        self.dialer = DialerMultiplexer(dialer or MuxLimits(), NOW)
        self.relay = RelayMultiplexer(relay or MuxLimits(), NOW)
        self.now = NOW

    def pass_on(self) -> None:
        """Pass everything on, both ways, until nobody has anything."""
        quiet = False
        while not quiet:
            quiet = True
            for source, sink in ((self.dialer, self.relay), (self.relay, self.dialer)):
                while data := source.data_to_send(1 << 20):
                    sink.receive(data, self.now)
                    quiet = False

    def connect(self, target: Target = TARGET) -> int:
        """Open a connection; the events of that are taken."""
        stream = self.dialer.open(target)
        self.pass_on()
        assert drain_events(self.relay)[-1] == Requested(stream, target)
        self.relay.accept(stream)
        self.pass_on()
        assert drain_events(self.dialer)[-1] == Opened(stream)
        return stream

    def take(self, side: Multiplexer, stream: int) -> bytes:
        """What waits for a user, taken."""
        data = side.peek(stream, 1 << 30)
        side.consume(stream, len(data))
        return data
