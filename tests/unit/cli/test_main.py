"""The command line: what it accepts, what it says, and with which status it ends."""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from emissary_lib import __version__
from emissary_lib.cli import main as cli
from emissary_lib.cli.command import format_exits
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from tests.helpers.patience import HANG
from tests.infra.documents import subcommands

ROOT = pathlib.Path(__file__).resolve().parents[3]
DIALLING = ["exec", "forward"]
COMMANDS = list(cli.COMMANDS)
ACTIONS = ["keys new", "keys list", "keys retire", "sessions list", "sessions kill"]
PARSERS = subcommands(cli.parser())


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
    # Older releases of argparse have the summary of a long name on a line of its own.
    assert all(
        re.search(rf"\n    {command}\s+{cli.COMMANDS[command].summary}\n", text) for command in COMMANDS
    )


@pytest.mark.parametrize("command", ["keys", "sessions"])
def test_the_help_of_a_command_with_actions_names_each(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    actions = [each.removeprefix(f"{command} ") for each in ACTIONS if each.startswith(command)]
    assert actions
    assert all(f"\n    {action} " in text for action in actions)


@pytest.mark.parametrize("command", [*COMMANDS, *ACTIONS])
def test_every_command_s_help_says_what_it_does_with_examples_and_exit_statuses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    description = PARSERS[command].description
    assert description
    assert description in text
    assert f"\nexamples:\n  emissary {command}" in text
    exits = importlib.import_module(cli.COMMANDS[command.split()[0]].module).EXITS
    assert text.endswith(f"\n\n{format_exits(exits)}")


@pytest.mark.parametrize(
    "example",
    [
        shlex.split(line)[1:]
        for parser in PARSERS.values()
        for line in str(parser.epilog).splitlines()
        if line.startswith("  emissary ")
    ],
    ids=" ".join,
)
def test_every_example_is_accepted(
    example: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "template.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert callable(cli.parse(example).command.run)


@pytest.mark.parametrize(
    ("given", "said"),
    [("exce", "; did you mean exec?"), ("docter", "; did you mean doctor?"), ("psql", "")],
)
def test_a_command_that_is_not_there_may_be_one_misspelt(
    given: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(capsys, given, "db:1", "--check").endswith(
        f"emissary: error: there is no command {given}{said}\n"
    )


def test_an_option_of_a_command_that_stands_before_it_is_told_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = usage_error(capsys, "--env-file", "prod.env", "exec", "db:1", "--", "true")
    assert said.endswith(
        "error: --env-file stands before the command; options stand behind it: emissary COMMAND --env-file\n"
    )


def test_an_argument_too_many_comes_with_the_usage_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    said = usage_error(capsys, "connect", "db:1", "db:2")
    assert said.startswith("usage: emissary connect ")
    assert said.endswith("emissary connect: error: unrecognized arguments: db:2\n")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("soon", "'soon' is no number"),
        ("nan", "nan is not above 0"),
        ("1e300", "1e300 is more than 2000000 seconds"),
    ],
)
def test_a_timeout_that_is_none_is_a_usage_error(
    given: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(capsys, "connect", "db:1", "--timeout", given).endswith(f"--timeout: {says}\n")


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in usage_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["keys", "new", "--kid", "-1"],
            "argument --kid: '-1' is no key id; want a number from 0 to 4294967295",
        ),
        (["keys", "new", "--kid", "4294967296"], "argument --kid: '4294967296' is no key id"),
        (["keys", "retire", "5000000000"], "argument ID: '5000000000' is no key id"),
        (["sessions", "kill", "--key", "one"], "argument --key: 'one' is no key id"),
        (["sessions", "kill", "abc"], "argument SESSION: 'abc' is no session id; want 8 to 64 hexadecimal"),
        (["sessions", "kill", "8f14e45fceea167a", "8F14E45F"], "'8F14E45F' is no session id"),
    ],
    ids=" ".join,
)
def test_an_id_that_can_be_none_is_refused_before_anybody_is_asked(
    arguments: list[str],
    complaint: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMISSARY_URL", raising=False)
    where = ["--secret", "emissary-keys"] if arguments[0] == "keys" else ["--table", "sessions"]
    assert complaint in usage_error(capsys, *arguments, *where)


@pytest.mark.parametrize("given", [0, 4294967295])
def test_the_lowest_and_the_highest_key_id_are_taken(given: int) -> None:
    assert cli.parse(["keys", "new", "--secret", "x", "--kid", str(given)]).kid == given


@pytest.mark.parametrize("command", DIALLING)
@pytest.mark.parametrize("target", ["db.internal", "db.internal:0"])
def test_a_bad_target_is_a_usage_error(command: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument TARGET" in usage_error(capsys, command, target, "--", "true")


@pytest.mark.parametrize("arguments", [["db:1"], ["db:1", "--"]])
def test_exec_without_a_command_says_where_to_name_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = usage_error(capsys, "exec", *arguments)
    assert "name the command to run behind --, as in: emissary exec db.internal:5432 -- psql" in said


def test_what_stands_behind_the_dashes_is_the_command_s_own() -> None:
    words = ["psql", "--timeout", "5", "--", "-h", "{host}"]
    arguments = cli.parse(["exec", "--timeout", "7", "db:1", "--check", "--", *words])
    assert (arguments.words, arguments.timeout, arguments.check) == (words, 7.0, True)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:5433", ("127.0.0.1", 5433)),
        ("5433", ("127.0.0.1", 5433)),
        ("0", ("127.0.0.1", 0)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
        ("/run/db/", "/run/db/"),
        ("./db:1", "./db:1"),
    ],
)
def test_the_address_to_listen_on_has_a_port_or_a_slash(given: str, address: object) -> None:
    assert cli.parse(["forward", "db:1", "--listen", given]).listen == [address]


@pytest.mark.parametrize("given", ["", "localhost", "localhost:", "1.2.3.4:x", "1:65536", ":-1"])
def test_no_address_to_listen_on_is_a_usage_error(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --listen" in usage_error(capsys, "forward", "db:1", f"--listen={given}")


@pytest.mark.parametrize("command", DIALLING)
def test_missing_settings_have_a_status_and_a_text_of_their_own(
    command: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EMISSARY_URL", "EMISSARY_AUTH_KEYS"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main([command, "db.internal:5432", *(["--", "true"] if command == "exec" else [])]) == (
        Exit.SETTINGS
    )
    said = capsys.readouterr().err
    assert "EMISSARY_URL is not set" in said
    assert "EMISSARY_AUTH_KEYS is not set" in said


def run_into(out: str, *arguments: str) -> tuple[int, str]:
    environ = {"EMISSARY_URL": "ws://127.0.0.1:9/s", "EMISSARY_AUTH_KEYS": format_keys([Key(1, bytes(32))])}
    with open(out, "w") as file:
        done = subprocess.run(
            [sys.executable, "-m", "emissary_lib", *arguments],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANG,
        )
    return done.returncode, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize(
    "arguments",
    [["forward", "db:1"], ["forward", "db:1", "--json"], ["doctor", "--json"], ["doctor"], ["--help"],
     ["--version"], ["forward", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_output_that_cannot_be_written_is_a_message_and_a_status(arguments: list[str]) -> None:
    said = "cannot write to standard output: No space left on device; make room, or send it elsewhere"
    assert run_into("/dev/full", *arguments) == (Exit.OUTPUT, f"emissary: {said}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["doctor", "--json"]], ids=" ".join)
def test_to_a_reader_that_has_gone_nothing_is_said(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as file:
        done = subprocess.run(
            [sys.executable, "-m", "emissary_lib", *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "EMISSARY_URL": "nothing"},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANG,
        )
    assert (done.returncode, done.stderr) == (Exit.READER_GONE, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_a_message_that_cannot_be_written_leaves_the_status_as_it_is() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "emissary_lib", "forward", "db:1"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "EMISSARY_URL": "nothing"},
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=HANG,
        )
    assert (done.returncode, done.stdout) == (Exit.SETTINGS, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m emissary_lib forward no-port {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == Exit.USAGE
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments", ["config", "doctor", "completion bash", "keys list --secret s", "connect db:1"]
)
def test_what_has_to_be_written_to_a_closed_standard_output_is_a_message_and_a_status(arguments: str) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m emissary_lib {arguments} >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    said = "cannot write to standard output: it is closed; give the command one"
    assert (done.returncode, done.stderr) == (Exit.OUTPUT, f"emissary: {said}\n")


def test_a_command_of_a_package_that_is_not_installed_is_not_offered() -> None:
    program = (
        "import sys; sys.modules['emissary_local'] = None\n"
        "from emissary_lib.cli.main import main; main(['--help'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\n    forward " in ended.stdout
    assert "\n    local " not in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_s_line_in_the_list_is_its_module_s(command: str) -> None:
    entry = cli.COMMANDS[command]
    assert entry.summary == importlib.import_module(entry.module).SUMMARY


def test_local_without_its_extra_has_the_status_of_a_package_that_is_not_installed() -> None:
    program = (
        "import sys; sys.modules['moto'] = None\n"
        "from emissary_lib.cli.main import main; sys.exit(main(['local']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        Exit.USAGE,
        "emissary: the package moto is not installed: pip install 'emissary-lib[local]'\n",
    )


def test_the_library_and_the_command_s_help_need_no_extra() -> None:
    blocked = [
        "boto3",
        "aiohttp",
        "moto",
        "yaml",
        "trustme",
        "psycopg",
        "pg8000",
        "sqlalchemy",
        "alembic",
    ]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from emissary_lib.cli.main import main; main(['--help'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
