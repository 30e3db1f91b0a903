"""Text that somebody else has written: the one place where it is made fit for errors, logs and terminals."""

from __future__ import annotations

from typing import Final

#: Longest text of somebody else's that is shown, in characters, unless the field has a limit of its own.
MAX_TEXT: Final = 512


def clean(text: str, limit: int = MAX_TEXT) -> str:
    r"""Make somebody else's text harmless to show: one line, no control over the terminal, of bounded length.

    Whatever Unicode calls unprintable becomes a space: control characters and escape sequences' beginnings,
    line and paragraph separators, marks that turn the direction of writing, surrogates, what is unassigned.

    Args:
        text: From the peer, the gateway, the target or AWS.
        limit: Longest result, in characters.

    Example:
        >>> clean("gone\x1b[2J\r\nemissary: all is well")
        'gone [2J  emissary: all is well'
    """
    return "".join(each if each.isprintable() else " " for each in text[:limit]).strip()


def decode_clean(data: bytes, limit: int = MAX_TEXT) -> str:
    r"""Somebody else's UTF-8, made harmless to show; what is none is replaced.

    Args:
        data: The bytes.
        limit: How many of them are looked at.

    Example:
        >>> decode_clean(b"m\xc3\xbcde \xff\x00", 7)
        'müde �'
    """
    return clean(data[:limit].decode("utf-8", "replace"), limit)


def encode_within(text: str, limit: int) -> bytes:
    """As UTF-8, without what goes beyond ``limit`` bytes: whole characters alone."""
    return text.encode("utf-8")[:limit].decode("utf-8", "ignore").encode("utf-8")
