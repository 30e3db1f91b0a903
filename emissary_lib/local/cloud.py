"""The local cloud's front door: run a SAM template on this machine."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import secrets
import selectors
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, TextIO

from emissary_lib.local.errors import LocalCloudError
from emissary_lib.local.faults import Faults
from emissary_lib.local.limits import Limits
from emissary_lib.local.meter import MeterSnapshot
from emissary_lib.local.processes import check_requirements
from emissary_lib.protocol.keys import Key

#: How long the start may take, and an answer of the cloud process, in seconds.
START_TIMEOUT: Final = 60.0
ANSWER_TIMEOUT: Final = 10.0

#: How often :func:`run_foreground` looks whether the cloud process is alive, in seconds.
LOOK_EVERY: Final = 0.5

#: How long the cloud process may take to end all it started before it is killed, in seconds.
CLOSE_TIMEOUT: Final = 10.0


class LocalCloud:
    """Runs a SAM template: API Gateway, Lambda, DynamoDB, each as strict as AWS. Linux only.

    A context manager: entering starts it and returns when everything answers, leaving ends every process,
    socket and temporary file. It sets the template parameters ``AuthKeys`` (to a fresh random key) and
    ``AllowedTargets``, if the template declares them.

    Args:
        template: The SAM template; the functions' code is looked for beside it.
        targets: Hosts and ports that may be reached.
        faults: What to do to messages on purpose.
        account_concurrency: Lambda executions at once, of all functions together.
        tls: Serve ``wss://`` under an authority made for this run; see ``ssl_context``.
        latency: ``none``, or ``aws`` for delays as measured there.
        fresh_environments: Give every invocation a new process: every start is a cold start.
        parameters: More template parameters; they win over the two above.
        limits: API Gateway's numbers, for tests that want to meet one sooner.

    Attributes:
        key: The shared key that dialers use.

    Thread safety: all methods may be called from any thread.
    """

    def __init__(
        self,
        template: str | os.PathLike[str] = "template.yaml",
        *,
        targets: Sequence[tuple[str, int]] = (),
        faults: Faults | None = None,
        account_concurrency: int = 1000,
        tls: bool = False,
        latency: str = "none",
        fresh_environments: bool = False,
        parameters: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.key = Key(1, secrets.token_bytes(32))
        self._template = Path(template).resolve()
        self._given = dict(parameters or {})
        self._ours = {
            "AuthKeys": json.dumps([key_json(self.key)]),
            "AllowedTargets": json.dumps([{"host": host, "port": port} for host, port in targets]),
        }
        self._settings: dict[str, Any] = {
            "template": str(self._template),
            "faults": dataclasses.asdict(faults or Faults()),
            "limits": dataclasses.asdict(limits or Limits()),
            "latency": latency,
            "account_concurrency": account_concurrency,
            "fresh_environments": fresh_environments,
            "tls": tls,
        }
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._ready: dict[str, Any] = {}
        self._received = b""

    def start(self) -> None:
        """Start everything; returns when it answers, within :data:`START_TIMEOUT`.

        Raises:
            LocalCloudError: If the template is bad (:class:`TemplateError`), a package is missing, this is
                not Linux, or a process could not start; the text names the cause.
        """
        check_requirements()
        from emissary_lib.local.template import declared_parameters, read_template  # needs the local extra

        with self._lock:
            if self._process is not None:
                raise LocalCloudError("this local cloud runs already")
            declared = declared_parameters(self._template)
            ours = {name: value for name, value in self._ours.items() if name in declared}
            parameters = {**ours, **self._given}
            read_template(self._template, parameters)  # so that its faults are raised here, as they are
            self._directory = Path(tempfile.mkdtemp(prefix="emissary-local-"))
            settings = {**self._settings, "parameters": parameters, "directory": str(self._directory)}
            try:
                with open(self._directory / "cloud.log", "ab") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "emissary_lib.local.server"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is ours to handle
                        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                    )
                answer = self._ask(settings, START_TIMEOUT)
                if "error" in answer:
                    raise LocalCloudError(f"the local cloud could not start: {answer['error']}{self._tail()}")
                self._ready = answer["ready"]
            except BaseException:
                self._stop()
                raise

    def close(self) -> None:
        """End every process, and remove the logs. Idempotent; at most :data:`CLOSE_TIMEOUT` seconds."""
        with self._lock:
            self._stop()

    def __enter__(self) -> LocalCloud:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The WebSocket API's URL, for dialers."""
        return str(self._known("url"))

    @property
    def ca_file(self) -> str | None:
        """PEM file of the authority behind the certificate; None without ``tls``."""
        ca_file = self._known("ca_file")
        return None if ca_file is None else str(ca_file)

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A client context that trusts this cloud; None without ``tls``."""
        ca_file = self.ca_file
        return None if ca_file is None else ssl.create_default_context(cafile=ca_file)

    @property
    def pid(self) -> int:
        """Process id of the cloud process."""
        if self._process is None:
            raise LocalCloudError("the local cloud is not running")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the cloud process is running."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def meter(self) -> MeterSnapshot:
        """What AWS would have billed so far.

        Raises:
            LocalCloudError: If the cloud is not running or does not answer.
        """
        with self._lock:
            return MeterSnapshot.from_json(
                json.dumps(self._ask({"command": "meter"}, ANSWER_TIMEOUT)["meter"])
            )

    def logs(self, function: str | None = None) -> str:
        """What the functions wrote to their logs so far; of one function (its logical id), or of all."""
        known = self._known("functions")
        directory = self._directory
        assert directory is not None
        parts = []
        for name in known if function is None else [function]:
            path = directory / f"{name}.log"
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            parts += [f"--- {name}\n{text}"] if function is None and text else [text]
        return "".join(parts)

    def _known(self, name: str) -> Any:
        if self._process is None:
            raise LocalCloudError("the local cloud is not running; use it as a context manager")
        return self._ready[name]

    def _ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one line and return the answer. Requires the lock."""
        if self._process is None:
            raise LocalCloudError("the local cloud is not running")
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise LocalCloudError(f"the cloud process has died{self._tail()}") from exc
        deadline = time.monotonic() + timeout
        output = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise LocalCloudError(
                        f"the cloud process did not answer in {timeout:.0f} s{self._tail()}"
                    )
                data = os.read(output, 65_536)
                if not data:
                    raise LocalCloudError(f"the cloud process has died{self._tail()}")
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _tail(self) -> str:
        """The last lines of the cloud process's own log, as the end of an error message."""
        assert self._directory is not None
        log = self._directory / "cloud.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:] if log.exists() else []
        return "".join(f"\n  {line}" for line in lines)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.close()
            except OSError:
                pass  # it has died with an unread command in the pipe
            try:
                process.wait(CLOSE_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()  # its children are told by the kernel
                process.wait()
            process.stdout.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        self._received = b""


def key_json(key: Key) -> dict[str, Any]:
    """A key in the form of ``EMISSARY_AUTH_KEYS``."""
    return {"kid": key.key_id, "data": base64.b64encode(key.secret).decode()}


def run_foreground(
    template: str, targets: Sequence[tuple[str, int]], *, json_line: bool, out: TextIO, **options: Any
) -> int:
    """Run ``template`` until SIGINT or SIGTERM; then print what it would have cost.

    Args:
        template: Path of the SAM template.
        targets: Hosts and ports that may be reached.
        json_line: Print one JSON object a line instead of text: ``url``, ``key``, ``pid`` (and ``ca_file``
            with TLS) when ready, ``cost`` and ``meter`` at the end.
        out: Where to print.
        options: Passed on to :class:`LocalCloud`.

    Returns:
        The exit status: 0.

    Raises:
        LocalCloudError: If it cannot start, or its process dies.
        ValueError: If called outside the main thread; it handles signals.
    """
    stop = threading.Event()

    def interrupted(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with LocalCloud(template, targets=targets, **options) as cloud:
            print(_greeting(cloud, targets, json_line), file=out, flush=True)
            while not stop.wait(LOOK_EVERY):
                if not cloud.alive:
                    raise LocalCloudError("the cloud process has died")
            meter = cloud.meter
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    farewell = {"cost": meter.cost(), "meter": json.loads(meter.to_json())}
    print(json.dumps(farewell) if json_line else f"\n{meter.bill()}", file=out, flush=True)
    return 0


def _greeting(cloud: LocalCloud, targets: Sequence[tuple[str, int]], json_line: bool) -> str:
    key = key_json(cloud.key)
    if json_line:
        ready: dict[str, Any] = {"url": cloud.url, "key": key, "pid": cloud.pid}
        if cloud.ca_file is not None:
            ready["ca_file"] = cloud.ca_file
        return json.dumps(ready)
    lines = [
        "The local cloud is ready. Ctrl-C ends it.",
        "",
        f"  export EMISSARY_URL={cloud.url}",
        f"  export EMISSARY_AUTH_KEYS='{json.dumps([key])}'",
    ]
    if cloud.ca_file is not None:
        lines.append(f"  export SSL_CERT_FILE={cloud.ca_file}")
    lines += ["", "Targets that may be reached:"]
    lines += [f"  {host}:{port}" for host, port in targets] or ["  none (name some with --target)"]
    return "\n".join(lines)
