"""Payloads of fixed shape (docs/protocol.md sections 2, 3.4, 4.3 and 6).

Every ``decode`` ignores bytes behind the fields it knows, because a later version may add some, and raises
:class:`FrameError` when the fields themselves are cut short.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from emissary_lib.protocol.codes import Code, code_of
from emissary_lib.protocol.constants import MAX_SACK_RANGES
from emissary_lib.protocol.errors import FrameError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.text import decode_clean, encode_within

#: Longest reason text in a RESET or ENDED, in bytes.
MAX_REASON: Final = 512

_CODE: Final = struct.Struct(">H")
_END: Final = struct.Struct(">HQQII")
_ENDED: Final = struct.Struct(">HQQ")
_U32_MAX: Final = 0xFFFF_FFFF
_DISCONNECTED: Final = struct.Struct(">BH")
_EPOCHS: Final = struct.Struct(">II")
_GOAWAY: Final = struct.Struct(">HI")
_RANGE: Final = struct.Struct(">QQ")
_OPENED: Final = struct.Struct(">HII32s")
_U32: Final = struct.Struct(">I")
_CONNECTIONS: Final = struct.Struct(">III")


def _unpack(layout: struct.Struct, payload: bytes, name: str) -> tuple[int, ...]:
    if len(payload) < layout.size:
        raise FrameError(f"{name}: {len(payload)} bytes of payload, {layout.size} needed")
    return layout.unpack_from(payload)


class Reset(Record):
    """RESET: both directions are aborted."""

    code: Code
    reason: str = ""

    def encode(self) -> bytes:
        """The payload; what a reason has beyond ``MAX_REASON`` bytes is cut off."""
        return _CODE.pack(self.code) + encode_within(self.reason, MAX_REASON)

    @classmethod
    def decode(cls, payload: bytes) -> Reset:
        """Read it. Raises :class:`FrameError` if it is cut short."""
        (number,) = _unpack(_CODE, payload, "RESET")
        return cls(code_of(number), decode_clean(payload[_CODE.size :], MAX_REASON))


class End(Record):
    """END: a client reports the end of the session, with its own view of both streams.

    Attributes:
        code: Why it ends.
        sent: Final offset of its stream, or how far it has got.
        received: What it has of the peer's stream.
        messages_sent: By this client, of any type.
        messages_received: The same.
        connections: How many the relay of a shared session has opened; ``None`` of any other session.
    """

    code: Code
    sent: int
    received: int
    messages_sent: int = 0
    messages_received: int = 0
    connections: int | None = None

    def encode(self) -> bytes:
        """The payload; counts of messages that do not fit into 32 bits are given as the most that does."""
        counts = (min(count, _U32_MAX) for count in (self.messages_sent, self.messages_received))
        more = b"" if self.connections is None else _U32.pack(min(self.connections, _U32_MAX))
        return _END.pack(self.code, self.sent, self.received, *counts) + more

    @classmethod
    def decode(cls, payload: bytes) -> End:
        """Read it. Raises :class:`FrameError` if it is cut short."""
        number, sent, received, *messages = _unpack(_END, payload, "END")
        return cls(code_of(number), sent, received, messages[0], messages[1], _more(payload[_END.size :]))


def _more(rest: bytes) -> int | None:
    """A u32 that an older peer leaves out."""
    return int(_U32.unpack_from(rest)[0]) if len(rest) >= _U32.size else None


class Ended(Record):
    """ENDED: the bridge tells both clients that the session is over."""

    code: Code
    dialer: int
    relay: int
    reason: str = ""

    def encode(self) -> bytes:
        """The payload; what a reason has beyond ``MAX_REASON`` bytes is cut off."""
        return _ENDED.pack(self.code, self.dialer, self.relay) + encode_within(self.reason, MAX_REASON)

    @classmethod
    def decode(cls, payload: bytes) -> Ended:
        """Read it. Raises :class:`FrameError` if it is cut short."""
        number, dialer, relay = _unpack(_ENDED, payload, "ENDED")
        return cls(code_of(number), dialer, relay, decode_clean(payload[_ENDED.size :], MAX_REASON))


class Disconnected(Record):
    """DISCONNECTED: one side's WebSocket is gone.

    Attributes:
        role: 1 the dialer's, 2 the relay's.
        epoch: Which of that side's connections it was.
    """

    role: int
    epoch: int

    def encode(self) -> bytes:
        """The payload, of 3 bytes."""
        return _DISCONNECTED.pack(self.role, self.epoch)

    @classmethod
    def decode(cls, payload: bytes) -> Disconnected:
        """Read it. Raises :class:`FrameError` if it is cut short."""
        role, epoch = _unpack(_DISCONNECTED, payload, "DISCONNECTED")
        return cls(role, epoch)


class Resumed(Record):
    """RESUMED: where both sides are now.

    Attributes:
        dialer_epoch: Of the dialer's newest connection.
        relay_epoch: Of the relay's newest connection.
        dialer: The dialer's connection id; ``None`` while it has none.
        relay: The relay's connection id; ``None`` while it has none.
    """

    dialer_epoch: int
    relay_epoch: int
    dialer: str | None
    relay: str | None

    def encode(self) -> bytes:
        """The payload; an id has at most 255 ASCII characters."""
        ids = [(connection or "").encode("ascii") for connection in (self.dialer, self.relay)]
        names = b"".join(bytes([len(connection)]) + connection for connection in ids)
        return _EPOCHS.pack(self.dialer_epoch, self.relay_epoch) + names

    @classmethod
    def decode(cls, payload: bytes) -> Resumed:
        """Read it. Raises :class:`FrameError` if it is cut short, or an id is no ASCII."""
        dialer_epoch, relay_epoch = _unpack(_EPOCHS, payload, "RESUMED")
        ids: list[str | None] = []
        rest = payload[_EPOCHS.size :]
        for _role in range(2):
            if not rest or len(rest) < 1 + rest[0]:
                raise FrameError("RESUMED: a connection id is cut short")
            connection = rest[1 : 1 + rest[0]]
            if not connection.isascii():
                raise FrameError("RESUMED: a connection id is no ASCII")
            ids.append(connection.decode("ascii") or None)
            rest = rest[1 + rest[0] :]
        return cls(dialer_epoch, relay_epoch, *ids)


class GoAway(Record):
    """GOAWAY: the relay's end is near; ``remaining`` is in milliseconds."""

    code: Code
    remaining: int

    def encode(self) -> bytes:
        """The payload, of 6 bytes."""
        return _GOAWAY.pack(self.code, self.remaining)

    @classmethod
    def decode(cls, payload: bytes) -> GoAway:
        """Read it. Raises :class:`FrameError` if it is cut short."""
        number, remaining = _unpack(_GOAWAY, payload, "GOAWAY")
        return cls(code_of(number), remaining)


