"""Settings of the platform side: what is read, and every fault named at once without a secret."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from emissary_lib.client import CONNECTIONS_PER_RELAY, MAX_CONNECTIONS, RELAY_IDLE_SECONDS
from emissary_lib.client.config import ClientConfig
from emissary_lib.client.settings import SettingsReader
from emissary_lib.exceptions import ConfigError, PackageError
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.mux import limits
from emissary_lib.protocol.session.keepalive import KeepaliveTimes

KEYS = [Key(3, b"first-secret-0123"), Key(4, b"second-secret-012")]
GOOD = {"EMISSARY_URL": " wss://host/stage ", "EMISSARY_AUTH_KEYS": format_keys(KEYS)}


def test_the_first_key_signs() -> None:
    config = ClientConfig.from_env(GOOD)
    assert (config.url, config.key) == ("wss://host/stage", KEYS[0])


def test_a_config_never_shows_its_key() -> None:
    assert "secret" not in repr(ClientConfig.from_env(GOOD))


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ClientConfig.from_env({"EMISSARY_AUTH_KEYS": '[{"kid": "x", "data": "hunter2"}]'})
    text = str(caught.value)
    assert "EMISSARY_URL is not set; take WebSocketUrl" in text
    assert 'EMISSARY_AUTH_KEYS: key number 1: "kid" is not a whole number' in text
    assert "hunter2" not in text
    assert len(caught.value.faults) >= 2


def test_nothing_set_says_how_keys_look() -> None:
    with pytest.raises(ConfigError, match="EMISSARY_AUTH_KEYS is not set; want"):
        ClientConfig.from_env({"EMISSARY_URL": "wss://host/s", "EMISSARY_AUTH_KEYS": "  "})


def test_the_times_of_the_keepalive_are_the_protocols_unless_set() -> None:
    assert ClientConfig.from_env({**GOOD, "EMISSARY_PING_SECONDS": " "}).keepalive == KeepaliveTimes()
    assert KeepaliveTimes() == KeepaliveTimes(240.0, 30.0, 20.0, 5.0)  # docs/protocol.md section 4.7


def test_a_ping_is_repeated_as_often_within_a_shorter_deadline() -> None:
    given = {**GOOD, "EMISSARY_PING_SECONDS": "25", "EMISSARY_PONG_SECONDS": "8"}
    assert ClientConfig.from_env(given).keepalive == KeepaliveTimes(25.0, 25.0, 8.0, 2.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PING", "9.9"), ("PING", "301"), ("PING", "240 s"), ("PONG", "nan"), ("PONG", "4"), ("PONG", "61")],
)
def test_a_time_that_is_none_or_out_of_range_is_named(name: str, value: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"EMISSARY_{name}_SECONDS: '{value}' is no number of seconds from"
    ):
        ClientConfig.from_env({**GOOD, f"EMISSARY_{name}_SECONDS": value})


def test_how_relays_are_shared_is_the_dialers_default_unless_set() -> None:
    config = ClientConfig.from_env(GOOD)
    assert config.connections_per_relay == CONNECTIONS_PER_RELAY
    assert config.relay_idle_seconds == RELAY_IDLE_SECONDS
    given = {"EMISSARY_CONNECTIONS_PER_RELAY": "64", "EMISSARY_RELAY_IDLE_SECONDS": "0"}
    config = ClientConfig.from_env({**GOOD, **given})
    assert (config.connections_per_relay, config.relay_idle_seconds) == (64, 0.0)


@pytest.mark.parametrize("value", ["0", "65", "-1", "1.5", "many", "1_0", "\u0663", "9" * 5000])
def test_a_number_of_connections_that_is_none_or_out_of_range_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match=r"EMISSARY_CONNECTIONS_PER_RELAY: .* is no whole number from 1 to"):
        ClientConfig.from_env({**GOOD, "EMISSARY_CONNECTIONS_PER_RELAY": value})


@pytest.mark.parametrize("value", ["-1", "3601", "nan", "a minute"])
def test_a_time_without_connections_that_is_none_or_out_of_range_is_named(value: str) -> None:
    text = f"EMISSARY_RELAY_IDLE_SECONDS: '{value}' is no number of seconds from 0 to 3600"
    with pytest.raises(ConfigError, match=text):
        ClientConfig.from_env({**GOOD, "EMISSARY_RELAY_IDLE_SECONDS": value})


def test_a_relay_carries_as_many_connections_as_the_protocol_allows_at_most() -> None:
    assert MAX_CONNECTIONS == limits.MAX_CONNECTIONS


QUOTED = [
    f"'{GOOD['EMISSARY_AUTH_KEYS']}'",
    f'"{GOOD["EMISSARY_AUTH_KEYS"]}"',
    f" '{GOOD['EMISSARY_AUTH_KEYS']}'\n",
]


@pytest.mark.parametrize("text", QUOTED)
def test_quotes_that_somebody_left_around_a_value_are_taken_off(text: str) -> None:
    given = {"EMISSARY_URL": '"wss://host/stage"', "EMISSARY_AUTH_KEYS": text}
    config = ClientConfig.from_env(given)
    assert (config.url, config.key) == ("wss://host/stage", KEYS[0])


def test_typographic_quotes_are_named() -> None:
    text = "[{\u201ckid\u201d: 1, \u201cdata\u201d: \u201chunter2\u201d}]"
    with pytest.raises(ConfigError, match="typographic quotes") as caught:
        ClientConfig.from_env({**GOOD, "EMISSARY_AUTH_KEYS": text})
    assert "hunter2" not in str(caught.value)


def test_keys_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(GOOD["EMISSARY_AUTH_KEYS"] + "\n")
    config = ClientConfig.from_env({"EMISSARY_URL": "wss://h/s", "EMISSARY_AUTH_KEYS_FILE": str(file)})
    assert (config.key, config.given.source) == (KEYS[0], f"the file {file}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        ("hunter2", "keys are not JSON"),
        ("", "keys are not JSON"),
    ],
)
def test_a_file_of_keys_that_has_none_is_named_and_not_shown(
    tmp_path: Path, content: str | None, says: str
) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"EMISSARY_AUTH_KEYS_FILE: .*{says}") as caught:
        ClientConfig.from_env({"EMISSARY_URL": "wss://h/s", "EMISSARY_AUTH_KEYS_FILE": str(file)})
    assert "hunter2" not in str(caught.value)


def test_a_directory_in_place_of_a_file_of_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        ClientConfig.from_env({"EMISSARY_URL": "wss://h/s", "EMISSARY_AUTH_KEYS_FILE": str(tmp_path)})


def test_two_places_for_the_key_at_once_are_a_fault() -> None:
    with pytest.raises(
        ConfigError, match=r"EMISSARY_AUTH_KEYS and EMISSARY_AUTH_KEYS_FILE are set in the env"
    ):
        ClientConfig.from_env({**GOOD, "EMISSARY_AUTH_KEYS_FILE": "keys.json"})


def test_the_environment_s_key_wins_over_a_file_s_whatever_kind_they_are(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text("EMISSARY_AUTH_KEYS_FILE=/nowhere\n")
    assert ClientConfig.read(SettingsReader(GOOD, env_file=file)).key == KEYS[0]


def test_a_secret_without_the_aws_sdk_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    secret = {"EMISSARY_AUTH_KEYS_SECRET": "emissary-keys"}
    names = r"EMISSARY_AUTH_KEYS_SECRET: .*boto3.*pip install 'emissary-lib\[aws\]'"
    with pytest.raises(PackageError, match=names):
        ClientConfig.from_env({"EMISSARY_URL": "wss://h/s", **secret})
    with pytest.raises(ConfigError, match="EMISSARY_URL is not set.*" + names):  # all that is wrong at once
        ClientConfig.from_env(secret)


def test_a_file_of_authorities_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"EMISSARY_CA_FILE: the file /nowhere\.pem cannot be read"):
        ClientConfig.from_env({**GOOD, "EMISSARY_CA_FILE": "/nowhere.pem"})


def test_a_name_that_was_misspelt_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"EMISSARY_AUTH_KEYS is not set \(but EMISSARY_AUTH_KEY is\)"):
        ClientConfig.from_env({"EMISSARY_URL": "wss://h/s", "EMISSARY_AUTH_KEY": "[]"})
    for odd in ("EMISARY_URL", "Emissary_Url", "EMISSARY_URI"):
        with pytest.raises(ConfigError, match=rf"EMISSARY_URL is not set \(but {odd} is\)"):
            ClientConfig.from_env({odd: "wss://h/s", "EMISSARY_AUTH_KEYS": "[]"})
