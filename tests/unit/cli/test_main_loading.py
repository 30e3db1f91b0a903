"""What a command loads before it does anything, and which exit statuses its help lists."""

from __future__ import annotations

import ast
import importlib
import pathlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emissary_lib import doctor, exceptions, operate
from emissary_lib.cli import main as cli
from emissary_lib.exit_status import COMMON, DOCTOR, Exit, statuses
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]

#: What takes the time of a start: nothing is asked for help that needs any of it.
HEAVY = {
    "asyncio", "boto3", "concurrent.futures", "email", "emissary_lib.client.dialer",
    "emissary_lib.doctor.run", "emissary_lib.transport", "emissary_local.cloud", "h2", "http", "ssl",
    "websocket",
}  # fmt: skip

#: The same of those answers for which no command is loaded.
UNNEEDED = HEAVY | {
    "dataclasses",
    "emissary_lib.exceptions",
    "hashlib",
    "inspect",
    "json",
    "logging",
    "socket",
}

PROGRAM = """
import sys
from emissary_lib.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print(*sys.modules, file=sys.stderr)
    sys.exit(ended.code)
"""


def loaded_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        # -S: a site's own start may load anything.
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}{PROGRAM}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_no_command_is_loaded_to_say_which_there_are(option: str) -> None:
    loaded = loaded_by(option)
    assert "emissary_lib.cli.main" in loaded
    assert loaded & (UNNEEDED | {entry.module for entry in cli.COMMANDS.values()}) == set()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_a_command_loads_neither_the_network_nor_another_command(command: str) -> None:
    loaded = loaded_by(command, "--help")
    assert cli.COMMANDS[command].module in loaded
    assert loaded & HEAVY == set()
    others = {entry.module for name, entry in cli.COMMANDS.items() if name not in (command, "forward")}
    assert loaded & others == set()  # but forward, of which exec is made


def source(module: str) -> ast.AST:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(pathlib.Path(spec.origin).read_text())


def package(name: str, path: list[str]) -> list[str]:
    return [f"{name}.{each.name}" for each in pkgutil.iter_modules(path)]


def raised(module: str) -> Iterator[Exit]:
    """The status of each error of ours that a module raises by name."""
    for node in ast.walk(source(module)):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            kind = getattr(exceptions, call.func.id, None)
            if kind is not None:
                yield next(status for known, status in statuses() if issubclass(kind, known))


def named(module: str) -> set[Exit]:
    """The statuses that a module names."""
    return {
        Exit[node.attr]
        for node in ast.walk(source(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Exit"
    }


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_statuses_of_a_command_hold_those_of_every_error_that_it_raises(command: str) -> None:
    module = cli.COMMANDS[command].module
    told = {*importlib.import_module(module).EXITS, *COMMON}
    assert told <= set(Exit)
    modules = [
        module,
        *(package(operate.__name__, operate.__path__) if command in ("keys", "sessions") else []),
    ]
    assert {status for each in modules for status in raised(each)} - told == set()
    assert named(module) - told == set()


def test_the_statuses_of_the_doctor_are_those_of_its_checks() -> None:
    from emissary_lib.cli.doctor import EXITS

    of_checks = {status for each in package(doctor.__name__, doctor.__path__) for status in named(each)}
    assert of_checks - {*EXITS, *COMMON} == set()
    assert of_checks >= DOCTOR
