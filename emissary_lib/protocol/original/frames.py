"""What comes in WebSocket frames from a server of the original's, without I/O.

What carries ``emissary.v2`` takes whole text messages out of a socket that it waits for. Here bytes are
handed on as they come, so that a message may be of any length and nothing of it is kept. Source: RFC 6455
section 5; docs/protocol.md sections 12.2 and 12.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.text import decode_clean
from emissary_lib.protocol.wire.websocket import (
    CONTROL,
    FrameFormatError,
    Head,
    Opcode,
    frame_parts,
    read_head,
)

#: What a Close frame without a status reads as (RFC 6455 section 7.1.5).
NO_STATUS: Final = 1005


class Payload(Record):
    """Bytes of a message; one message has several of these.

    Attributes:
        data: The bytes; empty for nothing but the end of a message.
        ends: Whether the message ends with them.
    """

    data: bytes = hidden()
    ends: bool


class Ping(Record):
    """To be answered by a Pong with the same data."""

    data: bytes


class Pong(Record):
    """The answer to a Ping, or none's."""

    data: bytes


class Close(Record):
    """The last frame.

    Attributes:
        code: RFC 6455 section 7.4; ``NO_STATUS`` if there was none.
        reason: In words, cleaned of what a terminal would act on; may be empty.
    """

    code: int
    reason: str


Event = Payload | Ping | Pong | Close


class FrameReader:
    """Reads the server's frames, cut in any way.

    It keeps no more than a frame's head and a control frame: 135 bytes. Nothing is read behind a Close.

    Thread safety: none; one owner.
    """

    def __init__(self) -> None:
        self._kept = b""  # a head, or a control frame, that is not whole
        self._left = 0  # of the payload of a data frame that has begun
        self._final = True  # whether that frame, or the last one, ended its message
        self._closed = False

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes; gives what they bring, which is to be taken to its end.

        Raises:
            RemoteProtocolError: They are no frames of a server's, or of a kind that the original does not
                send.
        """
        data, at = self._kept + data, 0
        self._kept = b""
        while at < len(data) and not self._closed:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                yield Payload(piece, self._final and not self._left)
                continue
            head = _head(data, at)
            if head is None:
                self._kept = data[at:]
                return
            begins = at + head.length
            if head.opcode in CONTROL:
                if len(data) < begins + head.size:
                    self._kept = data[at:]
                    return
                at = begins + head.size
                yield self._control(head.opcode, data[begins:at])
            else:
                self._begin(head)
                at = begins
                if not head.size:
                    yield Payload(b"", head.last)

    def _begin(self, head: Head) -> None:
        if (head.opcode is Opcode.BINARY) is not self._final:
            raise RemoteProtocolError("the server mixed up the fragments of its messages")
        self._left, self._final = head.size, head.last

    def _control(self, opcode: Opcode, data: bytes) -> Event:
        if opcode is Opcode.PING:
            return Ping(data)
        if opcode is Opcode.PONG:
            return Pong(data)
        self._closed = True
        if len(data) == 1:
            raise RemoteProtocolError("the server sent a Close frame with half a status")
        code = int.from_bytes(data[:2], "big") if data else NO_STATUS
        return Close(code, decode_clean(data[2:]))


def _head(data: bytes, at: int) -> Head | None:
    try:
        head = read_head(data, at)
    except FrameFormatError as exc:
        raise RemoteProtocolError(f"the server sent {exc}") from None
    if head is not None and head.opcode is Opcode.TEXT:
        raise RemoteProtocolError("the server sent a text message; the original Emissary sends binary ones")
    return head


def encode_frame(opcode: Opcode, payload: bytes, key: bytes) -> bytes:
    """A client's frame, whole, so that it is a message of its own; arguments as of :func:`frame_parts`."""
    return b"".join(frame_parts(payload, opcode, key))


def encode_close(code: int, key: bytes) -> bytes:
    """A client's Close frame, without a reason."""
    return encode_frame(Opcode.CLOSE, struct.pack(">H", code), key)
