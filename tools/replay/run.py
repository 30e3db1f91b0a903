"""Runs cases: one execution environment of the built artifact for each, started afresh."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from emissary_lib.protocol.auth.macs import encode_unpadded, format_keys
from emissary_local.emissary import Emissary
from emissary_local.lambda_.runtime_site import make_runtime_site
from emissary_local.lambda_.variables import Endpoints, Identities, environment_variables
from emissary_local.template.template import read_template
from tools.replay import cases, example
from tools.replay.cases import Case
from tools.replay.emulator import Emulator, emulator_binary
from tools.replay.errors import ReplayError
from tools.replay.gateway import FakeGateway, SilentTarget
from tools.replay.moment import Moment
from tools.replay.results import result
from tools.replay.services import Services
from tools.replay.table import Tables

#: What the example's targets may be, beside the target that some cases have of their own.
ALLOWED: Final = [{"host": "db.internal", "port": 5432}]

#: What no function may ever write to its log.
_SECRETS: Final = (
    base64.b64encode(example.KEY.secret).decode(),
    *map(encode_unpadded, (example.NONCE, example.RESUME_NONCE, example.RELAY_TOKEN, example.RESUME_TOKEN)),
)


class Environment(Protocol):
    """An execution environment of one function."""

    def invoke(self, event: Any) -> Any:
        """The function's answer, or, if the handler raised, Lambda's error object.

        Raises:
            ReplayError: If there is no answer.
        """

    def output(self) -> str:
        """What the function has written to its log so far."""


class Replayer:
    """A context manager: the tables and what else all cases share.

    Args:
        template: The template.
        artifacts: What ``sam build`` made of it: ``.aws-sam/build``.
        listen: Address of this machine that the stand-ins listen on.

    Raises:
        ReplayError: On entering, if the emulator, the artifacts or the tables are not to be had.
    """

    def __init__(self, template: Path, artifacts: Path, *, listen: str = "127.0.0.1") -> None:
        self._artifacts = artifacts.resolve()
        self._listen = listen
        allowed = [*ALLOWED, {"host": listen, "port": "1-65535"}]
        self._template = read_template(template, {"AllowedTargets": json.dumps(allowed)})
        self._identities = Identities.draw(self._template.functions)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Replayer:
        missing = [name for name in self._template.functions if not (self._artifacts / name).is_dir()]
        if missing:
            raise ReplayError(f"{self._artifacts} has no {', '.join(missing)}; run: make build")
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._tables = stack.enter_context(Tables([*self._template.tables.values()], self._listen))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def replay(self, case: Case) -> dict[str, Any]:
        """Run a case; what came of it, as at the example moment.

        Raises:
            ReplayError: If the emulator breaks, or a secret is found in the function's log.
        """
        moment = Moment(time.time())
        self._tables.replace(moment.to_present(case.given))
        for name in case.before:
            earlier = cases.load(name)
            with self._services(earlier) as (services, gateway, target):
                self._invoke(earlier, moment, services, gateway, target)
        with self._services(case) as (services, gateway, target):
            before = self._tables.items()
            response = self._invoke(case, moment, services, gateway, target)
            return result(response, (before, self._tables.items()), services.calls, gateway, moment)

    @contextlib.contextmanager
    def _services(self, case: Case) -> Iterator[tuple[Services, FakeGateway, SilentTarget]]:
        with FakeGateway(case.upgrade_status, self._listen) as gateway, SilentTarget(self._listen) as target:
            with Services(format_keys([example.KEY]), gateway.on_post, self._listen) as services:
                services.gone = case.gone
                yield services, gateway, target

    def _invoke(
        self, case: Case, moment: Moment, services: Services, gateway: FakeGateway, target: SilentTarget
    ) -> Any:
        event = moment.to_present(case.event)
        if case.target:
            event["target"] = {"host": self._listen, "port": target.port}
        with self.environment(case.function, services.url, gateway.url) as environment:
            response = environment.invoke(event)
            output = environment.output()
        leaked = [secret for secret in _SECRETS if secret in output]
        if leaked:
            raise ReplayError(f"{case.function} wrote a secret to its log:\n{output}")
        return response

    def _endpoints(self, services: str, websocket: str) -> Endpoints:
        return Endpoints(
            services, f"{services}/{example.STAGE}", websocket, url_variables=Emissary.url_variables
        )

    @contextlib.contextmanager
    def environment(self, function: str, services: str, websocket: str) -> Iterator[Environment]:
        """A fresh execution environment of a function.

        Args:
            function: Its logical id.
            services: Base URL of the stand-ins.
            websocket: URL that a relay dials back to.
        """
        spec = self._template.functions[function]
        endpoints = self._endpoints(services, websocket)
        variables = {
            **environment_variables(spec, self._identities.by_function[function], endpoints, "", "replay"),
            "AWS_ENDPOINT_URL_DYNAMODB": self._tables.url,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(int(spec.timeout)),
        }
        log = self._folder / f"{function}.log"
        log.unlink(missing_ok=True)
        artifact, (binary, site) = self._artifacts / function, self._emulation
        with Emulator(binary, artifact, spec.handler, variables, site, log) as emulator:
            yield emulator

    @functools.cached_property
    def _emulation(self) -> tuple[Path, Path]:
        """The emulator, and what Lambda's runtime brings."""
        return emulator_binary(), make_runtime_site(self._folder / "runtime")
