"""Runs a template on this machine: what starts a local cloud, asks it and ends it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import ssl
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from emissary_local.application import Application
from emissary_local.aws.iam.report import Denial, Permission
from emissary_local.billing.meter import MeterSnapshot
from emissary_local.errors import LocalCloudError, SettingsError
from emissary_local.faults import Faults
from emissary_local.limits import Limits
from emissary_local.process import CloudProcess, check_requirements

if TYPE_CHECKING:
    from emissary_local.template.specs import Template

#: How long the start may take, and an answer of the cloud process, in seconds.
START_TIMEOUT: Final = 60.0
ANSWER_TIMEOUT: Final = 10.0

#: With a time scale, functions may still run for this long, in seconds, or for their timeout if that is
#: shorter: a cold start and a database call on a busy machine, several times over.
SHORTEST_RUN: Final = 5.0


class Cloud:
    """Runs a template: API Gateway, Lambda, DynamoDB, Secrets Manager, each as strict as AWS. Linux only.

    A context manager: entering starts it and returns when everything answers, leaving ends every process,
    socket and temporary file. For Emissary's own template, :class:`emissary_local.LocalCloud` knows the rest.

    Args:
        template: The template, SAM's or CloudFormation's; the functions' code is looked for beside it.
        application: What the template's application needs beside the template.
        artifacts: What ``sam build`` made of the template (``.aws-sam/build``): run the functions from there,
            with nothing but what Lambda's runtime brings beside; None: from the source.
        faults: What to do wrong on purpose; can be replaced while it runs.
        account_concurrency: Lambda executions at once, of all functions together.
        tls: Serve ``wss://`` under an authority made for this run; see ``ssl_context``.
        domain_port: Put the port into the events' ``domainName``, where AWS has none, since it serves 443
            only: for code that makes the address of ``@connections`` of it.
        latency: ``none``, or ``aws`` for delays as measured there.
        fresh_environments: Give every invocation a new process: every start is a cold start.
        cpu_share: Hold each function to the share of a processor that comes with its memory, times this: 1.0
            where a processor of this machine is worth one of AWS's; None: each has as much as there is.
        parameters: Template parameters; they win over the application's.
        policies: By ARN, documents of managed policies that the template does not make: a permissions
            boundary, or what its roles have besides.
        variables: By logical id, environment variables that a function gets besides those of the template,
            as if set by hand after the deployment.
        limits: API Gateway's numbers, for tests that want to meet one sooner.
        time_scale: Factor on AWS's times, so that a limit of hours is met in seconds: the gateway's idle
            limit, life and 29 seconds, the functions' timeouts (and so the remaining time they are told),
            the pauses and ages of asynchronous events, and ``silence_seconds``. A function may still run for
            :data:`SHORTEST_RUN` seconds. Not scaled: the SDK's timeouts, the application's own timers,
            latency, the init phase, signatures' age, the stage's throttles, what is billed. Wins over the one
            in ``limits``.

    Attributes:
        application: As given.

    Raises:
        SettingsError: ``cpu_share`` is no factor.

    Thread safety: all methods may be called from any thread.
    """

    def __init__(
        self,
        template: str | os.PathLike[str] = "template.yaml",
        *,
        application: Application | None = None,
        artifacts: str | os.PathLike[str] | None = None,
        faults: Faults | None = None,
        account_concurrency: int = 1000,
        tls: bool = False,
        domain_port: bool = False,
        latency: str = "none",
        fresh_environments: bool = False,
        cpu_share: float | None = None,
        parameters: Mapping[str, str] | None = None,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        variables: Mapping[str, Mapping[str, str]] | None = None,
        limits: Limits | None = None,
        time_scale: float | None = None,
    ) -> None:
        if cpu_share is not None and not 0 < cpu_share < math.inf:
            raise SettingsError(f"cpu_share is {cpu_share!r}; it is a factor above 0, or None")
        limits = limits or Limits()
        if time_scale is not None:
            limits = dataclasses.replace(limits, time_scale=time_scale, shortest_run_seconds=SHORTEST_RUN)
        self.application = application or Application()
        self._template = Path(template).resolve()
        self._given = dict(parameters or {})
        self._settings: dict[str, Any] = {
            "template": str(self._template),
            "artifacts": None if artifacts is None else str(Path(artifacts).resolve()),
            "faults": dataclasses.asdict(faults or Faults()),
            "limits": dataclasses.asdict(limits),
            "latency": latency,
            "account_concurrency": account_concurrency,
            "fresh_environments": fresh_environments,
            "cpu_share": cpu_share,
            "tls": tls,
            "domain_port": domain_port,
            "url_variables": list(self.application.url_variables),
            "classify": self.application.classify,
            "policies": dict(policies or {}),
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
        with self._lock:
            if self._process is not None:
                raise LocalCloudError("this local cloud runs already")
            read, document, parameters = self._read(self._settings, self._given)
            passwords = self.application.passwords(read.secrets)
            process = self._process = CloudProcess()
            try:
                settings = {**self._settings, "parameters": parameters, "passwords": passwords}
                answer = process.ask(self._placed(settings, document, process.directory), START_TIMEOUT)
                if "error" in answer:
                    raise LocalCloudError(
                        f"the local cloud could not start: {answer['error']}{process.tail()}"
                    )
                self._ready = answer["ready"]
            except BaseException:
                self._stop()
                raise

    def close(self) -> None:
        """End every process, and remove the logs, within :data:`process.CLOSE_TIMEOUT`. Idempotent."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The WebSocket API's URL, for clients."""
        return str(self._ready_value("url"))

    @property
    def ca_file(self) -> str | None:
        """PEM file of the authority behind the certificate; None without ``tls``."""
        ca_file = self._ready_value("ca_file")
        return None if ca_file is None else str(ca_file)

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """A client context that trusts this cloud; None without ``tls``."""
        ca_file = self.ca_file
        return None if ca_file is None else ssl.create_default_context(cafile=ca_file)

    @property
    def operator(self) -> dict[str, str]:
        """Environment variables with which AWS's SDK or command line sees this cloud's services."""
        return dict(self._ready_value("operator"))

    @property
    def tables(self) -> dict[str, str]:
        """The tables' names, by logical id."""
        return dict(self._ready_value("tables"))

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets' ARNs, by logical id."""
        return dict(self._ready_value("secrets"))

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
    def fault_counts(self) -> dict[str, int]:
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

    def set_timeout(self, function: str, seconds: float) -> None:
        """Give a function (a logical id) another timeout, 1 to 1800 seconds, for invocations from now on.

        As on AWS those that run keep the one they began with, and the next ones start cold.

        Raises:
            LocalCloudError: If there is no such function or timeout, or the cloud does not answer.
        """
        self._command("timeout", function=function, seconds=seconds)

    def update(
        self,
        template: str | os.PathLike[str],
        *,
        artifacts: str | os.PathLike[str] | None = None,
        parameters: Mapping[str, str] | None = None,
        functions: Iterable[str] | None = None,
    ) -> None:
        """Put another version of the functions in place: their code, settings and policies.

        As on AWS what runs goes on with the code and the variables that it began with, but under the new
        policies; the next invocations start cold. Only functions can be another version's.

        Args:
            template: The other version's template; its code is looked for beside it.
            artifacts: What ``sam build`` made of it, if this cloud runs artifacts.
            parameters: Its parameters; the rest take their defaults.
            functions: Logical ids of those to be replaced, as in the middle of a deployment; None: all.

        Raises:
            LocalCloudError: If the template is bad, it differs in its API, its tables or its secrets or in
                what its functions reserve, an artifact is missing, or the cloud does not answer; then
                nothing is changed.
        """
        settings = {
            **self._settings,
            "template": str(Path(template).resolve()),
            "artifacts": None if artifacts is None else str(Path(artifacts).resolve()),
        }
        read, document, settings["parameters"] = self._read(settings, dict(parameters or {}))
        with self._lock:
            process = self._running()
            settings = self._placed(settings, document, process.directory)
            names = list(read.functions if functions is None else functions)
            self._ask(process, "update", settings=settings, functions=names)

    def permissions(self) -> list[Permission]:
        """Every statement of the functions' policies, and how many calls it has decided on so far."""
        return [Permission(**each) for each in self._command("permissions")["permissions"]]

    def denials(self) -> list[Denial]:
        """The calls of functions that were refused because no policy allows them, the latest thousand."""
        return [Denial(**each) for each in self._command("denials")["denials"]]

    def withdraw(self, function: str, statement: str) -> None:
        """Take one statement out of a function's policies, until :meth:`restore`.

        What a function has already been given it keeps: ``retire`` ends the environments that remember, for
        example, the keys.

        Args:
            function: The function's logical id.
            statement: Its ``name`` in :meth:`permissions`: its Sid.

        Raises:
            LocalCloudError: If there is no such statement.
        """
        self._command("withdraw", function=function, statement=statement)

    def restore(self) -> None:
        """Put every withdrawn statement back."""
        self._command("restore")

    def put_secret(self, value: str, secret: str | None = None) -> None:
        """Make ``value`` the current one of a secret.

        Args:
            value: The text.
            secret: Logical id, name or ARN; not needed if the template has one secret.

        Raises:
            LocalCloudError: If there is no such secret, or the value is empty or too long.
        """
        self._command("put_secret", value=value, secret=self._secret(secret))

    def logs(self, function: str | None = None) -> str:
        """What the functions wrote to their logs so far; of one function (its logical id), or of all."""
        known = self._ready_value("functions")
        process = self._process
        assert process is not None
        parts = []
        for name in known if function is None else [function]:
            path = process.directory / f"{name}.log"
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            parts += [f"--- {name}\n{text}"] if function is None and text else [text]
        return "".join(parts)

    def _secret(self, given: str | None) -> str:
        made: dict[str, str] = self._ready_value("secrets")
        if given is None and len(made) != 1:
            raise LocalCloudError(f"the template has {len(made)} secrets; name one")
        return next(iter(made.values())) if given is None else made.get(given, given)

    def _read(
        self, settings: Mapping[str, Any], given: Mapping[str, str]
    ) -> tuple[Template, dict[str, Any], dict[str, str]]:
        """A template, its translation and all its parameters; its faults are raised here, as they are."""
        # They need the local extra.
        from emissary_local.aws.iam.privileges import Privileges
        from emissary_local.template.sam import load_and_translate
        from emissary_local.template.template import read_document

        document = load_and_translate(settings["template"])
        declared = document.get("Parameters") or {}
        ours = self.application.parameters.items()
        parameters = {**{name: value for name, value in ours if name in declared}, **given}
        read = read_document(settings["template"], document, parameters, settings["policies"])
        Privileges(read.functions.values())  # those of its policies too
        if unknown := sorted(set(settings["variables"]) - set(read.functions)):
            raise LocalCloudError(f"variables are given for {', '.join(unknown)}: no such function")
        folder = settings["artifacts"]
        missing = [name for name in read.functions if folder and not (Path(folder) / name).is_dir()]
        if missing:
            raise LocalCloudError(
                f"{folder} has no artifact of {', '.join(missing)}; make them with: sam build"
            )
        return read, document, parameters

    @staticmethod
    def _placed(settings: Mapping[str, Any], document: Mapping[str, Any], directory: Path) -> dict[str, Any]:
        """The settings, with the place of the translation, which is too long for the pipe."""
        translation = directory / "translated.json"
        translation.write_text(json.dumps(document), encoding="utf-8")
        return {**settings, "document": str(translation), "directory": str(directory)}

    def _ready_value(self, name: str) -> Any:
        if self._process is None:
            raise LocalCloudError("the local cloud is not running; use it as a context manager")
        return self._ready[name]

    def _command(self, name: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            return self._ask(self._running(), name, **arguments)

    def _running(self) -> CloudProcess:
        assert self._lock.locked()
        if self._process is None:
            raise LocalCloudError("the local cloud is not running")
        return self._process

    def _ask(self, process: CloudProcess, name: str, **arguments: Any) -> dict[str, Any]:
        assert self._lock.locked()
        answer = process.ask({"command": name, **arguments}, ANSWER_TIMEOUT)
        if "error" in answer:
            raise LocalCloudError(str(answer["error"]))
        return answer

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop()
