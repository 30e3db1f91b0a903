"""In which order settings are looked for, and what of a file matters to whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emissary_lib.client.config import ClientConfig
from emissary_lib.client.settings import SettingsReader, warn_of_writers
from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.system import FILE_MODES

NAME = "EMISSARY_URL"
GOOD = {NAME: "wss://host/stage", "EMISSARY_AUTH_KEYS": format_keys([Key(3, b"first-secret-0123")])}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_each_place_goes_before_the_next(tmp_path: Path) -> None:
    named, default = write(tmp_path / "x.env", f"{NAME}=named"), write(tmp_path / ".env", f"{NAME}=default")
    arguments, environ = {NAME: "argument"}, {NAME: "environ"}
    seen = []
    for given in (
        SettingsReader(environ, arguments=arguments, env_file=named, default_file=default),
        SettingsReader(environ, env_file=named, default_file=default),
        SettingsReader({}, env_file=named, default_file=default),
        SettingsReader({}, default_file=default),
    ):
        found = given.find(NAME)
        assert found
        seen.append((found.text, found.source))
    assert seen == [
        ("argument", "an argument"),
        ("environ", "the environment"),
        ("named", str(named)),
        ("default", str(default)),
    ]
    assert SettingsReader({}, default_file=None).find(NAME) is None


def test_an_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    file = write(tmp_path / ".env", f"{NAME}=from-file")
    found = SettingsReader({NAME: " '' "}, default_file=file).find(NAME)
    assert found
    assert found.text == "from-file"


def test_the_environment_names_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "x.env", f"{NAME}=named")
    found = SettingsReader({"EMISSARY_ENV_FILE": str(file)}, default_file=None).find(NAME)
    assert found
    assert found.source == str(file)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    absent = tmp_path / "x.env"
    with pytest.raises(ConfigError, match=rf"^the file of settings {absent} cannot be read: No such file"):
        ClientConfig.read(SettingsReader({}, env_file=absent, default_file=None))


def test_what_is_missing_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ClientConfig.read(SettingsReader({}, default_file=tmp_path / ".env"))
    assert caught.value.faults[-1] == f"looked in the environment, {tmp_path / '.env'} (not there)"


def unreadable(tmp_path: Path) -> Path:
    """For root too, who may read everything."""
    path = tmp_path / ".env"
    path.symlink_to(path)
    return path


def test_an_unreadable_env_file_is_nobody_s_fault_while_nothing_is_missing(tmp_path: Path) -> None:
    path = unreadable(tmp_path)
    assert ClientConfig.read(SettingsReader(GOOD, default_file=path)).url == GOOD[NAME]
    with pytest.raises(ConfigError, match=r"looked in the environment, .*cannot be read: Too many levels"):
        ClientConfig.read(SettingsReader({}, default_file=path))


def test_a_virtual_environment_that_is_called_env_is_no_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert ClientConfig.read(SettingsReader(GOOD, default_file=tmp_path / ".env")).url == GOOD[NAME]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for_while_nothing_is_missing(tmp_path: Path) -> None:
    pipe = tmp_path / ".env"
    os.mkfifo(pipe)  # nobody will ever fill it
    assert ClientConfig.read(SettingsReader(GOOD, default_file=pipe)).url == GOOD[NAME]


def test_a_broken_line_matters_to_whoever_asks_for_it_alone(tmp_path: Path) -> None:
    file = write(tmp_path / ".env", f"{NAME}: x\nEMISSARY_AUTH_KEYS='{GOOD['EMISSARY_AUTH_KEYS']}'\n")
    assert ClientConfig.read(SettingsReader(GOOD, default_file=file)).url == GOOD[NAME]
    with pytest.raises(ConfigError, match=rf"{file}, line 1: EMISSARY_URL: want NAME=value"):
        ClientConfig.read(SettingsReader({}, default_file=file))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "emissary_lib.config"]


@pytest.mark.skipif(not FILE_MODES, reason="modes say nothing here")
@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_keys_that_others_may_write_are_warned_of_once(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / ".env", "EMISSARY_AUTH_KEYS=[]\n")
    path.chmod(mode)
    for _ in range(3):
        assert SettingsReader({}, default_file=path).find("EMISSARY_AUTH_KEYS")
    said = f"{path} holds keys, and others may write it (mode 0{mode:o}): chmod 600 {path}"
    assert warnings(caplog) == [said]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644])
def test_keys_that_their_owner_alone_may_write_are_not(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / ".env", "EMISSARY_AUTH_KEYS=[]\n")
    path.chmod(mode)
    warn_of_writers(path, holds_keys=True)
    assert warnings(caplog) == []


def test_a_mode_that_says_nothing_is_nothing_to_warn_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python shows 0666 for any file on Windows."""
    monkeypatch.setattr("emissary_lib.client.settings.FILE_MODES", False)
    path = write(tmp_path / ".env", "EMISSARY_AUTH_KEYS=[]\n")
    path.chmod(0o666)
    warn_of_writers(path, holds_keys=True)
    assert warnings(caplog) == []


def test_a_file_without_keys_may_be_anybody_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / ".env", f"{NAME}=wss://h/s\n")
    path.chmod(0o666)
    assert SettingsReader({}, default_file=path).find(NAME)
    assert warnings(caplog) == []
