"""Settings of the platform side: what is read, and every fault named at once without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_lib.client.config import ClientConfig, read_env_file
from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.auth.keys import Key, format_keys
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


def test_an_env_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "\ufeff# a comment\n\nA=1\nexport B='two words'\nC=\"x=y\"\nD = spaced \nE=\nF='\nG=\"a'\n",
        encoding="utf-8",
    )
    expected = {"A": "1", "B": "two words", "C": "x=y", "D": "spaced", "E": "", "F": "'", "G": "\"a'"}
    assert read_env_file(path) == expected


def test_an_absent_env_file_is_empty(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / "absent") == {}


@pytest.mark.parametrize("line", ["hunter2", "=hunter2", "2x=hunter2", "a-b=hunter2"])
def test_a_line_that_is_none_is_named_by_number_not_by_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"A=1\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: want NAME=value") as caught:
        read_env_file(path)
    assert "hunter2" not in str(caught.value)


def env_file(path: Path, mode: int, text: str = "EMISSARY_URL=wss://h/s\nEMISSARY_AUTH_KEYS='[]'\n") -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "emissary_lib.config"]


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_keys_that_others_may_write_are_warned_of_once(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = env_file(tmp_path / ".env", mode)
    for _ in range(3):
        assert read_env_file(path)["EMISSARY_AUTH_KEYS"] == "[]"
    said = f"{path} holds keys, and others may write it (mode 0{mode:o}): chmod 600 {path}"
    assert warnings(caplog) == [said]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644])
def test_keys_that_their_owner_alone_may_write_are_not(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    read_env_file(env_file(tmp_path / ".env", mode))
    assert warnings(caplog) == []


def test_a_file_without_keys_may_be_anybody_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_env_file(env_file(tmp_path / ".env", 0o666, "EMISSARY_URL=wss://h/s\n"))
    assert warnings(caplog) == []


def test_a_file_that_is_no_text_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_env_file(path)
