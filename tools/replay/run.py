"""Runs cases: one execution environment of the built artifact for each, started afresh."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from emissary_lib.local.runtime_site import make_runtime_site
from emissary_lib.local.template import declared_parameters, read_template
from emissary_lib.local.variables import Endpoints, Identities, environment_variables
from emissary_lib.protocol.auth import encode_unpadded, format_keys
from tools.replay import cases, example
from tools.replay.cases import Case
from tools.replay.door import Door, SilentTarget
from tools.replay.emulator import Emulator, emulator_binary
from tools.replay.errors import ReplayError
from tools.replay.moment import Moment
from tools.replay.results import result
from tools.replay.services import Services
from tools.replay.table import Table

#: What the example's targets may be; the second is that of cases with a target of their own.
ALLOWED: Final = [{"host": "db.internal", "port": 5432}, {"host": "127.0.0.1", "port": "1-65535"}]

#: What no function may ever write to its log.
_SECRETS: Final = (
    base64.b64encode(example.KEY.secret).decode(),
    *map(encode_unpadded, (example.NONCE, example.RESUME_NONCE, example.RELAY_TOKEN, example.RESUME_TOKEN)),
)


class Replayer:
    """A context manager: the table and what else all cases share.

    Args:
        template: The template.
        artifacts: What ``sam build`` made of it: ``.aws-sam/build``.

    Raises:
        ReplayError: On entering, if the emulator, the artifacts or the table are not to be had.
    """

    def __init__(self, template: Path, artifacts: Path) -> None:
        self._artifacts = artifacts.resolve()
        given = {
            "AllowedTargets": json.dumps(ALLOWED),
            "AuthKeys": format_keys([example.KEY]),
        }
        declared = declared_parameters(template)
        self._template = read_template(template, {k: v for k, v in given.items() if k in declared})
        self._identities = Identities.draw(self._template.functions)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Replayer:
        missing = [name for name in self._template.functions if not (self._artifacts / name).is_dir()]
        if missing:
            raise ReplayError(f"{self._artifacts} has no {', '.join(missing)}; run: make build")
        with contextlib.ExitStack() as stack:
            self._binary = emulator_binary()
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._site = make_runtime_site(self._folder / "runtime")
            (spec,) = self._template.tables.values()
            self._table = stack.enter_context(Table(spec))
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
        self._table.replace(moment.to_present(case.given))
        for name in case.before:
            earlier = cases.load(name)
            with self._services(earlier) as (services, door, target):
                self._invoke(earlier, moment, services, door, target)
        with self._services(case) as (services, door, target):
            before = self._table.items()
            response = self._invoke(case, moment, services, door, target)
            return result(response, (before, self._table.items()), services.calls, door, moment)

    @contextlib.contextmanager
    def _services(self, case: Case) -> Iterator[tuple[Services, Door, SilentTarget]]:
        with Door(case.door) as door, SilentTarget() as target:
            with Services(format_keys([example.KEY]), door.posted) as services:
                services.gone = case.gone
                yield services, door, target

    def _invoke(
        self, case: Case, moment: Moment, services: Services, door: Door, target: SilentTarget
    ) -> Any:
        event = moment.to_present(case.event)
        if case.target:
            event["target"] = {"host": "127.0.0.1", "port": target.port}
        with self.emulator(case.function, services.url, door.url) as emulator:
            response = emulator.invoke(event)
            output = emulator.output()
        leaked = [secret for secret in _SECRETS if secret in output]
        if leaked:
            raise ReplayError(f"{case.function} wrote a secret to its log:\n{output}")
        return response

    @contextlib.contextmanager
    def emulator(self, function: str, services: str, websocket: str) -> Iterator[Emulator]:
        """A fresh execution environment of a function.

        Args:
            function: Its logical id.
            services: Base URL of the stand-ins.
            websocket: URL that a relay dials back to.
        """
        spec = self._template.functions[function]
        endpoints = Endpoints(services, f"{services}/{example.STAGE}", websocket)
        variables = {
            **environment_variables(spec, self._identities.by_function[function], endpoints, "", "replay"),
            "AWS_ENDPOINT_URL_DYNAMODB": self._table.url,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": services,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(int(spec.timeout)),
        }
        log = self._folder / f"{function}.log"
        log.unlink(missing_ok=True)
        with Emulator(
            self._binary, self._artifacts / function, spec.handler, variables, self._site, log
        ) as emulator:
            yield emulator
