"""The banner: the first bytes of the server's stream, in which the bridge proves itself.

It is the original Emissary's protobuf message ``ServerConnect`` with one more field, behind its length as a
varint. The original's transport has one message per banner and no length: for it, use
:meth:`Banner.encode_message` and :func:`parse_message`. Source: docs/protocol.md section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.text import clean
from emissary_lib.protocol.wire.varint import decode_varint, encode_varint

#: Largest banner, length prefix included, in bytes.
MAX_BANNER: Final = 512

#: What ``emissary.v2`` bridges call themselves.
SERVER_SOFTWARE: Final = "emissary-lambda"

# Protobuf wire types. Groups (3 and 4) are long gone, and refused.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Banner(Record):
    """What the server says of itself; a field that was absent is empty or zero, as protobuf has it.

    Attributes:
        server_software: ``emissary-lambda``, or ``emissary-server`` for the original.
        server_version: The server's own version.
        protocol_version: 2 here, 1 for the original.
        nonce: 32 bytes: the dialer's own, given back; the original's server draws it.
        server_mac: Proof that the server knows the key; empty for the original.
    """

    server_software: str
    server_version: str
    protocol_version: int
    nonce: bytes = hidden()
    server_mac: bytes = hidden(default=b"")

    def encode(self) -> bytes:
        """The message behind its length.

        Raises:
            LocalProtocolError: If that is more than 512 bytes.
        """
        message = self.encode_message()
        data = encode_varint(len(message)) + message
        if len(data) > MAX_BANNER:
            raise LocalProtocolError(f"a banner of {len(data)} bytes; at most {MAX_BANNER} are allowed")
        return data

    def encode_message(self) -> bytes:
        """The bare protobuf message, fields in ascending order, empty ones left out."""
        out = bytearray()
        for number, value in (
            (1, self.server_software.encode()),
            (2, self.server_version.encode()),
            (3, self.protocol_version),
            (4, self.nonce),
            (5, self.server_mac),
        ):
            if isinstance(value, int):
                if value:
                    out += encode_varint(number << 3 | _VARINT) + encode_varint(value)
            elif value:
                out += encode_varint(number << 3 | _BYTES) + encode_varint(len(value)) + value
        return bytes(out)


def parse_banner(data: bytes) -> tuple[Banner, int] | None:
    """Read a banner at the start of a stream.

    Args:
        data: The stream's bytes so far, which may go on after the banner.

    Returns:
        The banner and the number of bytes it took; None if more bytes are needed. Fields may come in any
        order, unknown ones are skipped, and of one given twice the last counts. Nothing is verified.

    Raises:
        RemoteProtocolError: If it is no banner, or one of more than 512 bytes.
    """
    prefix = decode_varint(data[:MAX_BANNER])
    if prefix is None:
        return None
    length, start = prefix
    if start + length > MAX_BANNER:
        raise RemoteProtocolError(
            f"the server announces a banner of {length} bytes; at most {MAX_BANNER} are allowed in all. "
            "Is something else than Emissary listening there?"
        )
    if len(data) < start + length:
        return None
    return parse_message(data[start : start + length]), start + length


def parse_message(message: bytes) -> Banner:
    """Read a bare ``ServerConnect`` message.

    Raises:
        RemoteProtocolError: If it is not well-formed protobuf, or a known field has the wrong type.
    """
    strings = {1: b"", 2: b"", 4: b"", 5: b""}
    version = 0
    for number, value in _fields(message):
        if number == 3:
            if not isinstance(value, int):
                raise RemoteProtocolError("banner field 3 (protocol_version) is not a varint")
            version = value
        elif number in strings:
            if not isinstance(value, bytes):
                raise RemoteProtocolError(f"banner field {number} has no length")
            strings[number] = value
    try:
        software, release = clean(strings[1].decode()), clean(strings[2].decode())
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("the banner's software name or version is not UTF-8") from error
    return Banner(software, release, version, strings[4], strings[5])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes | None]]:
    """Each field's number and value; None as the value of a fixed-width field, none of which is known."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise RemoteProtocolError("the banner has a field number 0")
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise RemoteProtocolError(f"banner field {number} has wire type {wire_type}")
        if position + length > len(message):
            raise RemoteProtocolError(f"banner field {number} is longer than the banner")
        yield number, message[position : position + length] if wire_type == _BYTES else None
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    found = decode_varint(message, position)
    if found is None:
        raise RemoteProtocolError("the banner ends within a field")
    return found
