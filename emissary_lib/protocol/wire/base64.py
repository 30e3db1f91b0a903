"""Base64 without padding, read strictly: one text for each byte string."""

from __future__ import annotations

import binascii

from emissary_lib.protocol.errors import RemoteProtocolError


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
