"""The command where something of what surrounds it is amiss: one line and a status, never a traceback."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Mapping

import pytest

from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]
SETTINGS = {"EMISSARY_URL": "ws://127.0.0.1:9/s", "EMISSARY_AUTH_KEYS": format_keys([Key(1, bytes(32))])}
ENTRY = "import sys; from emissary_lib.__main__ import main; sys.exit(main())"


def run(
    *arguments: str,
    program: str = ENTRY,
    path: pathlib.Path | None = None,
    cwd: pathlib.Path = ROOT,
    settings: Mapping[str, str] = SETTINGS,
) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing in the environment but these settings.

    Modules are not looked for in the folder at hand, just as by the command's own script: where that folder
    is gone, Python 3.13.0 fails to import anything with -c alone.
    """
    search = os.pathsep.join(map(str, [*([path] if path else []), ROOT, *filter(None, sys.path)]))
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": search, **settings},
        capture_output=True,
        text=True,
        timeout=HANG,
    )


@pytest.mark.parametrize("files", [["websocket.py"], ["websocket/__init__.py"]], ids=" ".join)
def test_another_package_called_websocket_is_named_with_the_way_out(
    files: list[str], tmp_path: pathlib.Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = run("forward", "db:1", path=tmp_path)
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith(
        f"emissary: {tmp_path / files[0]} is not the package websocket-client, but "
    )
    assert "pip uninstall websocket websocket-client, then pip install websocket-client" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_library_says_the_same_of_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "websocket.py").touch()
    program = (
        "import emissary_lib\n"
        "try:\n    emissary_lib.Dialer\n"
        "except ImportError as error:\n    print(isinstance(error, emissary_lib.EmissaryError), error)"
    )
    done = run(program=program, path=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"True {tmp_path / 'websocket.py'} is not the package websocket-client")


def test_websocket_client_that_is_missing_is_a_package_to_install() -> None:
    program = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'websocket': raise ModuleNotFoundError('No module named websocket', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'websocket' else find(name, *rest)\n"
        + ENTRY
    )  # fmt: skip
    done = run("forward", "db:1", program=program)
    said = "emissary: the package websocket-client is not installed: pip install websocket-client\n"
    assert (done.returncode, done.stderr) == (Exit.USAGE, said)


def test_a_machine_without_a_thread_left_has_a_status_of_its_own() -> None:
    program = (
        "import threading\n"
        "def refuse(*args, **kwargs): raise RuntimeError(\"can't start new thread\")\n"
        "threading._start_new_thread = refuse\n"
        "if hasattr(threading, '_start_joinable_thread'): threading._start_joinable_thread = refuse\n"
        + ENTRY
    )  # fmt: skip
    done = run("forward", "db:1", program=program)
    assert done.returncode == Exit.RESOURCES
    assert re.fullmatch(r"emissary: this machine .*can't start new thread.*ulimit -u.*\n", done.stderr)


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_shown_if_asked_for() -> None:
    program = (
        "from emissary_lib.cli import doctor\n"
        "def broken(args): raise LookupError('nobody knows')\n"
        "doctor.run = broken\n" + ENTRY
    )
    done = run("doctor", program=program)
    assert done.returncode == Exit.FAULT
    assert re.fullmatch(r"emissary: a fault of .*LookupError: nobody knows at .*\n", done.stderr)
    asked = run("doctor", program=program, settings={**SETTINGS, "EMISSARY_DEBUG": "1"})
    assert asked.returncode == Exit.FAULT
    assert "Traceback (most recent call last)" in asked.stderr
    assert asked.stderr.endswith(done.stderr)


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["exec", "db:1", "--", "true"]], ids=" ".join)
def test_a_folder_that_is_gone_is_no_matter(arguments: list[str], tmp_path: pathlib.Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"import os; os.rmdir({str(gone)!r})\n{ENTRY}"
    done = run(*arguments, program=program, cwd=gone)
    assert "Traceback" not in done.stderr
    assert done.returncode in (Exit.OK, Exit.GATEWAY)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_word_that_the_terminal_cannot_show_is_shown_as_an_escape(encoding: str) -> None:
    done = run("doctor", "d\u0142.internal\u2026:1", settings={**SETTINGS, "PYTHONIOENCODING": encoding})
    assert "Traceback" not in done.stderr
    assert done.returncode in (Exit.USAGE, Exit.GATEWAY)


@pytest.mark.skipif(os.name != "posix", reason="there is no other process group to signal here")
def test_ctrl_c_while_the_command_is_loaded_ends_it_in_silence() -> None:
    program = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'argparse': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n" + ENTRY
    )
    done = run("--version", program=program)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.skipif(os.name != "posix", reason="there is no other process group to signal here")
def test_ctrl_c_while_the_command_runs_has_its_status() -> None:
    program = (
        "import os, signal, sys\n"
        "from emissary_lib.cli import doctor\n"
        "doctor.run = lambda args: os.kill(os.getpid(), signal.SIGINT)\n" + ENTRY
    )
    done = run("doctor", program=program)
    assert (done.returncode, done.stdout, done.stderr) == (Exit.INTERRUPTED, "", "emissary: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGINT to ignore here")
def test_an_interrupt_that_was_ignored_at_the_start_stays_ignored() -> None:
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from emissary_lib.cli import doctor\n"
        "def run(args): os.kill(os.getpid(), signal.SIGINT); return 0\n"
        "doctor.run = run\n" + ENTRY
    )
    done = run("doctor", program=program)
    assert (done.returncode, done.stderr) == (0, "")
