"""What the Tab key offers: by what the shells ask for, and in those shells that are here."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from emissary_lib.cli import completion
from emissary_lib.cli import main as cli
from emissary_lib.doctor.service_probes import SERVICE_PROBES
from emissary_lib.exit_status import Exit
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARSER = cli.parser()

LINES = [
    (["doc"], ["doctor"]),
    ([""], list(cli.COMMANDS)),
    (["nonsense", ""], list(cli.COMMANDS)),
    (["--v"], ["--version"]),
    (["keys", ""], ["new", "list", "retire"]),
    (["keys", "re"], ["retire"]),
    (["keys", "new", "--k"], ["--kid"]),
    (["doctor", "--service", ""], ["auto", "none", *SERVICE_PROBES]),
    (["doctor", "--json", "--service", "my"], ["mysql"]),
    (["doctor", "--service", "mysql", "--js"], ["--json"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["exec", "db:1", "--ch"], ["--check"]),
    (["exec", "db:1", ""], []),
    (["exec", "db:1", "--", "--ch"], []),
    (["forward", "--timeout", ""], []),
]


@pytest.mark.parametrize(("words", "offered"), LINES, ids=lambda value: " ".join(value))
def test_a_word_becomes_what_can_stand_in_its_place(words: list[str], offered: list[str]) -> None:
    assert completion.complete(PARSER, words[:-1], words[-1]) == offered


def test_every_option_of_every_command_is_offered() -> None:
    for command in cli.COMMANDS:
        inner = completion._actions(PARSER)[command]
        offered = completion.complete(PARSER, [command], "-")
        assert set(offered) == {name for name in inner._option_string_actions if name.startswith("--")}
        assert "--help" in offered


def test_options_that_take_a_file_are_known() -> None:
    assert "template" in completion.file_options(PARSER)


@pytest.fixture
def command(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment in which ``emissary`` is this project's."""
    script = tmp_path / "bin" / "emissary"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m emissary_lib "$@"\n')
    script.chmod(0o755)
    return {
        "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "HOME": str(tmp_path),
    }


def in_shell(name: str, program: str, command: dict[str, str], *options: str) -> list[str]:
    shell = shutil.which(name)
    if shell is None:
        pytest.skip(f"the shell {name} is not installed here")
    done = subprocess.run(
        [shell, *options, "-c", program], env=command, capture_output=True, text=True, timeout=HANG
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_bash_offers_them(command: dict[str, str]) -> None:
    program = """
eval "$(emissary completion bash)"
complete -p emissary
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _emissary; echo "${COMPREPLY[@]}"; }
ask emissary doc
ask emissary keys ''
ask emissary doctor --service my
ask emissary exec db:1 -- --ch
ask emissary exec 'a b' --ch
"""
    assert in_shell("bash", program, command, "--norc") == [
        "complete -o bashdefault -o default -F _emissary emissary",
        "doctor",
        "new list retire",
        "mysql",
        "",
        "--check",
    ]


def test_fish_offers_them(command: dict[str, str]) -> None:
    program = """
emissary completion fish | source
complete -C 'emissary doc'
complete -C 'emissary keys '
complete -C 'emissary doctor --service my'
"""
    assert in_shell("fish", program, command, "--no-config") == ["doctor", "list", "new", "retire", "mysql"]


def test_zsh_asks_for_them(command: dict[str, str]) -> None:
    """Without its line editor: what the function would add, with the widget's own words replaced."""
    program = """
compdef() { print "compdef $@" }
compadd() { print -- "${(P@)2}" }
_files() { print files }
eval "$(emissary completion zsh)"
words=(emissary doc); CURRENT=2; _emissary
words=(emissary keys '' trailing); CURRENT=3; _emissary
"""
    offered = ["compdef _emissary emissary", "doctor", "new list retire"]
    assert in_shell("zsh", program, command, "-f") == offered


def test_a_script_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == completion.SCRIPTS["bash"]


def test_a_shell_that_has_no_script_is_told_which_have_one_and_no_word_of_the_scripts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Symptom: "invalid choice: 'tcsh' (choose from 'bash', 'zsh', 'fish', 'words')"."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", "tcsh"])
    assert ended.value.code == Exit.USAGE
    said = capsys.readouterr().err
    assert "invalid choice: 'tcsh'" in said
    assert "fish" in said
    assert "words" not in said
