"""``emissary local``: what it accepts and what it hands on."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.exit_status import Exit
from emissary_local import Faults, command


@pytest.fixture
def template(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "template.yaml"
    path.write_text("Resources: {}\n")
    return str(path)


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == Exit.USAGE
    return capsys.readouterr().err


def test_a_missing_template_is_a_usage_error_that_says_what_to_do(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = usage_error(capsys, "local")
    assert "there is no template.yaml here: run this from the project's folder, or name the file" in said


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--target", "db.internal", "db.internal"),
        ("--target", "db.internal:0", "0"),
        ("--reorder", "1.5", "1.5 is not between 0 and 1"),
        ("--reorder", "nan", "nan is not between 0 and 1"),
        ("--account-concurrency", "0", "0 is less than 1"),
        ("--cpu-share", "0", "0 is not above 0"),
        ("--seed", "seven", "seven"),
        ("--time-scale", "0", "0 is not above 0"),
        ("--fault", "reorder", "'reorder' is no NAME=VALUE; the names are: reorder, duplicate, drop, "),
        ("--fault", "rain=1", "there is no fault named 'rain'; the names are: reorder, duplicate, drop, "),
        ("--fault", "seed=1", "there is no fault named 'seed'"),
        ("--fault", "drop=2", "drop is a probability and must be from 0 to 1, not 2.0"),
        ("--fault", "drop=often", "drop: 'often' is no number"),
        ("--fault", "cut_sides=middle", "must name some of"),
    ],
)
def test_a_bad_value_is_a_usage_error_that_names_it(
    option: str, value: str, complaint: str, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = usage_error(capsys, "local", "--template", template, option, value)
    assert f"argument {option}" in said
    assert complaint in said


def test_targets_are_collected_in_their_order(template: str) -> None:
    given = ["local", "--template", template, "--target", "127.0.0.1:5432", "--target", "[::1]:80"]
    assert cli.parse(given).target == [("127.0.0.1", 5432), ("::1", 80)]


def test_faults_are_collected_and_read_as_what_they_are(template: str) -> None:
    given = ["local", "--template", template, "--fault", "drop=0.1", "--fault", "cut_sides=relay,dialer"]
    assert cli.parse(given).fault == [("drop", 0.1), ("cut_sides", ("relay", "dialer"))]


def test_local_runs_with_the_faults_and_the_time_scale(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def cloud(template: str, **options: object) -> None:
        asked.update(options, template=template)

    monkeypatch.setattr("emissary_local.cloud.Cloud", cloud)
    monkeypatch.setattr(command, "run_foreground", lambda cloud, **_: 0)
    ours = tmp_path / "ours.yaml"
    ours.write_text("Parameters: {AllowedTargets: {Type: String}}\n")
    options = ["--seed", "7", "--reorder", "0.2", "--fault", "drop=0.1", "--time-scale", "0.01"]
    assert cli.main(["local", "--template", str(ours), *options, "--target", "db.internal:1"]) == Exit.OK
    assert asked["faults"] == Faults(seed=7, reorder=0.2, drop=0.1)
    assert (asked["template"], asked["time_scale"]) == (str(ours), 0.01)
    targets = json.loads(asked["application"].parameters["AllowedTargets"])
    assert targets == [{"host": "db.internal", "port": 1}]


def test_a_setting_that_is_wrong_has_the_status_of_settings(
    template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["local", "--template", template, "--target", "db.internal:1"]) == Exit.SETTINGS
    assert "targets are for Emissary's own template" in capsys.readouterr().err


def test_a_bad_template_fails_with_its_cause_and_no_traceback(
    template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["local", "--template", template]) == Exit.FAILED
    said = capsys.readouterr().err
    assert said.startswith("emissary: ")
    assert "Traceback" not in said
