"""Protocol Buffers' base-128 varints: seven bits a byte, the lowest first, high bit set on all but the last.

Source: protobuf.dev, "Encoding", section "Base 128 Varints".
"""

from __future__ import annotations

from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError

_BITS_MAX = 64


def encode_varint(number: int) -> bytes:
    """Encode a number in its shortest form.

    Raises:
        LocalProtocolError: If ``number`` is negative or needs more than 64 bits.

    Example:
        >>> encode_varint(150).hex()
        '9601'
    """
    if not 0 <= number < 1 << _BITS_MAX:
        raise LocalProtocolError(f"{number} does not fit an unsigned 64-bit varint")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: bytes, position: int = 0) -> tuple[int, int] | None:
    """Decode the varint that starts at ``position``.

    Returns:
        The number and the position after it; None if ``data`` ends before it does. Forms longer than
        needed are accepted, as protobuf demands.

    Raises:
        RemoteProtocolError: If it needs more than 64 bits.
    """
    number = 0
    for index in range(10):
        if position + index >= len(data):
            return None
        byte = data[position + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >> _BITS_MAX:
                break
            return number, position + index + 1
    raise RemoteProtocolError("a varint needs more than 64 bits")
