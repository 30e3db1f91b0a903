"""``emissary config``: what is in force, where it comes from, and no secret."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.cli.config import collect
from emissary_lib.client.settings import SettingsReader
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys

KEYS = format_keys([Key(3, b"first-secret-0123"), Key(4, b"second-secret-012")])


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "AUTH_KEYS", "AUTH_KEYS_FILE", "AUTH_KEYS_SECRET", "ENV_FILE", "CA_FILE"):
        monkeypatch.delenv(f"EMISSARY_{name}", raising=False)


def test_each_setting_is_shown_with_its_source_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prod.env").write_text(f"EMISSARY_AUTH_KEYS='{KEYS}'\nEMISSARY_PONG_SECONDS=10\n")
    monkeypatch.setenv("EMISSARY_URL", "wss://gateway.example/stage")
    monkeypatch.setenv("https_proxy", "me:hunter2@proxy.corp:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert cli.main(["config", "--env-file", "prod.env"]) == Exit.OK
    said = capsys.readouterr().out
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines()}
    assert lines["EMISSARY_URL"] == "wss://gateway.example/stage  [the environment]"
    assert lines["EMISSARY_AUTH_KEYS"] == "signing with key id 3, also given: 4  [prod.env]"
    assert lines["EMISSARY_PING_SECONDS"] == "240  [default]"
    assert lines["EMISSARY_PONG_SECONDS"] == "10  [prod.env]"
    assert lines["EMISSARY_CA_FILE"] == "(none)  [default]"
    assert lines["proxy"] == "http://me:***@proxy.corp:3128  [https_proxy]"
    assert "authorities" in lines
    assert "hunter2" not in said
    assert json.loads(KEYS)[0]["data"] not in said


def test_what_is_wrong_is_said_in_its_place_and_in_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--json"]) == Exit.SETTINGS
    said = json.loads(capsys.readouterr().out)
    assert said["EMISSARY_URL"]["fault"].startswith("EMISSARY_URL is not set")
    assert said["EMISSARY_PING_SECONDS"] == {"value": "240", "source": "default", "fault": ""}
    assert cli.main(["config"]) == Exit.SETTINGS
    (line,) = (each for each in capsys.readouterr().out.splitlines() if "is not set; take" in each)
    assert line.split()[:2] == ["EMISSARY_URL", "is"]  # its name once


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both settings that are needed."""
    monkeypatch.setenv("EMISSARY_URL", "wss://gateway.example/stage")
    monkeypatch.setenv("EMISSARY_AUTH_KEYS", KEYS)


@pytest.mark.usefixtures("good")
def test_a_variable_that_is_no_setting_is_named_with_the_one_that_was_perhaps_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("EMISSARY_URI", "EMISARY_CA_FILE", "emissary_pong_seconds", "EMISSARY_TEAM"):
        monkeypatch.setenv(name, "a-secret-perhaps")
    for name in ("EMISSARY_HOST", "EMISSARY_PORT_2", "EMISSARY_DB_INTERNAL_5432_PORT", "EMISSARY_TABLE"):
        monkeypatch.setenv(name, "of exec's or of the stack's")
    (tmp_path / ".env").write_text("EMISSARY_PING_SECOND=10\nEMISSARY_DEBUG=1\nPING_SECONDS=1\n")
    assert cli.main(["config", "--json"]) == Exit.OK
    said = capsys.readouterr().out
    assert "a-secret-perhaps" not in said
    assert {name: line["fault"] for name, line in json.loads(said).items() if line["fault"]} == {
        "EMISSARY_URI": "no setting of Emissary's, in the environment; did you mean EMISSARY_URL?",
        "EMISARY_CA_FILE": "no setting of Emissary's, in the environment; did you mean EMISSARY_CA_FILE?",
        "emissary_pong_seconds": "no setting of Emissary's, in the environment; did you mean "
        "EMISSARY_PONG_SECONDS?",
        "EMISSARY_TEAM": "no setting of Emissary's, in the environment",
        "EMISSARY_PING_SECOND": "no setting of Emissary's, in .env; did you mean EMISSARY_PING_SECONDS?",
    }


def test_a_file_of_settings_that_cannot_be_read_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMISSARY_URL", "wss://gateway.example/stage")
    assert cli.main(["config", "--env-file", "nowhere.env"]) == Exit.SETTINGS
    said = capsys.readouterr().out
    assert said.count("nowhere.env") == 1
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.splitlines()}
    assert lines["files"].startswith("the file of settings nowhere.env cannot be read: ")
    assert lines["EMISSARY_AUTH_KEYS"] == lines["EMISSARY_PONG_SECONDS"] == "see files"
    assert lines["EMISSARY_URL"] == "wss://gateway.example/stage  [the environment]"


@pytest.mark.usefixtures("good")
def test_the_files_that_were_looked_into_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prod.env").touch()
    assert cli.main(["config", "--env-file", "prod.env", "--json"]) == Exit.OK
    files = json.loads(capsys.readouterr().out)["files"]
    assert files["value"] == f"{tmp_path / 'prod.env'}, {tmp_path / '.env'} (not there)"
    (tmp_path / ".env").mkdir()  # as a file that may not be read
    assert cli.main(["config"]) == Exit.OK
    assert f"{tmp_path / '.env'} (is a directory)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "given", "name"),
    [
        ("boto3", {"EMISSARY_AUTH_KEYS_SECRET": "emissary-keys"}, "EMISSARY_AUTH_KEYS"),
        ("python_socks", {"EMISSARY_AUTH_KEYS": KEYS, "https_proxy": "socks5h://proxy.corp"}, "proxy"),
    ],
)
def test_a_package_that_a_setting_needs_has_the_status_that_the_table_has_for_it(
    package: str,
    given: dict[str, str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Symptom: 3, as of wrong settings; and a SOCKS proxy was shown as if it could be used."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for each, value in {"EMISSARY_URL": "wss://gateway.example/stage", **given}.items():
        monkeypatch.setenv(each, value)
    assert cli.main(["config", "--json"]) == Exit.USAGE
    said = json.loads(capsys.readouterr().out)
    assert {each for each, line in said.items() if line["fault"]} == {name}
    assert "is not installed: pip install 'emissary-lib[" in said[name]["fault"]
    assert cli.main(["doctor"]) == Exit.USAGE
    assert "The check configuration failed; exit status 2." in capsys.readouterr().out
    monkeypatch.delenv("EMISSARY_URL")
    assert cli.main(["config"]) == Exit.SETTINGS


def test_a_proxy_or_a_file_of_authorities_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    given = {"EMISSARY_URL": "wss://h/s", "EMISSARY_AUTH_KEYS": KEYS, "EMISSARY_CA_FILE": "ca.pem"}
    lines = collect(SettingsReader(given, default_file=None), {"https_proxy": "https://proxy.corp"})
    assert {line.name for line in lines if line.fault} == {"EMISSARY_CA_FILE", "proxy"}
