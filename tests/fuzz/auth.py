"""Who may come in: headers, MACs, keys, dates, hosts."""

from __future__ import annotations

import contextlib
import json
from typing import Final, TypeVar

from emissary_lib.protocol.auth.macs import (
    ConnectHeaders,
    Key,
    KeyRing,
    MissingCredentialsError,
    OpeningHeaders,
    RelayHeaders,
    ResumeHeaders,
    format_keys,
    http_date,
    parse_http_date,
    parse_keys,
    sign_connect,
    sign_opening,
    signed_host,
    socks_password,
    verify_connect,
    verify_opening,
    verify_resume_mac,
    verify_socks_password,
)
from emissary_lib.protocol.errors import AuthenticationError, ConfigError
from tests.fuzz.entry import as_text

#: Of tests/vectors/auth.json.
KEY: Final = Key(7, bytes(range(32)))
NONCE: Final = bytes(range(0x80, 0xA0))
DATE: Final = "Sun, 22 Nov 2026 12:00:00 GMT"
HOST: Final = "api.example.com"

_H = TypeVar("_H", ConnectHeaders, OpeningHeaders, RelayHeaders, ResumeHeaders)


def _shown(kind: type[_H], data: bytes) -> _H | None:
    """Headers, one a line."""
    lines = (line.partition(": ") for line in as_text(data).split("\n"))
    try:
        headers = kind.from_headers({name: value for name, _colon, value in lines})
    except MissingCredentialsError:
        return None
    if headers is not None:
        assert kind.from_headers(headers.to_headers()) == headers
    return headers


def upgrade_headers(data: bytes) -> None:
    headers = _shown(ConnectHeaders, data)
    if headers is not None:
        with contextlib.suppress(AuthenticationError):
            key = verify_connect(headers, KeyRing([KEY]), host=HOST, unix_now=parse_http_date(DATE))
            assert sign_connect(key, date=headers.date, nonce=headers.nonce, host=HOST).mac == headers.mac


def opening_headers(data: bytes) -> None:
    door, shown = _shown(ConnectHeaders, data), _shown(OpeningHeaders, data)
    if door is not None and shown is not None:
        with contextlib.suppress(AuthenticationError):
            verify_opening(shown, KEY, date=door.date, nonce=door.nonce, host=HOST)
            again = sign_opening(
                KEY, date=door.date, nonce=door.nonce, host=HOST, window=shown.window, stream=shown.stream
            )
            assert again == shown


def relay_headers(data: bytes) -> None:
    _shown(RelayHeaders, data)


def resume_headers(data: bytes) -> None:
    headers, shown = _shown(ResumeHeaders, data), _shown(ConnectHeaders, data)
    if headers is not None and shown is not None:
        with contextlib.suppress(AuthenticationError):
            verify_resume_mac(
                shown.mac,
                KEY,
                date=shown.date,
                nonce=shown.nonce,
                host=HOST,
                session=headers.session,
                epoch=headers.epoch,
            )


def keys(data: bytes) -> None:
    text, told = as_text(data), "no fault"
    try:
        assert parse_keys(format_keys(read := parse_keys(text))) == read
    except ConfigError as error:
        told = str(error)
    assert told
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(text)
        for item in document if isinstance(document, list) else [document]:
            secret = item.get("data") if isinstance(item, dict) else None
            assert not isinstance(secret, str) or len(secret) < 20 or secret not in told


def http_dates(data: bytes) -> None:
    with contextlib.suppress(AuthenticationError):
        assert http_date(parse_http_date(as_text(data))) == as_text(data)


def authority(data: bytes) -> None:
    host = as_text(data)
    found = signed_host(host)
    assert found == signed_host(host.lower()) == signed_host(found) == found.lower()
    if ":" not in found:
        assert signed_host(f"{found}:8443") == found


def socks5_password(data: bytes) -> None:
    for password in (data, as_text(data)):
        with contextlib.suppress(AuthenticationError):
            verify_socks_password(password, KeyRing([KEY]), date=DATE, nonce=NONCE)
            assert as_text(data) == socks_password(KEY, date=DATE, nonce=NONCE)
