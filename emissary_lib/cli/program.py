"""Running a program as if it ran in our place: its terminal, its signals, its stops and its end."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

from emissary_lib.cli.signals import PASSED_ON, Gathered, Wait, Witness, handle_signals, heeded, stop_as
from emissary_lib.exceptions import NOTHING_LEFT, CommandError, local_resource_error
from emissary_lib.exit_status import SIGNALLED
from emissary_lib.system import JOB_CONTROL, signals

#: Tells of a child, where there is job control.
_OF_CHILD: Final = signals("SIGCHLD")


def run_program(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a program, and wait for its end.

    It has our open files, and is of our process group, as under ``env``. What a terminal, a shell or ``kill``
    sends to the group, it has got by itself; what was sent to us alone is passed on, a moment later. What was
    ignored when we were started it ignores, too. If it stops, as by Ctrl-Z, so do we.

    Args:
        words: The program and its arguments.
        environ: Its environment.

    Returns:
        Its exit status, or 128 and its signal.

    Raises:
        CommandError: It cannot be started.
        LocalResourceError: No descriptor or process is left for it.
        ValueError: If called outside the main thread.

    Blocking: until its end.
    """
    gathered = Gathered()

    def came(number: int, _frame: FrameType | None) -> None:
        if number not in _OF_CHILD:  # it only ends the wait
            gathered.came(number, time.monotonic())

    with handle_signals(came, *heeded(PASSED_ON), *_OF_CHILD) as wait, Witness() as witness:
        program = _start(words, environ)
        for number in gathered.take(math.inf):  # what came before it was there it cannot have got
            witness.saw(number)
            _send(program, number)
        status = _follow(program, gathered, witness, wait)
    return SIGNALLED - status if status < 0 else status


def _start(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        # What we have inherited, as a shell's <(...), it inherits; what we have opened ourselves it does not.
        return subprocess.Popen(words, env=environ, close_fds=False)
    except (OSError, ValueError) as exc:  # ValueError: a zero byte in a word
        if isinstance(exc, OSError) and exc.errno in NOTHING_LEFT | {errno.EAGAIN}:  # of a fork, the latter
            raise local_resource_error(exc) from exc
        raise CommandError(f"cannot start {words[0]}: {_why(exc, words[0], environ)}") from exc


def _why(error: OSError | ValueError, name: str, environ: Mapping[str, str]) -> str:
    """Why a program cannot be started, and what to do about it."""
    if not isinstance(error, OSError):
        return str(error)
    match error.errno:
        case errno.EACCES if os.path.isdir(name):
            advice = "it is a directory"
        case errno.EACCES:
            advice = "see whether it may be executed, as by chmod +x"
        case errno.ENOEXEC:
            advice = "see whether it is of this machine, or a script whose first line names no interpreter"
        case errno.E2BIG:
            advice = "its arguments and its environment are too long together"
        case errno.ENOENT if shutil.which(name, path=environ.get("PATH")):
            advice = "what its first line names, or the loader that it wants, is not there"
        case _:
            advice = "check its name and PATH"
    return f"{error.strerror}; {advice}"


def _follow(program: subprocess.Popen[bytes], gathered: Gathered, witness: Witness, wait: Wait) -> int:
    """See to its signals and its stops until it ends."""
    if not JOB_CONTROL:
        threading.Thread(
            target=_wake_at_end, args=(program, wait), name="emissary-program", daemon=True
        ).start()
    while True:
        stopped_by = _look(program)
        if program.returncode is not None:
            return program.returncode
        if stopped_by:
            stop_as(stopped_by)
            continue
        for number in gathered.take(time.monotonic()):
            if not (witness.saw(number) and _in_our_group(program)):
                _send(program, number)
        wait(gathered.seconds(time.monotonic()))


def _look(program: subprocess.Popen[bytes]) -> int | None:
    """Note its end if it has ended; gives the signal that has stopped it since the last look."""
    if sys.platform == "win32" or not JOB_CONTROL:  # the one tells mypy the other
        program.poll()
        return None
    pid, status = os.waitpid(program.pid, os.WNOHANG | os.WUNTRACED)
    if not pid:
        return None
    if os.WIFSTOPPED(status):
        return os.WSTOPSIG(status)
    program.returncode = os.waitstatus_to_exitcode(status)
    return None


def _wake_at_end(program: subprocess.Popen[bytes], wait: Wait) -> None:
    program.wait()
    wait.wake()


def _in_our_group(program: subprocess.Popen[bytes]) -> bool:
    """Whether it gets what our group gets: a shell makes a group of its own."""
    if sys.platform == "win32" or not JOB_CONTROL:
        return True
    try:
        return os.getpgid(program.pid) == os.getpgrp()
    except OSError:  # it has ended
        return True


def _send(program: subprocess.Popen[bytes], number: int) -> None:
    try:
        program.send_signal(number)
    except PermissionError:  # it runs as another user: who signalled us could not either
        pass
    except ValueError:  # Windows: from before it was there, and nothing but an end can be sent to it
        program.terminate()
