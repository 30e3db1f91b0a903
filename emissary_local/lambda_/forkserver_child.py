"""The process that execution environments are forked from. Run as a script, never imported.

Importing boto3 and its like takes longer than all else a cold start does. This process does it once; each
execution environment is then a fork of it, in which only the function's own modules are still to be
imported. To keep that honest it imports third-party packages only: it runs as a bare script
(``python -P forkserver_child.py FD``), so that none of our own packages is in ``sys.modules``, and neither
AWS's runtime client (it reads the environment when imported) nor any function code is imported before
the fork.

It has one thread and no signal handler, talks JSON over one SOCK_SEQPACKET socket, and serves until that
socket ends; then it kills what it forked and leaves.

Commands: ``{"id", "env", "cwd", "log"}``: fork one environment; with ``"skew"``, seconds by which its clock
is ahead.
Answers: ``{"ready": true}``; ``{"id", "pid"}`` with the child's pidfd attached; ``{"id", "status"}`` with
the wait status when it has ended; ``{"id", "error"}`` when it could not be forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Any

#: Imported before the first fork, if installed. Not ``runtime_client``, AWS's C extension: it takes the
#: Runtime API's address from the environment when it is loaded, so it must be loaded after the fork.
PRELOADED = (
    "aws_lambda_powertools.logging", "aws_lambda_powertools.metrics",
    "aws_lambda_powertools.utilities.parameters",
    "awslambdaric.lambda_context", "awslambdaric.lambda_config", "awslambdaric.lambda_runtime_marshaller",
    "boto3.session", "botocore.config", "botocore.httpsession", "botocore.parsers", "botocore.retryhandler",
    "boto3.dynamodb.types", "http.client", "websocket",
)  # fmt: skip

#: Largest command or answer, in bytes; an environment's variables are at most 4 KB on AWS.
MAX_COMMAND = 256 * 1024

#: How much the environments stand back for what stands in for AWS, which never gets slow because functions
#: are busy. Source: sched(7), "The nice value".
NICE = 5

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(control_fd: int) -> None:
    """Serve fork commands until the other end of ``control_fd`` is closed; then kill every child."""
    _die_with_parent(os.getppid())
    gc.disable()
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # keeps the collector of every child from touching, and so copying, these pages
    with socket.socket(fileno=control_fd) as control, selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        children: dict[int, tuple[str, int]] = {}  # pidfd -> (environment id, pid)
        _send(control, {"ready": True})
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    _report_exit(control, selector, children, key.fd)
                    continue
                try:
                    command = control.recv(MAX_COMMAND)
                except ConnectionError:  # it ended with answers of ours unread
                    command = b""
                if not command:
                    _kill_all(children)
                    return
                _spawn(control, selector, children, json.loads(command))


def _spawn(
    control: socket.socket,
    selector: selectors.BaseSelector,
    children: dict[int, tuple[str, int]],
    command: dict[str, object],
) -> None:
    environment = str(command["id"])
    try:
        pid = os.fork()
    except OSError as exc:
        _send(control, {"id": environment, "error": f"cannot fork: {exc}"})
        return
    if pid == 0:
        _become_environment(command)  # never returns
    # Nobody else waits for this child, so its pid cannot have been reused yet.
    pidfd = os.pidfd_open(pid)
    children[pidfd] = (environment, pid)
    selector.register(pidfd, selectors.EVENT_READ)
    answer = json.dumps({"id": environment, "pid": pid}).encode()
    with contextlib.suppress(OSError):
        socket.send_fds(control, [answer], [pidfd])


def _report_exit(
    control: socket.socket,
    selector: selectors.BaseSelector,
    children: dict[int, tuple[str, int]],
    pidfd: int,
) -> None:
    environment, pid = children.pop(pidfd)
    selector.unregister(pidfd)
    status = _reap(pid)
    os.close(pidfd)
    _send(control, {"id": environment, "status": status})


def _reap(pid: int) -> int:
    """Wait for an ended child, killing whatever else is left in its process group; the wait status."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # the leader is not reaped, so the group id is still its own
    return os.waitpid(pid, 0)[1]


def _kill_all(children: dict[int, tuple[str, int]]) -> None:
    for pidfd in children:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for _, pid in children.values():
        _reap(pid)


def _send(control: socket.socket, answer: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the other end is gone: the next recv says so
        control.send(json.dumps(answer).encode())


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, also by SIGKILL (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the call


def _become_environment(command: dict[str, object]) -> None:
    """Turn this fork into an execution environment and run AWS's runtime client; never returns."""
    code = 1
    try:
        _set_up(command)
        _run_bootstrap()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # not sys.exit: the parent's frames must not be unwound here


def _set_up(command: dict[str, object]) -> None:
    _die_with_parent(_fork_server_pid)
    # A group, so that all it leaves behind can be killed. Not a session of its own, though: where the kernel
    # shares the processors out by session (sched(7), "The autogroup feature"), every environment would count
    # for as much as the whole local cloud, its table and the dialers together, and starve them.
    os.setpgid(0, 0)
    os.nice(NICE)
    variables, task_root = command["env"], str(command["cwd"])
    assert isinstance(variables, dict)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(str(command["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 65_536)  # the control socket and the other environments' pidfds
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    os.chdir(task_root)
    sys.path.insert(0, task_root)
    sys.argv = ["bootstrap", str(variables["_HANDLER"])]
    gc.enable()
    skew = command.get("skew")
    if isinstance(skew, float):
        _shift_clock(skew)


def _shift_clock(seconds: float) -> None:
    """Let this process read a clock that is ``seconds`` ahead, in ``time`` and ``datetime``.

    For the fault that shifts clocks only, and before any function code is loaded. Modules that hold the real
    functions by name get the shifted ones too. C extensions with a clock of their own do not; time-machine
    would reach those, but an artifact runs with Lambda's own packages alone, and it loads 280 modules.
    """
    import datetime

    original = {name: getattr(time, name) for name in ("gmtime", "localtime", "ctime", "strftime")}
    real_time, real_ns = time.time, time.time_ns
    real_datetime: Any = datetime.datetime  # Any: a variable, as the name itself is about to change
    nanoseconds = round(seconds * 1e9)

    def now() -> float:
        return real_time() + seconds

    def now_ns() -> int:
        return real_ns() + nanoseconds

    def gmtime(at: float | None = None) -> object:
        return original["gmtime"](now() if at is None else at)

    def localtime(at: float | None = None) -> object:
        return original["localtime"](now() if at is None else at)

    def ctime(at: float | None = None) -> object:
        return original["ctime"](now() if at is None else at)

    def strftime(form: str, *at: object) -> object:
        return original["strftime"](form, *(at or (localtime(),)))

    class Like(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real_datetime)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real_datetime)

    class ShiftedDatetime(real_datetime, metaclass=Like):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return real_datetime.fromtimestamp(now(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return real_datetime.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return real_datetime.fromtimestamp(now())

    shifted = {
        id(real_time): now, id(real_ns): now_ns, id(real_datetime): ShiftedDatetime,
        id(original["gmtime"]): gmtime, id(original["localtime"]): localtime,
        id(original["ctime"]): ctime, id(original["strftime"]): strftime,
    }  # fmt: skip
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if id(value) in shifted and module.__name__ != __name__:
                setattr(module, name, shifted[id(value)])


def _run_bootstrap() -> None:
    from awslambdaric import bootstrap
    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

    client = LambdaRuntimeClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
    bootstrap.run(os.environ["_HANDLER"], client)


_fork_server_pid = os.getpid()

if __name__ == "__main__":
    main(int(sys.argv[1]))
