"""keys: faults are all listed, secrets never shown."""

from __future__ import annotations

import json

import pytest

from emissary_lib.protocol.auth.keys import Key, KeyRing, format_keys, looks_like_keys, parse_keys, shown
from emissary_lib.protocol.errors import ConfigError

SECRET = b"0123456789abcdef"
PADDED = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.mark.parametrize("data", [PADDED, PADDED.rstrip("=")])
def test_padded_or_not_in_a_list_or_alone(data: str) -> None:
    item = {"kid": 7, "data": data, "comment": "rotated in May"}
    assert parse_keys(json.dumps([item])) == parse_keys(json.dumps(item)) == (Key(7, SECRET),)


def test_several_keys_keep_their_order_through_text() -> None:
    keys = (Key(9, SECRET), Key(0, SECRET + b"x"), Key(0xFFFFFFFF, bytes(64)))
    assert parse_keys(format_keys(keys)) == keys
    assert KeyRing(keys).key_ids == (9, 0, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no key"),
        ("3", "no key"),
        ("[3]", "key number 1 is not an object"),
        ('[{"data": "' + PADDED + '"}]', '"kid" is not a whole number'),
        ('[{"kid": true, "data": "' + PADDED + '"}]', '"kid" is not a whole number'),
        ('[{"kid": 1.0, "data": "' + PADDED + '"}]', '"kid" is not a whole number'),
        ('[{"kid": -1, "data": "' + PADDED + '"}]', "key id -1 is not in the range"),
        ('[{"kid": 4294967296, "data": "' + PADDED + '"}]', "not in the range 0 to 4294967295"),
        ('[{"kid": 1}]', '"data" is not a text'),
        ('[{"kid": 1, "data": "MDEyMzQ1Njc4OWFiY2RlZg="}]', '"data" is not base64'),
        ('[{"kid": 1, "data": "MDEyMzQ1Njc4OWFiY2RlZg===="}]', '"data" is not base64'),
        ('[{"kid": 1, "data": "MDEyMzQ1Njc4OWFiY2RlZh=="}]', '"data" is not base64'),
        ('[{"kid": 1, "data": "YWJj"}]', "3 secret bytes; use at least 16"),
        (f'[{{"kid": 1, "data": "{PADDED}"}}, {{"kid": 1, "data": "{PADDED}"}}]', "stands for two keys"),
    ],
)
def test_faults_are_named(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text)
    assert fault in str(caught.value)


def test_all_faults_come_at_once_and_without_the_secret() -> None:
    text = '[{"kid": "1", "data": "s3cret!"}, 5, {"kid": 2, "data": "YWJj"}]'
    with pytest.raises(ConfigError) as caught:
        parse_keys(text)
    assert len(caught.value.faults) == 4
    assert "s3cret" not in str(caught.value)
    assert "YWJj" not in str(caught.value)


def test_broken_json_is_not_kept_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys('[{"kid": 1, "data": "s3cret"')
    assert caught.value.__suppress_context__


def test_a_ring_finds_keys_by_id() -> None:
    one, two = Key(1, SECRET), Key(2, SECRET)
    ring = KeyRing([one, two])
    assert (ring.get(1), ring.get(2), ring.get(3)) == (one, two, None)
    assert (list(ring), len(ring), len(KeyRing())) == ([one, two], 2, 0)


def test_a_ring_refuses_two_keys_with_one_id() -> None:
    with pytest.raises(ConfigError, match="key id 1 stands for two keys"):
        KeyRing([Key(1, SECRET), Key(1, SECRET)])


def test_a_key_is_checked_when_made() -> None:
    with pytest.raises(ConfigError) as caught:
        Key(-1, b"short")
    assert len(caught.value.faults) == 2


def test_no_repr_shows_a_secret() -> None:
    key = Key(1, SECRET)
    assert repr(key) == "Key(key_id=1)"
    assert repr(KeyRing([key])) == "KeyRing(key_ids=(1,))"


def test_keys_in_the_wrong_place_are_not_shown() -> None:
    assert looks_like_keys(format_keys([Key(1, b"0123456789abcdef")]))
    assert "hunter2" not in shown('[{"kid": 1, "data": "hunter2"}]')
    assert shown("/run/secrets/keys") == "/run/secrets/keys"
