"""The command line: what it accepts, what it says, and with which status it ends."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from emissary_lib import __version__, cli
from emissary_lib.exit_status import Exit

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = ["local", "demo", "bench"]


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


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"emissary {__version__}\n"


def test_the_module_is_the_same_command() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "emissary_lib", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"emissary {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_s_help_has_examples_and_exit_statuses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"\n  emissary {command}" in text
    assert cli.EXIT_STATUSES in text


@pytest.mark.parametrize(
    "example",
    [
        line.split()[1:]
        for text in (cli._LOCAL_EXAMPLES, cli._DEMO_EXAMPLES, cli._BENCH_EXAMPLES)
        for line in text.splitlines()
        if line.startswith("  emissary ")
    ],
    ids=" ".join,
)
def test_every_example_is_accepted(
    example: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("template.yaml", "deploy/template.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    if ">" in example:  # the shell's
        example = example[: example.index(">")]
    assert callable(cli.parser().parse_args(example).command)


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in usage_error(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_template_is_a_usage_error_that_says_what_to_do(
    command: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = usage_error(capsys, command)
    assert "there is no template.yaml here: run this from the project's folder, or name the file" in said


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--target", "db.internal", "db.internal"),
        ("--target", "db.internal:0", "0"),
        ("--reorder", "1.5", "1.5 is not between 0 and 1"),
        ("--reorder", "nan", "nan is not between 0 and 1"),
        ("--account-concurrency", "0", "0 is less than 1"),
        ("--seed", "seven", "seven"),
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
    assert cli.parser().parse_args(given).target == [("127.0.0.1", 5432), ("::1", 80)]


def test_a_bad_template_fails_with_its_cause_and_no_traceback(
    template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["local", "--template", template]) == Exit.FAILED
    said = capsys.readouterr().err
    assert said.startswith("emissary: ")
    assert "Traceback" not in said


def test_a_package_that_is_not_installed_is_named_with_what_to_install(template: str) -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        f"from emissary_lib.cli import main; sys.exit(main(['demo', '--template', {template!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == Exit.USAGE
    assert (
        ended.stderr == "emissary: the package psycopg is not installed: pip install 'emissary-lib[demo]'\n"
    )


def test_the_library_and_the_command_s_help_need_no_extra() -> None:
    blocked = [
        "boto3",
        "aiohttp",
        "moto",
        "yaml",
        "cryptography",
        "psycopg",
        "pg8000",
        "sqlalchemy",
        "alembic",
    ]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from emissary_lib.cli import main; main(['--help'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
