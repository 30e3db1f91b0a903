"""The cloud process: gateway, Lambda service and AWS endpoint on one event loop. Run with ``-m``.

A process of its own, so that it does not share an interpreter lock with its user. It reads one JSON line
of settings from standard input, answers with one line when everything is up, then answers one line per
command, and ends with everything it started when standard input ends. :mod:`emissary_local.cloud`
is the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emissary_local.aws.dynamodb.stale_reads import StaleReads
from emissary_local.aws.dynamodb.tables import Tables
from emissary_local.aws.endpoint import AwsEndpoint
from emissary_local.aws.iam.privileges import Privileges
from emissary_local.aws.secrets import SecretStore
from emissary_local.billing.meter import Meter
from emissary_local.control import answer
from emissary_local.errors import LocalCloudError
from emissary_local.faults import FaultEngine, Faults
from emissary_local.faults.idle_connections import IdleConnectionFaults
from emissary_local.faults.latency import Latency
from emissary_local.faults.schedule import FaultSchedule
from emissary_local.gateway.api import Gateway
from emissary_local.gateway.callbacks import ApiName
from emissary_local.gateway.client_role import Classify, any_client
from emissary_local.gateway.throttle import Throttles
from emissary_local.lambda_.async_queue import AsyncQueue
from emissary_local.lambda_.forkserver import ForkServer
from emissary_local.lambda_.runtime_site import make_runtime_site
from emissary_local.lambda_.service import LambdaService
from emissary_local.lambda_.variables import Endpoints, Identities, operator_variables
from emissary_local.limits import Limits
from emissary_local.net.certificates import create_certificates
from emissary_local.template import names
from emissary_local.template.secrets import first_value
from emissary_local.template.specs import FunctionSpec, Template
from emissary_local.template.template import read_document


class CloudServer:
    """Everything that runs in the cloud process, put together from the settings.

    Args:
        settings: What :class:`emissary_local.cloud.Cloud` sends: ``template``, ``document`` (a file with its
            translation), ``parameters``, ``policies``, ``directory``, ``artifacts``, ``faults``, ``limits``,
            ``latency``, ``account_concurrency``, ``fresh_environments``, ``cpu_share``, ``tls``,
            ``domain_port``, ``variables``, ``passwords``, ``url_variables``, ``classify``.

    Attributes:
        meter: Counts what AWS would bill.
        faults: What goes wrong on purpose.
        gateway, service, privileges, secrets: Set once it has started.
    """

    gateway: Gateway
    service: LambdaService
    privileges: Privileges
    secrets: SecretStore
    _template: Template
    _functions: dict[str, FunctionSpec]

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._settings = settings
        self.meter = Meter(logged=lambda: self.service.log_bytes())
        self.faults = FaultEngine(Faults.from_json(settings["faults"]))

    async def start(self) -> dict[str, Any]:
        """Start everything; returns what the user must know, when all of it answers.

        Raises:
            LocalCloudError: If something cannot start.
            OSError: If a process, port or file cannot be had.
        """
        settings, stack = self._settings, self._stack
        directory = Path(settings["directory"])
        template = self._template = _read(settings)
        artifacts = settings["artifacts"]
        faults, limits = self.faults, Limits(**settings["limits"])
        latency = Latency(settings["latency"], faults.faults.seed)
        functions = self._functions = {
            name: _as_run(spec, settings) for name, spec in template.functions.items()
        }
        self.privileges = Privileges(template.functions.values(), template.path.name, _log)
        passwords: Mapping[str, str] = settings["passwords"]
        self.secrets = SecretStore(
            [
                (each.name, each.arn, first_value(each, passwords.get(name)))
                for name, each in template.secrets.items()
            ],
            self.faults.now,
        )
        identities = Identities.draw(template.functions)
        certificates = create_certificates(directory) if settings["tls"] else None
        log = stack.enter_context((directory / "cloud.log").open("ab"))

        site = None if artifacts is None else make_runtime_site(directory / "runtime")
        fork_server, tables = ForkServer(log, site), Tables(log)
        stack.push_async_callback(fork_server.close)
        stack.push_async_callback(tables.close)
        await asyncio.gather(fork_server.start(), tables.start(template.tables.values()))

        endpoints: list[Endpoints] = []
        service = self.service = LambdaService(
            functions,
            fork_server=fork_server,
            meter=self.meter,
            identities=identities,
            endpoints=lambda: endpoints[0],
            logs=directory,
            account_concurrency=settings["account_concurrency"],
            fresh_environments=settings["fresh_environments"],
            cpu_share=settings["cpu_share"],
            faults=faults,
            on_freeze=lambda function, pid: idle.on_freeze(function, pid),
        )
        stack.push_async_callback(service.close)
        queue = AsyncQueue(functions, service, latency=latency, time_scale=limits.time_scale, faults=faults)
        stack.push_async_callback(queue.close)
        endpoint = AwsEndpoint(
            functions,
            invoker=queue,
            tables=tables,
            meter=self.meter,
            credentials=identities.by_key.get,
            authorize=self.privileges.refusal,
            latency=latency,
            faults=faults,
            earlier=StaleReads(template.tables.values(), tables),
            secrets=self.secrets,
        )
        stack.push_async_callback(endpoint.close)
        endpoint_url = await endpoint.start()
        api = template.api
        gateway = self.gateway = Gateway(
            stage=api.stage,
            routes=api.routes,
            selection=api.route_selection,
            authorizer=api.authorizer,
            invoker=queue,
            faults=faults,
            meter=self.meter,
            credentials=identities.by_key.get,
            authorize=self.privileges.refusal,
            limits=limits,
            ssl=certificates.server_context() if certificates else None,
            latency=latency,
            name=ApiName(api.stage, api.api_id, names.REGION, names.ACCOUNT_ID),
            throttles=Throttles(api.default_throttle, api.route_throttles),
            classify=_import(settings["classify"]),
            behind_nat=[name for name, spec in functions.items() if spec.nat],
            domain_port=settings["domain_port"],
        )
        stack.push_async_callback(gateway.close)
        idle = IdleConnectionFaults(faults, [endpoint.transports, gateway.transports])
        schedule = FaultSchedule(faults, gateway.disconnects, service.retire)
        stack.push_async_callback(schedule.close)
        address = f"127.0.0.1:{await gateway.start()}/{api.stage}"
        secure = "s" if certificates else ""
        ca_file = certificates.ca_file if certificates else None
        endpoints.append(
            Endpoints(
                endpoint_url,
                f"http{secure}://{address}",
                f"ws{secure}://{address}",
                ca_file,
                tuple(settings["url_variables"]),
            )
        )
        schedule.start()
        return {
            "url": f"ws{secure}://{address}",
            "ca_file": ca_file,
            "functions": list(template.functions),
            "endpoint": endpoint_url,
            "operator": operator_variables(identities.operator, endpoints[0]),
            "tables": {name: table.name for name, table in template.tables.items()},
            "secrets": {name: secret.arn for name, secret in template.secrets.items()},
        }

    def update(self, settings: Mapping[str, Any], functions: Sequence[str]) -> None:
        """Put another version of some functions in place: code, settings and policies.

        Args:
            settings: As those given at the start, of the other version.
            functions: Logical ids.

        Raises:
            LocalCloudError: If that version differs in more than its functions, or its templates or policies
                cannot be evaluated; then nothing is changed.
        """
        template = _read(settings)
        if (settings["artifacts"] is None) != (self._settings["artifacts"] is None):
            raise LocalCloudError("functions from artifacts can follow such alone, and from source likewise")
        for what in ("api", "tables", "secrets"):
            if getattr(template, what) != getattr(self._template, what):
                raise LocalCloudError(f"the other version differs in its {what}: only functions are updated")
        if unknown := set(functions) - (template.functions.keys() & self._functions.keys()):
            raise LocalCloudError(f"both versions must have {', '.join(sorted(unknown))}")
        specs = [_as_run(template.functions[name], settings) for name in functions]
        for spec in specs:
            if spec.reserved_concurrency != self._functions[spec.logical_id].reserved_concurrency:
                raise LocalCloudError(f"the other version reserves other executions for {spec.logical_id}")
        self.privileges.replace(specs)
        for spec in specs:
            self.service.replace(spec)
            self._functions[spec.logical_id] = spec  # whoever has these looks a function up when it needs one

    async def close(self) -> None:
        """Stop everything, last started first. Idempotent."""
        await self._stack.aclose()


async def serve(settings: Mapping[str, Any], output: int) -> None:
    """Run a cloud until standard input ends, SIGTERM arrives, or the parent process is gone."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    parent = os.getppid()
    cloud = CloudServer(settings)
    try:
        try:
            ready = await cloud.start()
        except (LocalCloudError, OSError) as exc:
            _write(output, {"error": str(exc) or repr(exc)})
            return
        _write(output, {"ready": ready})
        pending = bytearray()

        def read() -> None:
            data = os.read(0, 65_536)
            if not data:
                over.set()
                return
            pending.extend(data)
            while b"\n" in pending:
                line, _, rest = bytes(pending).partition(b"\n")
                pending[:] = rest
                _write(output, answer(cloud, json.loads(line)))

        loop.add_reader(0, read)
        while not over.is_set():
            # The pipe alone is not enough: a process forked by our user may have inherited its other end.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 1.0)
            if os.getppid() != parent:
                over.set()
        loop.remove_reader(0)
    finally:
        await cloud.close()
        if os.getppid() != parent:
            shutil.rmtree(settings["directory"], ignore_errors=True)  # nobody is left to do it


