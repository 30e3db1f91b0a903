"""credentials: headers are read strictly, whatever the case of their names."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.auth.headers import (
    ConnectHeaders,
    MissingCredentialsError,
    OpeningHeaders,
    RelayHeaders,
    ResumeHeaders,
)
from emissary_lib.protocol.wire.base64 import encode_unpadded

DOOR = ConnectHeaders(7, "Sun, 22 Nov 2026 12:00:00 GMT", b"n" * 32, b"m" * 32)
DOOR_WITH_HOST = ConnectHeaders(7, "Sun, 22 Nov 2026 12:00:00 GMT", b"n" * 32, b"m" * 32, "api.example")
SHOWN = OpeningHeaders(65_536, b"s" * 90, b"m" * 32)
CLAIM = RelayHeaders("ab" * 32, b"t" * 52, "0f" * 16, 1)
RESUME = ResumeHeaders("ab" * 32, b"t" * 32, 0xFFFFFFFF)

Headers = ConnectHeaders | OpeningHeaders | RelayHeaders | ResumeHeaders


@pytest.mark.parametrize("shown", [DOOR, DOOR_WITH_HOST, SHOWN, CLAIM, RESUME], ids=str)
def test_what_is_written_is_read_in_any_case_among_others(shown: Headers) -> None:
    headers = shown.to_headers()
    for change in (str, str.lower, str.upper):
        sent = {change(name): f" {value}\t" for name, value in headers.items()}
        assert type(shown).from_headers(sent | {"Host": "x", "HOST": "y"}) == shown


@pytest.mark.parametrize("shown", [DOOR, SHOWN, CLAIM, RESUME], ids=lambda shown: type(shown).__name__)
def test_an_absent_header_is_named(shown: Headers) -> None:
    for name in shown.to_headers():
        headers = shown.to_headers()
        del headers[name]
        with pytest.raises(MissingCredentialsError, match=f"header {name} is absent") as caught:
            type(shown).from_headers(headers)
        assert caught.value.header == name


@pytest.mark.parametrize("shown", [DOOR, SHOWN, CLAIM, RESUME], ids=lambda shown: type(shown).__name__)
def test_a_header_given_twice_is_refused(shown: Headers) -> None:
    for name, value in shown.to_headers().items():
        with pytest.raises(MissingCredentialsError, match="given twice"):
            type(shown).from_headers(shown.to_headers() | {name.lower(): value})


@pytest.mark.parametrize(
    ("shown", "name", "value", "fault"),
    [
        (DOOR, "X-Emissary-Key-Id", "", "decimal number"),
        (DOOR, "X-Emissary-Key-Id", "-1", "decimal number"),
        (DOOR, "X-Emissary-Key-Id", "+1", "decimal number"),
        (DOOR, "X-Emissary-Key-Id", "01", "decimal number"),
        (DOOR, "X-Emissary-Key-Id", "1_0", "decimal number"),
        (DOOR, "X-Emissary-Key-Id", "\u0661", "decimal number"),
        (DOOR, "X-Emissary-Key-Id", "4294967296", "from 0 to 4294967295"),
        (DOOR, "X-Emissary-Key-Id", "9" * 10_000, "decimal number"),
        (DOOR, "X-Emissary-Date", "yesterday", "HTTP date"),
        (DOOR, "X-Emissary-Nonce", "bm5u", "3 bytes instead of 32"),
        (DOOR, "X-Emissary-Nonce", "!" * 43, "not unpadded base64"),
        (DOOR, "X-Emissary-Host", "a" * 256, "more than 255 characters"),
        (DOOR, "X-Emissary-Mac", "bW1t" * 11, "33 bytes instead of 32"),
        (SHOWN, "X-Emissary-Opening", "!" * 43, "not unpadded base64"),
        (SHOWN, "X-Emissary-Opening", "bm5u", "3 bytes, and not 4 to 3076"),
        (SHOWN, "X-Emissary-Opening", encode_unpadded(b"z" * 3077), "3077 bytes, and not 4 to 3076"),
        (SHOWN, "X-Emissary-Opening-Mac", "bW1t" * 11, "33 bytes instead of 32"),
        (CLAIM, "X-Emissary-Session", "AB" * 32, "64 lower-case hexadecimal"),
        (CLAIM, "X-Emissary-Session", "ab" * 31, "64 lower-case hexadecimal"),
        (CLAIM, "X-Emissary-Instance", "g" * 32, "32 lower-case hexadecimal"),
        (CLAIM, "X-Emissary-Epoch", "0", "from 1 to"),
        (RESUME, "X-Emissary-Resume-Token", "", "0 bytes instead of 32"),
    ],
)
def test_a_malformed_header_is_named_but_not_shown(shown: Headers, name: str, value: str, fault: str) -> None:
    with pytest.raises(MissingCredentialsError, match=fault) as caught:
        type(shown).from_headers(shown.to_headers() | {name: value})
    assert caught.value.header == name
    assert len(value) < 3 or value not in str(caught.value)


@pytest.mark.parametrize("stream", [b"", b"z" * 3072])
def test_as_much_of_an_opening_as_may_be_shown_and_as_little_is_read(stream: bytes) -> None:
    shown = OpeningHeaders(0xFFFF_FFFF, stream, b"m" * 32)
    assert OpeningHeaders.from_headers(shown.to_headers()) == shown


def test_who_shows_no_opening_is_no_fault() -> None:
    assert OpeningHeaders.from_headers(DOOR.to_headers()) is None


def test_an_opening_with_all_other_headers_fits_what_api_gateway_takes() -> None:
    longest = OpeningHeaders(0, b"z" * 3072, b"m" * 32).to_headers() | DOOR_WITH_HOST.to_headers()
    assert sum(len(name) + len(value) + 4 for name, value in longest.items()) < 10_240 // 2


def test_no_repr_shows_a_secret() -> None:
    for shown in (DOOR, SHOWN, CLAIM, RESUME):
        for secret in ("nnn", "mmm", "ttt", "sss"):
            assert secret not in repr(shown)
