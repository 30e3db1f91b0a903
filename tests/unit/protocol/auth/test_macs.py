"""auth: a MAC is good for one key, one label and one set of fields, and for nothing else.

The MACs' very bytes are checked in test_vectors_opening.py.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from emissary_lib.protocol.auth import macs as auth
from emissary_lib.protocol.auth.macs import ClockSkewError, ConnectHeaders, Key, KeyRing, ServerProofError
from emissary_lib.protocol.errors import AuthenticationError, LocalProtocolError
from emissary_lib.protocol.record import replace

NOW = 1795348800.0
DATE = auth.http_date(NOW)
NONCE = b"n" * 32
HOST = "api.example.com"
KEY, OTHER = Key(1, b"k" * 16), Key(2, b"o" * 16)
RING = KeyRing([KEY, OTHER])
DOOR = auth.sign_connect(KEY, date=DATE, nonce=NONCE, host=HOST)


def test_a_good_door_names_its_key() -> None:
    assert auth.verify_connect(DOOR, RING, host=HOST, unix_now=NOW) is KEY


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": 2},
        {"date": auth.http_date(NOW + 1)},
        {"nonce": b"N" * 32},
        {"mac": b"m" * 32},
        {"mac": auth.server_mac(KEY, date=DATE, nonce=NONCE, host=HOST)},
    ],
    ids=["key", "date", "nonce", "mac", "the server's own proof"],
)
def test_a_door_with_one_field_changed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError, match="wrong MAC on the upgrade") as caught:
        auth.verify_connect(replace(DOOR, **change), RING, host=HOST, unix_now=NOW)
    assert not isinstance(caught.value, ClockSkewError)


def test_a_door_signed_for_another_host_is_told_from_a_wrong_one_by_the_host_that_it_shows() -> None:
    with pytest.raises(auth.WrongHostError, match=rf"signed for '{HOST}', and this API is 'evil\.example'"):
        auth.verify_connect(DOOR, RING, host="evil.example", unix_now=NOW)


@pytest.mark.parametrize("change", [{"host": ""}, {"host": "evil.example"}, {"mac": b"m" * 32}])
def test_a_host_that_is_shown_says_nothing_without_a_mac_for_it(change: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError, match=r"another host than 'evil\.example'") as caught:
        auth.verify_connect(replace(DOOR, **change), RING, host="evil.example", unix_now=NOW)
    assert not isinstance(caught.value, auth.WrongHostError)


def test_a_host_that_is_shown_never_stands_for_the_apis_own() -> None:
    assert auth.verify_connect(replace(DOOR, host="evil.example"), RING, host=HOST, unix_now=NOW) is KEY


SHOWN = auth.sign_opening(KEY, date=DATE, nonce=NONCE, host=HOST, window=65_536, stream=b"stream")


def verify_opening(shown: auth.OpeningHeaders, key: Key = KEY, **change: Any) -> None:
    auth.verify_opening(shown, key, **({"date": DATE, "nonce": NONCE, "host": HOST} | change))


def test_an_opening_is_good_for_the_upgrade_that_it_was_shown_with() -> None:
    verify_opening(SHOWN)


@pytest.mark.parametrize(
    "change",
    [
        {"window": 65_537},
        {"stream": b"streaM"},
        {"stream": b"stream "},
        {"mac": DOOR.mac},
        {"mac": auth.server_mac(KEY, date=DATE, nonce=NONCE, host=HOST)},
    ],
    ids=["window", "another byte", "one more byte", "the door's own mac", "the server's proof"],
)
def test_an_opening_with_anything_changed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError, match="wrong MAC on the opening of an upgrade for key id 1"):
        verify_opening(replace(SHOWN, **change))


@pytest.mark.parametrize(
    "change",
    [{"key": OTHER}, {"date": auth.http_date(NOW + 1)}, {"nonce": b"N" * 32}, {"host": "evil.example"}],
    ids=lambda change: next(iter(change)),
)
def test_an_opening_is_good_for_no_other_upgrade(change: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError, match="wrong MAC on the opening"):
        verify_opening(SHOWN, **change)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(AuthenticationError, match="key id 1 is not known"):
        auth.verify_connect(DOOR, KeyRing([OTHER]), host=HOST, unix_now=NOW)


@pytest.mark.parametrize("off", [-900.0, 0.0, 900.0])
def test_fifteen_minutes_either_way_are_accepted(off: float) -> None:
    assert auth.verify_connect(DOOR, RING, host=HOST, unix_now=NOW - off) is KEY


@pytest.mark.parametrize(("off", "way"), [(900.5, "ahead of"), (-900.5, "behind"), (1e9, "ahead of")])
def test_a_clock_further_off_is_told_from_a_wrong_mac(off: float, way: str) -> None:
    with pytest.raises(ClockSkewError, match=f"{way} the server's") as caught:
        auth.verify_connect(DOOR, RING, host=HOST, unix_now=NOW - off)
    assert caught.value.skew == off


def test_a_clock_that_is_no_number_lets_nobody_in() -> None:
    with pytest.raises(ClockSkewError):
        auth.verify_connect(DOOR, RING, host=HOST, unix_now=math.nan)


def test_a_wrong_mac_with_an_old_date_is_a_wrong_mac() -> None:
    with pytest.raises(AuthenticationError) as caught:
        auth.verify_connect(replace(DOOR, mac=b"m" * 32), RING, host=HOST, unix_now=0.0)
    assert not isinstance(caught.value, ClockSkewError)


def test_a_signed_door_survives_its_headers() -> None:
    assert ConnectHeaders.from_headers(DOOR.to_headers()) == DOOR


def test_fields_cannot_be_shifted_into_one_another() -> None:
    one = auth.server_mac(KEY, date="ab", nonce=b"c", host="d")
    assert one != auth.server_mac(KEY, date="a", nonce=b"bc", host="d")
    assert one != auth.server_mac(KEY, date="ab", nonce=b"", host="cd")


@pytest.mark.parametrize(
    "change", [{"date": "x"}, {"nonce": b"x"}, {"host": "x"}, {"key": OTHER}, {"mac": b""}, {"mac": DOOR.mac}]
)
def test_the_servers_proof_is_good_for_nothing_else(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"key": KEY, "date": DATE, "nonce": NONCE, "host": HOST}
    given["mac"] = auth.server_mac(**given)
    auth.verify_server_mac(**given)
    with pytest.raises(ServerProofError, match="did not prove"):
        auth.verify_server_mac(**(given | change))


@pytest.mark.parametrize(
    "change",
    [
        {"date": "x"},
        {"nonce": b"x"},
        {"host": "x"},
        {"key": OTHER},
        {"session": "x"},
        {"epoch": 2},
        {"mac": b""},
    ],
)
def test_a_resume_mac_is_good_for_nothing_else(change: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "key": KEY,
        "date": DATE,
        "nonce": NONCE,
        "host": HOST,
        "session": "s",
        "epoch": 1,
    }
    given["mac"] = auth.resume_mac(**given)
    auth.verify_resume_mac(**given)
    with pytest.raises(AuthenticationError, match="resume"):
        auth.verify_resume_mac(**(given | change))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"session": "x"}, "wrong MAC"),
        ({"random": b"R" * 16}, "wrong MAC"),
        ({"key": Key(1, OTHER.secret)}, "wrong MAC"),
        ({"key": Key(3, KEY.secret)}, "key id 3, which is not known"),
    ],
)
def test_a_relay_token_is_good_for_nothing_else(change: dict[str, Any], fault: str) -> None:
    given: dict[str, Any] = {"key": KEY, "session": "s", "random": b"r" * 16}
    token = auth.relay_token(**given)
    auth.verify_relay_token(token, RING, session="s")
    other = auth.relay_token(**(given | change))
    mixed = other[:4] + token[4:20] + other[20:]
    with pytest.raises(AuthenticationError, match=fault) as caught:
        auth.verify_relay_token(mixed, RING, session="s")
    assert auth.encode_unpadded(mixed) not in str(caught.value)


@pytest.mark.parametrize("epoch", [-1, 1 << 32])
def test_an_epoch_of_more_than_32_bits_is_the_callers_error(epoch: int) -> None:
    with pytest.raises(LocalProtocolError, match="epoch"):
        auth.resume_mac(KEY, date=DATE, nonce=NONCE, host=HOST, session="s", epoch=epoch)


def test_a_field_too_long_for_its_length_is_the_callers_error() -> None:
    with pytest.raises(LocalProtocolError, match="at most 65535 fit"):
        auth.server_mac(KEY, date=DATE, nonce=NONCE, host="h" * 65_536)


def test_a_host_that_was_never_text_gives_a_wrong_mac_not_a_crash() -> None:
    with pytest.raises(AuthenticationError):
        auth.verify_connect(DOOR, RING, host="\udcff", unix_now=NOW)


PASSWORD = auth.socks_password(KEY, date=DATE, nonce=NONCE)


@pytest.mark.parametrize("password", [PASSWORD, PASSWORD.encode()])
def test_a_good_password_names_its_key(password: str | bytes) -> None:
    assert auth.verify_socks_password(password, RING, date=DATE, nonce=NONCE) is KEY


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("", "holds 0 bytes"),
        (PASSWORD[:-4], "holds 33 bytes instead of 36"),
        (PASSWORD + "=", "not unpadded base64"),
        (b"\xff" * 48, "not unpadded base64"),
        ("é" * 48, "not unpadded base64"),
        ("A" * 48, "key id 0, which is not known"),
        (auth.encode_unpadded(bytes((0, 0, 0, 1)) + b"m" * 32), "wrong SOCKS5 password for key id 1"),
    ],
)
def test_a_bad_password_is_refused_without_being_shown(password: str | bytes, fault: str) -> None:
    with pytest.raises(AuthenticationError, match=fault) as caught:
        auth.verify_socks_password(password, RING, date=DATE, nonce=NONCE)
    assert not password or repr(password)[-49:-1] not in str(caught.value)


@pytest.mark.parametrize("change", [{"date": "x"}, {"nonce": b"x"}])
def test_a_password_is_good_for_one_date_and_nonce(change: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError, match="wrong SOCKS5 password"):
        auth.verify_socks_password(PASSWORD, RING, **({"date": DATE, "nonce": NONCE} | change))


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("API.Example.COM", "api.example.com"),
        ("api.example.com:443", "api.example.com"),
        ("api.example.com:0443", "api.example.com"),
        ("api.example.com:", "api.example.com"),
        ("api.example.com:8443", "api.example.com"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[FD00::5]:443", "[fd00::5]"),
        ("[fd00::5]", "[fd00::5]"),
        ("[fd00::443]", "[fd00::443]"),
        ("fd00::443", "fd00::443"),
        (" host \t", "host"),
        ("host:x", "host:x"),
        ("host:\N{SUPERSCRIPT TWO}", "host:\N{SUPERSCRIPT TWO}"),
    ],
)
def test_host_is_lower_case_without_a_port(host: str, normal: str) -> None:
    assert auth.signed_host(host) == normal
    assert auth.signed_host(normal) == normal


def test_everything_promised_is_there() -> None:
    assert all(hasattr(auth, name) for name in auth.__all__)