def _import(classify: str) -> Classify:
    """The function that ``module:function`` names; the neutral one if it names none."""
    module, _, name = classify.partition(":")
    found: Classify = getattr(importlib.import_module(module), name) if module else any_client
    return found


def _read(settings: Mapping[str, Any]) -> Template:
    document = json.loads(Path(settings["document"]).read_text(encoding="utf-8"))
    return read_document(settings["template"], document, settings["parameters"], settings["policies"])


def _as_run(spec: FunctionSpec, settings: Mapping[str, Any]) -> FunctionSpec:
    """A function of the template as it is to be run by these settings."""
    artifacts = settings["artifacts"]
    more: Mapping[str, Mapping[str, str]] = settings["variables"]
    return dataclasses.replace(
        spec,
        timeout=Limits(**settings["limits"]).run(spec.timeout),
        task_root=_task_root(
            spec, None if artifacts is None else Path(artifacts), Path(settings["directory"])
        ),
        environment={**spec.environment, **more.get(spec.logical_id, {})},
    )


def _task_root(spec: FunctionSpec, artifacts: Path | None, directory: Path) -> Path:
    """The folder with a function's code; code that is in the template is written to a new one."""
    if artifacts is not None:
        return artifacts / spec.logical_id
    if spec.inline_code is None:
        return spec.task_root
    folder = Path(tempfile.mkdtemp(prefix=f"{spec.logical_id}-", dir=directory))
    (folder / "index.py").write_text(spec.inline_code, encoding="utf-8")
    return folder


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")  # cloud.log
    sys.stderr.flush()


def _write(output: int, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the reader is gone: standard input will say so
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(output, data) :]


def main() -> None:
    """Read the settings and run; see the module's docstring."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever prints goes to the log, not between the answers
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)  # no buffering: what follows is the event loop's to read
        if not byte:
            return
        line += byte
    asyncio.run(serve(json.loads(line), output))


if __name__ == "__main__":
    main()
