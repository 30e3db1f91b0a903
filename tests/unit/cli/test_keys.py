"""``emissary keys`` through the command line, with boto3 against a server on loopback."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from emissary_lib.cli import keys
from emissary_lib.cli import main as cli
from emissary_lib.client.config import ClientConfig
from emissary_lib.client.settings import SettingsReader
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from functions.common.adapters.keys import MAX_AGE
from tests.unit.functions.adapters.conftest import Dynamo
from tests.unit.operate.conftest import aws, dynamo, dynamo_server

__all__ = ["aws", "dynamo", "dynamo_server"]

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIRST = Key(1, bytes(range(32)))


@pytest.fixture
def arn(aws: Dynamo) -> Iterator[str]:
    client: Any = aws.client("secretsmanager")
    made = client.create_secret(Name="emissary-keys", SecretString=format_keys([FIRST]))["ARN"]
    yield made
    client.delete_secret(SecretId=made, ForceDeleteWithoutRecovery=True)
    client.close()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["keys", *arguments]) == Exit.OK
    return capsys.readouterr().out


def test_what_new_prints_is_a_platform_s_env_file(
    arn: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text(said(capsys, "new", "--secret", arn))
    reader = SettingsReader({"EMISSARY_URL": "wss://example/emissary"}, env_file=tmp_path / ".env")
    assert ClientConfig.read(reader).key.key_id == 2


def test_new_as_json_is_one_object(arn: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(said(capsys, "new", "--kid", "9", "--secret", arn, "--json"))
    assert made["kid"] == 9
    assert len(made["data"]) == 43


def test_list_shows_ids_and_ages_and_no_secret(arn: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = json.loads(said(capsys, "new", "--secret", arn, "--json"))
    text = said(capsys, "list", "--secret", "emissary-keys")
    assert re.search(r"^1 +unknown +unknown$", text, re.MULTILINE)
    assert re.search(r"^2 +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ +0 h 0 min$", text, re.MULTILINE)
    listed = said(capsys, "list", "--secret", arn, "--json")
    assert [each["kid"] for each in json.loads(listed)] == [1, 2]
    for secret in (new["data"], json.loads(format_keys([FIRST]))[0]["data"]):
        assert secret not in text + listed


def test_retire_says_how_long_the_key_is_still_taken(arn: str, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "new", "--secret", arn)
    text = said(capsys, "retire", "1", "--secret", arn)
    assert "no new session after 300 s at most" in text
    assert "Keys left: 2." in text
    assert keys.ACCEPTED_AFTER == MAX_AGE


def test_the_last_key_stays_and_the_status_says_so(arn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "retire", "1", "--secret", arn]) == Exit.NOT_DONE
    assert "key 1 is the last one" in capsys.readouterr().err


def test_a_secret_that_is_absent_is_aws_s_refusal(aws: Dynamo, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "list", "--secret", "nowhere"]) == Exit.NOT_DONE
    assert "AWS refused GetSecretValue: ResourceNotFoundException" in capsys.readouterr().err


def test_without_a_region_it_says_what_to_set(
    aws: Dynamo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert cli.main(["keys", "list", "--secret", "emissary-keys"]) == Exit.NOT_DONE
    assert "check the region (AWS_DEFAULT_REGION, or an ARN in place of a name)" in capsys.readouterr().err


def test_without_boto3_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['boto3'] = None\n"
        "from emissary_lib.cli.main import main; sys.exit(main(['keys', 'list', '--secret', 'x']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == Exit.USAGE
    assert ended.stderr == "emissary: the package boto3 is not installed: pip install 'emissary-lib[aws]'\n"