class Opened(Record):
    """OPENED's parameters.

    Attributes:
        code: Outcome of the dial.
        remaining: Milliseconds until the relay's end.
        grace: Milliseconds for which a side without its WebSocket is waited for.
        resume_token: 32 bytes; secret.
        capabilities: Bits of docs/protocol.md 11.1-4; 0 from a relay that tells none.
    """

    code: Code
    remaining: int
    grace: int
    resume_token: bytes = hidden()
    capabilities: int = 0

    def encode(self) -> bytes:
        """The parameters behind their u16 length; stream bytes follow."""
        fields = _OPENED.pack(self.code, self.remaining, self.grace, self.resume_token)
        if self.capabilities:
            fields += _U32.pack(self.capabilities)
        return _CODE.pack(len(fields)) + fields

    @classmethod
    def decode(cls, payload: bytes) -> tuple[Opened, bytes]:
        """The parameters, and the stream bytes behind them."""
        (length,) = _unpack(_CODE, payload, "OPENED")
        fields, rest = payload[2 : 2 + length], payload[2 + length :]
        if len(fields) < max(length, _OPENED.size):
            raise FrameError(f"OPENED: {len(fields)} bytes of parameters, {max(length, _OPENED.size)} needed")
        number, remaining, grace, token = _OPENED.unpack_from(fields)
        return cls(code_of(number), remaining, grace, token, _more(fields[_OPENED.size :]) or 0), rest


#: Bytes of OPENED's payload before the stream bytes, at most.
OPENED_OVERHEAD: Final = _CODE.size + _OPENED.size + _U32.size

#: The bit of ``Opened.capabilities`` that says that the session is shared.
CAPABILITY_SHARED: Final = 1


class Connections(Record):
    """CONNECTIONS: how many connections the relay of a shared session has (docs/protocol.md 11.7-2).

    It is sent marked IGNORABLE, because an older bridge does not know it.

    Attributes:
        opened: So far.
        open: Of these, how many are not over.
        refused: Requests that were answered otherwise so far.
    """

    opened: int
    open: int
    refused: int

    def encode(self) -> bytes:
        """The payload; a count that does not fit into 32 bits is given as the most that does."""
        return _CONNECTIONS.pack(*(min(count, _U32_MAX) for count in (self.opened, self.open, self.refused)))

    @classmethod
    def decode(cls, payload: bytes) -> Connections:
        """Read it. Raises :class:`FrameError` if it is cut short."""
        return cls(*_unpack(_CONNECTIONS, payload, "CONNECTIONS"))


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """SACK ranges as an ACK's payload; the caller gives at most ``MAX_SACK_RANGES``, ascending."""
    return b"".join(_RANGE.pack(start, end) for start, end in ranges)


def decode_ranges(payload: bytes, *, ack: int) -> list[tuple[int, int]]:
    """Read an ACK's payload.

    Raises:
        FrameError: Cut short, too many, empty, overlapping, out of order, or not above ``ack``.
    """
    count, rest = divmod(len(payload), _RANGE.size)
    if rest or count > MAX_SACK_RANGES:
        raise FrameError(f"ACK: {len(payload)} bytes are no list of at most {MAX_SACK_RANGES} ranges")
    ranges = [_RANGE.unpack_from(payload, i * _RANGE.size) for i in range(count)]
    low = ack
    for start, end in ranges:
        if not low < start < end:
            raise FrameError(f"ACK: range {start}-{end} is not above {low}")
        low = end
    return [(int(start), int(end)) for start, end in ranges]
