"""The local cloud's front door: run a template on this machine."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import ssl
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, TextIO

from emissary_lib.protocol.auth.keys import Key
from emissary_local.aws.secrets.spec import drawn
from emissary_local.billing.meter import MeterSnapshot
from emissary_local.errors import LocalCloudError
from emissary_local.faults import Faults
from emissary_local.gateway.limits import Limits
from emissary_local.operations import Operations
from emissary_local.operations import key_json as key_json
from emissary_local.pipe import CloudProcess
from emissary_local.processes import check_requirements

#: How long the start may take, and an answer of the cloud process, in seconds.
START_TIMEOUT: Final = 60.0
ANSWER_TIMEOUT: Final = 10.0

#: How often :func:`run_foreground` looks whether the cloud process is alive, in seconds.
LOOK_EVERY: Final = 0.5

#: With a time scale, functions may still run for this long, in seconds, or for their timeout if that is
#: shorter: a cold start and a database call on a busy machine, several times over.
SHORTEST_RUN: Final = 5.0


class LocalCloud(Operations):
    """Runs a template: API Gateway, Lambda, DynamoDB, Secrets Manager, each as strict as AWS. Linux only.

    A context manager: entering starts it and returns when everything answers, leaving ends every process,
    socket and temporary file. A secret in which the template has a shared key made gets a fresh random one.
    The template parameters ``AllowedTargets``, ``AuthKeys`` (that key) and ``MaxSessions`` (no limit) are
    set, if the template has them.

    Args:
        template: The template, SAM's or CloudFormation's; the functions' code is looked for beside it.
        targets: Hosts and ports that may be reached.
        artifacts: What ``sam build`` made of the template (``.aws-sam/build``): run the functions from there,
            with nothing but what Lambda's runtime brings beside; None: from the source.
        faults: What to do wrong on purpose; can be replaced while it runs.
        account_concurrency: Lambda executions at once, of all functions together.
        tls: Serve ``wss://`` under an authority made for this run; see ``ssl_context``.
        latency: ``none``, or ``aws`` for delays as measured there.
        fresh_environments: Give every invocation a new process: every start is a cold start.
        parameters: More template parameters; they win over those above.
        variables: By logical id, environment variables that a function gets besides those of the template,
            as if set by hand after the deployment.
        limits: API Gateway's numbers, for tests that want to meet one sooner.
        time_scale: Factor on AWS's times, so that a limit of hours is met in seconds: the gateway's idle
            limit, life and 29 seconds, the functions' timeouts (and so the remaining time they are told),
            the pauses and ages of asynchronous events, and ``silence_seconds``. A function may still run for
            :data:`SHORTEST_RUN` seconds. Not scaled: the SDK's timeouts, the protocol's own timers (they are
            settings of the dialer and the relay), latency, the init phase, signatures' age, the stage's
            throttles, what is billed. Wins over the one in ``limits``.

    Attributes:
        key: The shared key that dialers use.

    Thread safety: all methods may be called from any thread.
    """

    def __init__(
        self,
        template: str | os.PathLike[str] = "template.yaml",
        *,
        targets: Sequence[tuple[str, int]] = (),
        artifacts: str | os.PathLike[str] | None = None,
        faults: Faults | None = None,
        account_concurrency: int = 1000,
        tls: bool = False,
        latency: str = "none",
        fresh_environments: bool = False,
        parameters: Mapping[str, str] | None = None,
        variables: Mapping[str, Mapping[str, str]] | None = None,
        limits: Limits | None = None,
        time_scale: float | None = None,
    ) -> None:
        limits = limits or Limits()
        if time_scale is not None:
            limits = dataclasses.replace(limits, time_scale=time_scale, shortest_run_seconds=SHORTEST_RUN)
        key_data = drawn()  # in the form in which the template makes one: letters and digits, as base64
        self.key = Key(1, base64.b64decode(key_data))
        self._template = Path(template).resolve()
        self._given = dict(parameters or {})
        self._ours = {
            "AuthKeys": json.dumps([key_json(self.key)]),
            "AllowedTargets": json.dumps([{"host": host, "port": port} for host, port in targets]),
            # Its default is for a new account, with ten units of concurrency.
            "MaxSessions": "0",
        }
        self._settings: dict[str, Any] = {
            "template": str(self._template),
            "artifacts": None if artifacts is None else str(Path(artifacts).resolve()),
            "faults": dataclasses.asdict(faults or Faults()),
            "limits": dataclasses.asdict(limits),
            "latency": latency,
            "account_concurrency": account_concurrency,
            "fresh_environments": fresh_environments,
            "tls": tls,
            "key": {"key_id": self.key.key_id, "key_data": key_data},
            "variables": {name: dict(given) for name, given in (variables or {}).items()},
        }
        self._lock = threading.Lock()
        self._process: CloudProcess | None = None
        self._ready: dict[str, Any] = {}

    def start(self) -> None:
        """Start everything; returns when it answers, within :data:`START_TIMEOUT`.

        Raises:
            LocalCloudError: If the template is bad (:class:`TemplateError`), a package is missing, this is
                not Linux, or a process could not start; the text names the cause.
        """
        check_requirements()
        # They need the local extra.
        from emissary_local.aws.iam.privileges import Privileges
        from emissary_local.template.sam import load_translated
        from emissary_local.template.template import read_document

        with self._lock:
            if self._process is not None:
                raise LocalCloudError("this local cloud runs already")
            document = load_translated(self._template)
            declared = document.get("Parameters") or {}
            ours = {name: value for name, value in self._ours.items() if name in declared}
            parameters = {**ours, **self._given}
            read = read_document(
                self._template, document, parameters
            )  # its faults are raised here, as they are
            Privileges(read.functions.values())  # those of its policies too
            if unknown := sorted(set(self._settings["variables"]) - set(read.functions)):
                raise LocalCloudError(f"variables are given for {', '.join(unknown)}: no such function")
            self._check_artifacts(read.functions)
            process = self._process = CloudProcess()
            try:
                translation = process.directory / "translated.json"
                translation.write_text(json.dumps(document), encoding="utf-8")
                settings = {
                    **self._settings,
                    "document": str(translation),
                    "parameters": parameters,
                    "directory": str(process.directory),
                }
                answer = process.ask(settings, START_TIMEOUT)
                if "error" in answer:
                    raise LocalCloudError(
                        f"the local cloud could not start: {answer['error']}{process.tail()}"
                    )
                self._ready = answer["ready"]
            except BaseException:
                self._stop()
                raise

    def close(self) -> None:
        """End every process, and remove the logs. Idempotent; at most :data:`pipe.CLOSE_TIMEOUT` seconds."""
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
    def operator(self) -> dict[str, str]:
        """Environment variables with which AWS's SDK or command line sees this cloud's services."""
        return dict(self._known("operator"))

    @property
    def tables(self) -> dict[str, str]:
        """The tables' names, by logical id."""
        return dict(self._known("tables"))

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets' ARNs, by logical id."""
        return dict(self._known("secrets"))

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
        return process is not None and process.alive

    @property
    def meter(self) -> MeterSnapshot:
        """What AWS would have billed so far.

        Raises:
            LocalCloudError: If the cloud is not running or does not answer.
        """
        return MeterSnapshot.from_json(json.dumps(self._command("meter")["meter"]))

    @property
    def faults_met(self) -> dict[str, int]:
        """How often each fault has happened so far, those of :meth:`cut` and :meth:`crash` too.

        Keys are the names of :class:`Faults`, of shares and rates that have happened (``cut_close``,
        ``cut_reset``, ``cut_mid_frame``, ``silence`` and ``storm`` for the rates), and ``throttled`` for
        what the stage's throttle has refused.

        Raises:
            LocalCloudError: If the cloud is not running or does not answer.
        """
        return {name: int(count) for name, count in self._command("meter")["faults"].items()}

    def set_faults(self, faults: Faults) -> None:
        """Put other faults in force, for what happens from now on. With the same seed, decisions run on.

        Raises:
            LocalCloudError: If the clock skew is another one, or the cloud does not answer.
        """
        self._command("faults", faults=dataclasses.asdict(faults))

    def cut(self, side: str = "both", how: str = "reset", which: str | int | None = None) -> int:
        """Cut WebSocket connections now.

        Args:
            side: ``dialer``, ``relay``, or ``both`` ends of a session at the same moment.
            how: ``close`` (1001), ``reset`` (TCP), ``mid-frame`` (the stream ends within a frame) or
                ``silent`` (nothing is read or written any more, posts are still answered 200).
            which: None: all. A number: that one of the side's open connections in the order in which they
                came, from 0, negative ones from the end; with ``both``, of the dialers'. A text: a
                connection id.

        Returns:
            How many connections were cut.

        Raises:
            LocalCloudError: If there is no such side or way, or the cloud does not answer.
        """
        return int(self._command("cut", side=side, how=how, which=which)["count"])

    def crash(self, function: str) -> int:
        """Kill the processes that run an invocation of ``function`` (a logical id) now; how many.

        Raises:
            LocalCloudError: If there is no such function, or the cloud does not answer.
        """
        return int(self._command("crash", function=function)["count"])

    def retire(self, function: str | None = None) -> int:
        """End the idle environments, of one function or all: the next invocations start cold; how many.

        Raises:
            LocalCloudError: If there is no such function, or the cloud does not answer.
        """
        return int(self._command("retire", function=function)["count"])

    def logs(self, function: str | None = None) -> str:
        """What the functions wrote to their logs so far; of one function (its logical id), or of all."""
        known = self._known("functions")
        process = self._process
        assert process is not None
        parts = []
        for name in known if function is None else [function]:
            path = process.directory / f"{name}.log"
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            parts += [f"--- {name}\n{text}"] if function is None and text else [text]
        return "".join(parts)

    def _secret(self, given: str | None) -> str:
        made: dict[str, str] = self._known("secrets")
        if given is None and len(made) != 1:
            raise LocalCloudError(f"the template has {len(made)} secrets; name one")
        return next(iter(made.values())) if given is None else made.get(given, given)

    def _check_artifacts(self, functions: Iterable[str]) -> None:
        folder = self._settings["artifacts"]
        missing = [name for name in functions if folder and not (Path(folder) / name).is_dir()]
        if missing:
            raise LocalCloudError(
                f"{folder} has no artifact of {', '.join(missing)}; make them with: sam build"
            )

    def _known(self, name: str) -> Any:
        if self._process is None:
            raise LocalCloudError("the local cloud is not running; use it as a context manager")
        return self._ready[name]

    def _command(self, name: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            if self._process is None:
                raise LocalCloudError("the local cloud is not running")
            answer = self._process.ask({"command": name, **arguments}, ANSWER_TIMEOUT)
        if "error" in answer:
            raise LocalCloudError(str(answer["error"]))
        return answer

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop()


def run_foreground(
    template: str, targets: Sequence[tuple[str, int]], *, json_line: bool, out: TextIO, **options: Any
) -> int:
    """Run ``template`` until SIGINT or SIGTERM; then print what it would have cost.

    Args:
        template: Path of the SAM template.
        targets: Hosts and ports that may be reached.
        json_line: Print one JSON object a line instead of text: ``url``, ``key``, ``pid`` (and ``ca_file``
            with TLS) when ready, ``cost``, ``meter``, ``faults`` and ``denials`` (messages) at the end.
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
            meter, met = cloud.meter, cloud.faults_met
            denied = list(dict.fromkeys(each.message for each in cloud.denials()))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    farewell = {"cost": meter.cost(), "meter": json.loads(meter.to_json()), "faults": met, "denials": denied}
    counted = "".join(f"\n  {name}: {count}" for name, count in sorted(met.items()))
    bill = f"\n{meter.bill()}" + (f"\nWhat went wrong on purpose:{counted}" if met else "")
    bill += "".join(f"\nRefused: {message}" for message in denied)
    print(json.dumps(farewell) if json_line else bill, file=out, flush=True)
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
