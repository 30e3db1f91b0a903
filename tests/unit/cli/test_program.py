"""A program under ``exec`` as if in its place: what comes back, and that each signal reaches it once."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emissary_lib.cli.program import run_program
from emissary_lib.exceptions import CommandError
from tests.helpers.patience import HANG, wait_until
from tests.helpers.processes import children

pty = pytest.importorskip("pty", reason="a Windows console has no signals to tell apart")

ROOT = pathlib.Path(__file__).resolve().parents[3]

#: Runs, as ``emissary exec`` would, what is behind it.
RUN = """\
import os, sys
from emissary_lib.cli.program import run_program
sys.exit(run_program(sys.argv[1:], os.environ))
"""

NAMES = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR2"]

#: A program that tells each signal that it gets, unless it is ignored; none can be lost. It ends at SIGUSR1.
#: As signals are passed on in their order, all that was to be passed on before has come by then. SIGALRM
#: tells how far we are: see :meth:`Running.settle`.
TELL = """\
import os, signal, sys
numbers = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
  signal.SIGALRM}
numbers = {number for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", os.getpid(), flush=True)
came = None
while came != signal.SIGUSR1:
    came = signal.sigwait(numbers)
    print(signal.Signals(came).name, flush=True)
sys.exit(7)
"""

#: A shell with job control, as far as it matters: runs a job in a group of its own, in the foreground of the
#: terminal on its standard input or not, tells what becomes of it, and has it go on at a line of command.
SHELL = """\
import fcntl, os, signal, sys, termios
commands, place, *words = sys.argv[1:]
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    if place == "foreground":
        os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(words[0], words)
while True:
    _pid, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped by", signal.Signals(os.WSTOPSIG(status)).name, flush=True)
    os.read(int(commands), 100)
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
print("status", os.waitstatus_to_exitcode(status), flush=True)
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


class Running:
    """A process that runs :data:`RUN` in one way or another, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ready(self) -> int:
        """Wait for the program; gives its process id."""
        word, _, number = self.line().partition(" ")
        assert word == "ready"
        return int(number)

    def settle(self, ours: int | None = None) -> None:
        """Wait until all that we have got so far is passed on, or found to have been the group's.

        Until then one more of a kind may count as the same. Of what was pending with the first mark some may
        be behind it, but not behind the second, which comes to us after that.
        """
        for _ in range(2):
            os.kill(ours or self.process.pid, signal.SIGALRM)
            assert self.line() == "SIGALRM"

    def rest(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.read().split()

    def end(self) -> int:
        return self.process.wait(HANG)


@contextlib.contextmanager
def running(*before: str, program: str = TELL, run: str = RUN) -> Iterator[Running]:
    """Run a program under us, under the command ``before``, in a session without a terminal."""
    with subprocess.Popen(
        [*before, *python(run, *python(program))],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


class Terminal:
    """A job of :data:`SHELL`'s."""

    def __init__(self, shell: Running, screen: int, command: int) -> None:
        self.shell = shell
        self._screen: int | None = screen
        self._command = command

    def type(self, keys: bytes) -> None:
        assert self._screen is not None
        os.write(self._screen, keys)

    def fg(self) -> None:
        os.write(self._command, b"fg\n")

    def close(self) -> None:
        """Close the window."""
        if self._screen is not None:
            os.close(self._screen)
        self._screen = None


@contextlib.contextmanager
def terminal(
    *before: str, program: str = TELL, run: str = RUN, place: str = "foreground"
) -> Iterator[Terminal]:
    """Run a program under us, under the command ``before``, as a job of a shell at a terminal."""
    screen, device = pty.openpty()
    commands, command = os.pipe()
    words = [*before, *python(run, *python(program))]
    try:
        with subprocess.Popen(
            python(SHELL, str(commands), place, *words),
            cwd=ROOT,
            stdin=device,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[commands],
            start_new_session=True,
        ) as process:
            os.close(device)
            made = Terminal(Running(process), screen, command)
            try:
                yield made
            finally:
                made.close()
                if process.poll() is None:
                    process.kill()
    finally:
        os.close(commands)
        os.close(command)


def parent(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def state(pid: int) -> str:
    """R, S, T, Z, ...: as ``ps`` has it."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_passed_back(status: int) -> None:
    assert run_program(python(f"import sys; sys.exit({status})"), os.environ) == status


def test_a_program_that_a_signal_ended_has_the_shells_status() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_program(python(code), os.environ) == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("no-such-program-anywhere", "No such file or directory; check its name and PATH"),
        ("/", "Permission denied; it is a directory"),
        ("a-plain-file", "Permission denied; see whether it may be executed"),
        ("a-script", "No such file or directory; what its first line names, or the loader"),
        (
            "a-file-of-nothing",
            "Exec format error; see whether it is of this machine, or a script whose first line",
        ),
        ("a\0b", "null byte"),
    ],
)
def test_a_program_that_cannot_be_started_is_named_with_the_cause(
    word: str, cause: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, text, mode in (
        ("a-plain-file", "", 0o644),
        ("a-script", "#!/no/such/interpreter\n", 0o755),
        ("a-file-of-nothing", "nothing\n", 0o755),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    with pytest.raises(CommandError, match=cause) as caught:
        run_program([word], os.environ)
    assert str(caught.value).startswith(f"cannot start {word}: ")


def test_a_machine_that_gives_no_descriptors_is_the_cause_and_not_the_program_s_name() -> None:
    """Symptom: "cannot start true: Too many open files; check its name and PATH"."""
    pytest.importorskip("resource", reason="there is no such limit here")
    code = (
        "import os, resource, sys\nfrom emissary_lib.cli.program import run_program\n"
        "import subprocess, signal, selectors, socket\n"
        "from emissary_lib.exceptions import LocalResourceError\n"
        "open_now = len(os.listdir('/dev/fd')) - 1\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 2, hard))\n"
        "try: run_program(['true'], os.environ)\n"
        "except LocalResourceError as exc: print(exc)\n"
    )
    done = subprocess.run(python(code), cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert "Too many open files" in done.stdout
    assert "ulimit -n" in done.stdout


#: Runs a program, and listens, as a user who may have no further process or thread: root may always.
ALONE = """
import os, resource, socket, subprocess, sys, threading
from emissary_lib.cli.program import run_program
from emissary_lib.client.forward import Forward
from emissary_lib.exceptions import LocalResourceError
import datetime, encodings.idna, selectors, signal

if os.geteuid() == 0:
    os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try: run_program(["/bin/true"], os.environ)
except LocalResourceError as exc: print(exc)
try: Forward(("127.0.0.1", 0), lambda sock, forwarded: None).__enter__()
except LocalResourceError as exc: print(exc)
"""


def test_a_user_who_may_have_no_further_process_is_told_so_and_not_to_look_at_path() -> None:
    """Symptom: "cannot start job: Resource temporarily unavailable; check its name and PATH"."""
    resource = pytest.importorskip("resource", reason="there is no such limit here")
    if not hasattr(resource, "RLIMIT_NPROC"):
        pytest.skip("there is no such limit here")
    done = subprocess.run(python(ALONE), cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    if "os.setuid" in done.stderr:
        pytest.skip("root, who has no such limit, may not be another user here")
    assert done.stderr == ""
    process, thread = done.stdout.splitlines()
    assert "Resource temporarily unavailable" in process
    assert "can't start new thread" in thread
    assert [line.count("ulimit -u") for line in (process, thread)] == [1, 1]


def test_the_handlers_of_signals_are_put_back() -> None:
    numbers = sorted(signal.valid_signals())
    before = [signal.getsignal(number) for number in numbers]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run_program(python(""), os.environ)
    with pytest.raises(CommandError):
        run_program(["no-such-program-anywhere"], os.environ)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert signal.set_wakeup_fd(-1) == -1


def test_standard_input_that_ends_ends_the_program_and_us_and_costs_no_time() -> None:
    """Symptom elsewhere (aws-cli #9344): a tunnel whose pipe was closed spun at 84 % of a processor."""
    reads = "import sys; sys.stdin.read(); sys.exit(7)"
    with subprocess.Popen(python(RUN, *python(reads)), cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(HANG) == 7


def test_a_signal_for_us_alone_is_passed_on_and_the_program_decides() -> None:
    with running() as job:
        job.ready()
        for name in [*NAMES, *NAMES]:
            job.process.send_signal(getattr(signal, name))
            assert job.line() == name
        job.process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_a_signal_for_the_whole_group_reaches_the_program_once() -> None:
    with running() as job:
        job.ready()
        for _ in range(2):
            for name in NAMES:
                os.killpg(job.process.pid, getattr(signal, name))
                assert job.line() == name
            job.settle()
        job.process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


@pytest.mark.parametrize("send", ["os.kill(os.getpid(), signal.SIGTERM)", "os.killpg(0, signal.SIGTERM)"])
def test_what_came_before_the_program_was_there_is_passed_on(send: str) -> None:
    early = f"""\
import os, signal, sys
from emissary_lib.cli import program
start = program._start
def after_a_signal(*given):
    {send}
    return start(*given)
program._start = after_a_signal
"""
    with running(program="import signal; signal.pause()", run=early + RUN) as job:
        assert job.end() == 128 + signal.SIGTERM


def test_what_the_group_got_is_passed_on_when_it_then_comes_to_us_alone() -> None:
    with running() as job:
        job.ready()
        os.killpg(job.process.pid, signal.SIGTERM)
        assert job.line() == "SIGTERM"
        job.settle()
        job.process.send_signal(signal.SIGTERM)
        assert job.line() == "SIGTERM"
        job.process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_timeout_which_signals_us_and_then_the_group_stops_the_program_once() -> None:
    """Symptom: `timeout 1 emissary exec T -- job` gave the job SIGTERM twice."""
    with running("timeout", "1000") as job:
        job.ready()
        job.process.send_signal(signal.SIGTERM)  # it does with this what it does when the time is up
        assert job.line() == "SIGTERM"
        (ours,) = children(job.process.pid)
        os.kill(ours, signal.SIGUSR1)
        assert job.rest() == ["SIGUSR1"]
        assert job.end() == 7


def test_timeout_that_signals_us_alone_stops_the_program() -> None:
    with running("timeout", "--foreground", "1000") as job:
        job.ready()
        job.process.send_signal(signal.SIGTERM)
        assert job.line() == "SIGTERM"
        (ours,) = children(job.process.pid)
        os.kill(ours, signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_systemd_which_signals_one_process_of_a_service_after_the_other_stops_the_program_once() -> None:
    with running() as job:
        job.ready()
        for pid in (job.process.pid, *children(job.process.pid)):
            os.kill(pid, signal.SIGTERM)
        assert job.line() == "SIGTERM"
        job.process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_a_program_that_has_left_our_group_gets_what_the_group_got() -> None:
    with running(program="import os; os.setpgid(0, 0)\n" + TELL) as job:
        program = job.ready()
        try:
            os.killpg(job.process.pid, signal.SIGTERM)
            assert job.line() == "SIGTERM"
            job.process.send_signal(signal.SIGUSR1)
            assert (job.rest(), job.end()) == (["SIGUSR1"], 7)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_a_signal_that_was_ignored_when_we_started_is_neither_heeded_nor_passed_on(name: str) -> None:
    """Symptom: SIGHUP was handled under nohup, so that the job died with the terminal."""
    ignored = f"import signal; signal.signal(signal.{name}, signal.SIG_IGN)\n"
    heeds = (
        f"import signal; print(signal.getsignal(signal.{name}) == signal.SIG_IGN, flush=True)\n"
        f"signal.signal(signal.{name}, lambda *_: None)\n"
    )
    with running(program=heeds + TELL, run=ignored + RUN) as job:
        assert job.line() == "True"  # it was told the same as we
        job.ready()
        job.process.send_signal(getattr(signal, name))
        job.process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_under_nohup_program_and_tunnels_outlive_the_terminal() -> None:
    with terminal("nohup") as at:
        program = at.shell.ready()
        ours = parent(program)
        at.close()
        assert at.shell.end() == -signal.SIGHUP  # before that, the kernel has sent it to all of its terminal
        os.kill(ours, signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1"]
        wait_until(lambda: not os.path.exists(f"/proc/{ours}"), "our end")


def test_a_closed_terminal_reaches_the_program_once() -> None:
    with terminal() as at:
        ours = parent(at.shell.ready())
        at.close()
        assert at.shell.line() == "SIGHUP"
        os.kill(ours, signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1"]
        wait_until(lambda: not os.path.exists(f"/proc/{ours}"), "our end")


def test_a_closed_terminal_that_tells_only_us_reaches_the_program_too() -> None:
    """Whoever leads the session, as under ``docker run -it``, is told alone."""
    take = "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    screen, device = pty.openpty()
    with subprocess.Popen(
        python(take + RUN, *python(TELL)),
        cwd=ROOT,
        stdin=device,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(device)
        job = Running(process)
        job.ready()
        os.close(screen)
        assert job.line() == "SIGHUP"
        process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_ctrl_c_at_a_terminal_reaches_the_program_once() -> None:
    """The terminal sends it to the program as well; twice would make many programs give up."""
    with terminal() as at:
        ours = parent(at.shell.ready())
        for _ in range(2):
            at.type(b"\x03")
            assert at.shell.line() == "SIGINT"
            at.shell.settle(ours)
        os.kill(ours, signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1", "status", "7"]


def test_ctrl_z_stops_us_with_the_program_and_fg_has_both_go_on() -> None:
    with terminal() as at:
        program = at.shell.ready()
        ours = parent(program)
        for _ in range(2):
            at.type(b"\x1a")
            assert at.shell.line() == "stopped by SIGTSTP"
            assert (state(program), state(ours)) == ("T", "T")
            at.fg()
            wait_until(lambda: "T" not in (state(program), state(ours)), "that both go on")
        at.type(b"\x03")
        assert at.shell.line() == "SIGINT"
        os.kill(ours, signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1", "status", "7"]


@pytest.mark.parametrize("name", ["SIGTSTP", "SIGSTOP"])
def test_a_program_that_stops_itself_gives_the_terminal_back(name: str) -> None:
    """As a pager does at Ctrl-Z, and bash at `suspend`: who waits for us would wait for ever."""
    with terminal(program=f"import os, signal; os.kill(os.getpid(), signal.{name})\n" + TELL) as at:
        assert at.shell.line() == f"stopped by {name}"
        at.fg()
        os.kill(parent(at.shell.ready()), signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1", "status", "7"]


def test_a_program_that_does_not_stop_at_ctrl_z_keeps_the_terminal_and_gets_it_once() -> None:
    with terminal(program=TELL.replace("signal.SIGALRM}", "signal.SIGALRM, signal.SIGTSTP}")) as at:
        ours = parent(at.shell.ready())
        at.type(b"\x1a")
        assert at.shell.line() == "SIGTSTP"
        at.type(b"\x03")
        assert at.shell.line() == "SIGINT"
        os.kill(ours, signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1", "status", "7"]


def test_a_program_that_reads_a_terminal_from_the_background_stops_us_until_fg() -> None:
    reads = "import sys; print(sys.stdin.readline().strip(), flush=True)\n"
    with terminal(program=reads + TELL, place="background") as at:
        assert at.shell.line() == "stopped by SIGTTIN"
        at.fg()
        at.type(b"hello\n")
        assert at.shell.line() == "hello"
        os.kill(parent(at.shell.ready()), signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1", "status", "7"]


def test_stopping_and_continuing_us_alone_does_it_to_the_program() -> None:
    with terminal() as at:
        program = at.shell.ready()
        ours = parent(program)
        os.kill(ours, signal.SIGTSTP)
        assert at.shell.line() == "stopped by SIGTSTP"
        assert state(program) == "T"
        os.kill(ours, signal.SIGCONT)
        wait_until(lambda: state(program) != "T", "that the program goes on")
        at.fg()  # for the shell's sake
        os.kill(ours, signal.SIGUSR1)
        assert at.shell.rest() == ["SIGUSR1", "status", "7"]


def test_a_program_that_somebody_stops_where_there_is_no_terminal_leaves_us_running() -> None:
    with running() as job:
        program = job.ready()
        os.kill(program, signal.SIGSTOP)
        wait_until(lambda: state(program) == "T", "the stop")
        os.kill(program, signal.SIGCONT)
        job.process.send_signal(signal.SIGUSR1)
        assert (job.rest(), job.end()) == (["SIGUSR1"], 7)


def test_files_that_we_have_inherited_are_the_program_s_and_others_are_not() -> None:
    """As those of a shell's <(...), which are told by their numbers."""
    reader, writer = os.pipe()
    reads = f"import os; print(os.read({reader}, 9).decode(), len(os.listdir('/proc/self/fd')), flush=True)\n"
    try:
        os.write(writer, b"inherited")
        done = subprocess.run(
            python(RUN, *python(reads)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[reader],
            timeout=HANG,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert done.stdout == "inherited 5\n"  # with standard input, output and error, and that of the listing


def test_no_process_of_ours_is_left_behind() -> None:
    with running() as job:
        job.ready()
        witness = children(job.process.pid)
        assert len(witness) == 2
        os.killpg(job.process.pid, signal.SIGUSR1)
        assert job.end() == 7
        assert not any(os.path.exists(f"/proc/{pid}") for pid in witness)
    with running() as job:
        job.ready()
        left = children(job.process.pid)
        job.process.kill()
        wait_until(lambda: sum(os.path.exists(f"/proc/{pid}") for pid in left) == 1, "the witness's end")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
