"""banner: size limits and what is left out. Its bytes are checked in test_vectors_opening.py."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.opening.banner import MAX_BANNER, Banner, parse_banner


def banner(version: str) -> Banner:
    return Banner("emissary-lambda", version, 2, b"n" * 32, b"m" * 32)


#: A version that makes the banner exactly as long as it may be: 510 bytes behind a prefix of two.
LONGEST = "v" * (MAX_BANNER - len(banner("").encode()) - 1 - 3)


def test_the_longest_banner_is_read() -> None:
    data = banner(LONGEST).encode()
    assert len(data) == MAX_BANNER
    assert parse_banner(data[:-1]) is None
    assert parse_banner(data + b"more") == (banner(LONGEST), MAX_BANNER)


def test_one_byte_more_is_the_callers_error_and_refused_from_the_length_alone() -> None:
    with pytest.raises(LocalProtocolError, match="513 bytes"):
        banner(LONGEST + "v").encode()
    with pytest.raises(RemoteProtocolError, match="announces a banner of 511 bytes"):
        parse_banner(b"\xff\x03")


def test_empty_fields_are_not_written() -> None:
    assert Banner("", "", 0, b"").encode_message() == b""


def test_no_repr_shows_nonce_or_mac() -> None:
    assert "nnn" not in repr(banner("1"))
    assert "mmm" not in repr(banner("1"))
