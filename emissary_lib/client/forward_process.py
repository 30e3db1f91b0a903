"""A forwarded port in a process of its own: for drivers that let no other thread of theirs run meanwhile.

Both processes send each other pickles over pipes; neither takes any from anybody else. The key goes that way
too, so it stands on no command line and in no environment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from emissary_lib.client import drain
from emissary_lib.client.forward import Forward, ForwardedAddress
from emissary_lib.client.listening import LocalAddress
from emissary_lib.exceptions import ConfigError, EmissaryError, LocalResourceError, local_resource_error
from emissary_lib.system import in_child

if TYPE_CHECKING:
    from emissary_lib.client.dialer import Dialer

#: What the process runs. It begins with the way to our modules, which the program may have changed.
_CHILD: Final = """\
import pickle, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = pickle.load(sys.stdin.buffer)
from emissary_lib.client.forward_process import serve
serve()
"""

#: Seconds between two looks at what tells nobody when it has changed.
_LOOK: Final = 0.05


class ForwardProcess(Forward):
    """As :class:`Forward`, served by a child process, which ends when this one does, however that ends.

    Args:
        dialer: Its like is made in the child.
        target: Where it leads.
        listen: As of :class:`Forward`.
        timeout: Seconds for each dial; ``None`` for no limit.

    Raises:
        ConfigError: The dialer has what another process cannot be given.
    """

    def __init__(
        self,
        dialer: Dialer,
        target: tuple[str, int],
        listen: LocalAddress,
        timeout: float | None,
    ) -> None:
        super().__init__(listen, lambda sock, accepted: None, owner=dialer)
        try:
            self._order = pickle.dumps((dialer, target, listen, timeout))
        except TypeError as exc:
            raise ConfigError(f"a port cannot be served by another process: {exc}") from exc
        self._asking = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._process = os.getpid()
        self._answer: object = None
        self._answered = threading.Event()

    def __enter__(self) -> ForwardedAddress:
        """Start the process; gives the address once it listens.

        Raises:
            LocalResourceError: It cannot be started, or ended at once.
            OSError: As of :class:`Forward`.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EMISSARY_")}
        try:
            self._child = process = subprocess.Popen(
                [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
            )
        except OSError as exc:
            raise local_resource_error(exc) from exc
        _running.add(self)
        try:
            self._send(sys.path)
            self._send(self._order)
            kind, *told = self._receive()
            if kind == "refused":
                raise told[0]
            thread = threading.Thread(target=self._listen, name="emissary-forward-process", daemon=True)
            thread.start()
            self._thread = thread
        except (EOFError, BrokenPipeError) as exc:
            status = process.wait()
            self._abandon()
            text = f"the process that was to serve the port ended with status {status}; see standard error"
            raise LocalResourceError(text) from exc
        except BaseException:
            self._abandon()
            raise
        drain.add_listener(self.stop, self._owner)
        return ForwardedAddress(self, [_Place(address, path) for address, path in told])

    def close(self) -> None:
        """As of :class:`Forward`; the process ends with its last connection."""
        if not self._ask("close"):  # no connection is left
            self._end()
        drain.discard_listener(self.stop)

    def stop(self) -> None:
        """As :meth:`close`: who ends the listening ends the wait for what was written, too."""
        self.close()

    def finish(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """As of :class:`Forward`."""
        lost = bool(self._ask("finish", stopped))
        self._end()
        drain.discard_listener(self.stop)
        return lost

    def give_up_dialling(self) -> None:
        """As of :class:`Forward`."""
        self._ask("give_up_dialling")

    def _ask(self, command: str, stopped: Callable[[], bool] = lambda: False) -> object:
        """Have the process do it, and wait until it has; gives what came of it, ``None`` if it has ended."""
        with self._asking:
            if self._child is None or self._process != os.getpid():
                return None
            self._answer = None
            self._answered.clear()
            try:
                self._send(command)
            except (OSError, ValueError):  # it has ended
                return None
            while not self._answered.wait(_LOOK):
                if stopped() or self._thread is None or not self._thread.is_alive():
                    break
            return self._answer

    def _end(self) -> None:
        """The process has nothing more to do, and ends by itself."""
        process, self._child = self._child, None
        if process is None or self._process != os.getpid():
            return
        assert process.stdin
        with contextlib.suppress(OSError):
            process.stdin.close()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _abandon(self) -> None:
        process, self._child = self._child, None
        if process is not None:
            process.kill()
            process.communicate()

    def _send(self, what: object) -> None:
        assert self._child and self._child.stdin
        pickle.dump(what, self._child.stdin)
        self._child.stdin.flush()

    def _receive(self) -> Any:
        assert self._child and self._child.stdout
        return pickle.load(self._child.stdout)

    def _listen(self) -> None:
        process = self._child
        assert process and process.stdout
        with process.stdout as stream, contextlib.suppress(EOFError, OSError):
            while True:
                kind, *told = pickle.load(stream)
                if kind == "log":
                    name, level, text = told
                    logging.getLogger(name).log(level, "%s", text)
                elif kind == "failed":
                    self._note(*told)
                else:
                    (self._answer,) = told
                    self._answered.set()
        assert process.stdin
        with contextlib.suppress(OSError):
            process.stdin.close()
        status = process.wait()
        self._answered.set()
        if status:
            text = f"the process that served a forwarded port ended with status {status}; its connections too"
            self._failed("%s", EmissaryError(text))

    def _note(self, error: Exception) -> None:
        """A connection failed, which was logged."""
        if isinstance(error, EmissaryError):
            self.last_error = error
        self.on_failure(error)

    def forget(self) -> None:
        """A forked child: the process is its parent's, and must not live on for us."""
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._child.stdin.fileno())


class _Place:
    """Where the process listens, as it says."""

    def __init__(self, address: tuple[str, int], path: str | None) -> None:
        self.address = address
        self.path = path


_running: weakref.WeakSet[ForwardProcess] = weakref.WeakSet()


def _forget() -> None:
    for each in list(_running):
        each.forget()


in_child(_forget)


class _ToParent(logging.Handler):
    """Has the parent log what is logged here; on standard error if it has gone."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell("log", record.name, record.levelno, record.getMessage())
        except OSError:
            if record.levelno >= logging.WARNING and logging.lastResort:
                logging.lastResort.handle(record)


def serve() -> None:
    """What the process does, until it has nothing to do or its parent has gone."""
    orders: BinaryIO = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints there is no answer
    telling = threading.Lock()

    def tell(*what: object) -> None:
        with telling:
            pickle.dump(what, answers)
            answers.flush()

    def tell_failure(error: Exception) -> None:
        with contextlib.suppress(OSError):
            tell("failed", error)

    root = logging.getLogger("emissary_lib")
    root.addHandler(_ToParent(tell))
    root.setLevel(logging.INFO)
    root.propagate = False
    dialer, target, listen, timeout = pickle.loads(pickle.load(orders))
    forward = dialer.forward(target, listen, timeout)
    forward.on_failure = tell_failure
    try:
        address = forward.__enter__()
    except OSError as exc:
        tell("refused", exc)
        return
    tell("ready", *((each, address.path) for each in address.every))
    closed, gone = threading.Event(), threading.Event()
    orders_taken = threading.Thread(target=_obey, args=(forward, orders, tell, closed, gone), daemon=True)
    orders_taken.start()
    closed.wait()
    while drain.is_open(forward) and not gone.is_set():
        gone.wait(_LOOK)
    forward.finish()
    dialer.close()  # which ends its relays: there is no exit that would
    sys.stderr.flush()
    os._exit(0)  # the other thread may hold the lock of standard input, which an orderly exit would want


def _obey(
    forward: Forward,
    orders: BinaryIO,
    tell: Callable[..., None],
    closed: threading.Event,
    gone: threading.Event,
) -> None:
    """Do as the parent says, until it has gone."""
    try:
        while True:
            command = pickle.load(orders)
            lost = getattr(forward, command)()
            tell("done", lost if command == "finish" else drain.is_open(forward))
            closed.set()
    except (EOFError, OSError):
        gone.set()
        closed.set()
