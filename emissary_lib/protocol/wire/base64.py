"""Base64, read strictly: one text for each byte string. With padding for messages, without for headers.

Messages are nearly all that a session spends on base64, so theirs is done by the package pybase64 where that
is installed (the extra ``speedups``).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Final, NamedTuple

from emissary_lib.protocol.errors import RemoteProtocolError


class Base64(NamedTuple):
    """One implementation of base64 with padding (RFC 4648 section 4).

    Attributes:
        encode: Gives the text of any bytes.
        decode: Gives the bytes of a text, or raises ValueError. What else than :attr:`encode`'s text it takes
            does not matter, as long as each character of the alphabet gives six bits in turn, and any other
            none.
    """

    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]


#: What every Python has.
STANDARD: Final = Base64(
    lambda data: binascii.b2a_base64(data, newline=False),
    lambda text: binascii.a2b_base64(text, strict_mode=True),
)


def accelerated() -> Base64 | None:
    """pybase64's; ``None`` if that is not installed."""
    try:
        import pybase64
    except ImportError:
        return None
    return Base64(pybase64.b64encode, lambda text: pybase64.b64decode(text, validate=True))


#: The faster of those that there are.
FASTEST: Final = accelerated() or STANDARD

#: Characters of a quantum, and the bytes it stands for.
_CHARACTERS: Final = 4
_BYTES: Final = 3


def decode_strictly(text: bytes, base64: Base64 = FASTEST) -> bytes:
    """Decode what ``base64.encode`` gives, and nothing else.

    Args:
        text: ASCII.
        base64: Does the work.

    Raises:
        EncodingError: If ``text`` is any other, however close.
    """
    try:
        data = base64.decode(text)
    except ValueError:
        raise EncodingError("not base64 (RFC 4648 section 4)") from None
    # What a decoder lets pass differs between them, and from one release to the next. But if the length is
    # right, each character of the quanta before the last has given its bits; and the last is looked at.
    last = (len(data) - 1) // _BYTES * _BYTES
    if len(text) != -(-len(data) // _BYTES) * _CHARACTERS or (
        data and STANDARD.encode(data[last:]) != text[-_CHARACTERS:]
    ):
        raise EncodingError("base64 whose padding or unused bits are wrong")
    return data


class EncodingError(RemoteProtocolError, ValueError):
    """A text is not unpadded base64. The message never holds the text, which may be a secret."""


def encode_unpadded(data: bytes) -> str:
    """Encode bytes as base64 (RFC 4648 section 4) without ``=`` at the end.

    Example:
        >>> encode_unpadded(b"emissary")
        'ZW1pc3Nhcnk'
    """
    return binascii.b2a_base64(data, newline=False).decode("ascii").rstrip("=")


def decode_unpadded(text: str) -> bytes:
    """Decode what :func:`encode_unpadded` makes, and nothing else.

    Padding, line breaks, other characters and unused bits that are not zero are all refused, so that no
    two texts stand for the same bytes.

    Raises:
        EncodingError: If ``text`` is anything but unpadded base64.

    Example:
        >>> decode_unpadded("ZW1pc3Nhcnk")
        b'emissary'
    """
    try:
        data = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        # "from None": binascii's own message can quote characters of a secret.
        raise EncodingError("not unpadded base64 (RFC 4648 section 4)") from None
    if encode_unpadded(data) != text:
        raise EncodingError("base64 is padded, or has bits set that belong to no byte")
    return data
