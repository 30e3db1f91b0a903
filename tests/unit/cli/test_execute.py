"""Running a program: what it is given, what comes back, and who gets the signals."""

from __future__ import annotations

import os
import pathlib
import pty
import signal
import subprocess
import sys

import pytest

from emissary_lib.cli.execute import fill_placeholders, run_program
from emissary_lib.exceptions import CommandError
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]
ADDRESS = ("127.0.0.1", 5433)

#: Runs, as ``emissary exec`` would, what is behind it.
RUN = """\
import os, sys
from emissary_lib.cli.execute import run_program
sys.exit(run_program(sys.argv[1:], ("127.0.0.1", 5433), os.environ))
"""

#: A program that counts the signals it gets, none of which can be lost, and ends with their number once
#: there is something to read.
COUNT = """\
import select, signal, sys
numbers, met = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}, 0
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    came = signal.sigtimedwait(numbers, 0.02)
    if came:
        met += 1
        print(signal.Signals(came.si_signo).name, flush=True)
sys.exit(met)
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_placeholders_are_filled_and_other_braces_stay() -> None:
    words = ["{port}", "host={host} port={port}", "{", "{}", "{{port}}", "{user}", "%s"]
    assert fill_placeholders(words, "::1", 5433) == [
        "5433",
        "host=::1 port=5433",
        "{",
        "{}",
        "{5433}",
        "{user}",
        "%s",
    ]


def test_the_address_is_in_the_arguments_and_in_the_environment() -> None:
    code = (
        "import os, sys\n"
        "told = os.environ['EMISSARY_HOST'], os.environ['EMISSARY_PORT']\n"
        "ok = told == tuple(sys.argv[1:]) == ('127.0.0.1', '5433')\n"
        "sys.exit(0 if ok and os.environ['MINE'] == 'kept' and 'PGHOST' not in os.environ else 1)"
    )
    environ = {**os.environ, "MINE": "kept", "EMISSARY_HOST": "an old one"}
    environ.pop("PGHOST", None)
    assert run_program(python(code, "{host}", "{port}"), ADDRESS, environ) == 0


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_passed_back(status: int) -> None:
    assert run_program(python(f"import sys; sys.exit({status})"), ADDRESS, os.environ) == status


def test_a_program_that_a_signal_ended_has_the_shells_status() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_program(python(code), ADDRESS, os.environ) == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("word", "cause"),
    [("no-such-program-anywhere", "No such file"), ("/", "Permission denied"), ("a\0b", "null byte")],
)
def test_a_program_that_cannot_be_started_is_named_with_the_cause(word: str, cause: str) -> None:
    with pytest.raises(CommandError, match=cause) as caught:
        run_program([word], ADDRESS, os.environ)
    assert str(caught.value).startswith(f"cannot start {word}: ")


def test_the_handlers_of_signals_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    run_program(python(""), ADDRESS, os.environ)
    with pytest.raises(CommandError):
        run_program(["no-such-program-anywhere"], ADDRESS, os.environ)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_signals_are_passed_on_and_the_program_decides(number: signal.Signals) -> None:
    with subprocess.Popen(
        python(RUN, *python(COUNT)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # no terminal, as in a build system
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        for _ in range(2):
            running.send_signal(number)
            assert running.stdout.readline() == f"{number.name}\n"
        running.stdin.write("enough\n")
        running.stdin.close()
        assert running.wait(HANG) == 2


def test_ctrl_c_at_a_terminal_reaches_the_program_once() -> None:
    """The terminal sends it to the program as well; twice would make many programs give up."""
    # Two signals at nearly the same time may become one, so what is passed on is told, not what arrives.
    take_terminal = (
        "import fcntl, subprocess, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "send = subprocess.Popen.send_signal\n"
        "def tell(self, n): print('passed on', n, file=sys.stderr, flush=True); send(self, n)\n"
        "subprocess.Popen.send_signal = tell\n"
    )
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            python(take_terminal + RUN, *python(COUNT)),
            cwd=ROOT,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            assert running.stdout.readline() == "ready\n"
            os.write(ours, b"\x03")
            assert running.stdout.readline() == "SIGINT\n"
            running.send_signal(signal.SIGTERM)  # once this has come through, we have handled the SIGINT too
            assert running.stdout.readline() == "SIGTERM\n"
            os.write(ours, b"enough\n")
            assert running.wait(HANG) == 2
            assert running.stderr.read() == "passed on 15\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_standard_input_that_ends_ends_the_program_and_us_and_costs_no_time() -> None:
    """Symptom elsewhere (aws-cli #9344): a tunnel whose pipe was closed spun at 84 % of a processor."""
    reads = "import sys; sys.stdin.read(); sys.exit(7)"
    with subprocess.Popen(python(RUN, *python(reads)), cwd=ROOT, stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(HANG) == 7
