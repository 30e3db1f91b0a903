"""Lambda: finds or starts an execution environment for every invocation, within the concurrency limits.

As on AWS an invocation that finds no free environment gets a new one and waits for it, even if another
becomes free meanwhile; that is what reorders messages by as much as a cold start.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from emissary_lib.local.environment import Environment, Invocation
from emissary_lib.local.errors import LocalCloudError, UnknownFunctionError
from emissary_lib.local.forker import Forker
from emissary_lib.local.meter import Meter
from emissary_lib.local.ports import InvocationResult, InvocationStatus
from emissary_lib.local.template import FunctionSpec
from emissary_lib.local.variables import Endpoints, Identities, environment_variables

_THROTTLED: Final = InvocationResult(InvocationStatus.THROTTLED)


class _Pool:
    """One function's environments and running count."""

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self.running = 0
        self.idle: list[Environment] = []  # the last one was used most recently
        self.returning: list[Environment] = []  # have answered, are about to be idle


class LambdaService:
    """Runs invocations; the synchronous half of :class:`~emissary_lib.local.ports.FunctionInvoker`.

    Args:
        functions: By logical id.
        forker: Makes the processes; the caller starts and closes it.
        meter: Told of each invocation's run time.
        identities: The functions' credentials.
        endpoints: Where the functions find the other services; asked when an environment is started.
        logs: Directory for one log file per function.
        account_concurrency: Executions at once in the whole account, reserved ones included.
        fresh_environments: Give every invocation a new process and kill it afterwards.

    Raises:
        LocalCloudError: If the reserved concurrency leaves nothing for the other functions.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        *,
        forker: Forker,
        meter: Meter,
        identities: Identities,
        endpoints: Callable[[], Endpoints],
        logs: Path,
        account_concurrency: int = 1000,
        fresh_environments: bool = False,
    ) -> None:
        reserved = sum(spec.reserved_concurrency or 0 for spec in functions.values())
        shared = [spec for spec in functions.values() if spec.reserved_concurrency is None]
        if reserved > account_concurrency or (shared and reserved >= account_concurrency):
            raise LocalCloudError(
                f"the functions reserve {reserved} concurrent executions of the account's "
                f"{account_concurrency}; raise account_concurrency"
            )
        self._pools = {name: _Pool(spec) for name, spec in functions.items()}
        self._shared_free = account_concurrency - reserved
        self._forker = forker
        self._meter = meter
        self._identities = identities
        self._endpoints = endpoints
        self._logs = logs
        self._fresh = fresh_environments
        self._numbers = itertools.count(1)
        self._alive: set[Environment] = set()

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        """Run ``function`` once and wait for its answer.

        A throttled invocation returns at once, with status THROTTLED.

        Raises:
            UnknownFunctionError: If the template has no such function.
        """
        pool = self._pools.get(function)
        if pool is None:
            known = ", ".join(self._pools)
            raise UnknownFunctionError(f"the template has no function {function!r}; it has: {known}")
        if not self._take(pool):
            return _THROTTLED
        try:
            request_id = str(uuid.uuid4())
            head = _event_head(request_id, pool.spec)
            while True:
                future: asyncio.Future[InvocationResult | None] = asyncio.get_running_loop().create_future()
                invocation = Invocation(request_id, head, payload, future)
                environment = self._free(pool) or await self._create(pool)
                environment.start(invocation)
                result = await future
                if result is not None:
                    self._meter.invocation(function, invocation.seconds, pool.spec.memory)
                    return result
        finally:
            self._give_back(pool)

    async def close(self) -> None:
        """Kill every environment and wait for its end."""
        alive = list(self._alive)
        for environment in alive:
            environment.kill()
        if alive:
            await asyncio.wait([environment.ended for environment in alive])

    # Whom the environments tell (environment.EnvironmentOwner).

    def environment_idle(self, environment: Environment) -> None:
        """See :class:`~emissary_lib.local.environment.EnvironmentOwner`."""
        pool = self._pools[environment.spec.logical_id]
        if environment in pool.returning:
            pool.returning.remove(environment)
        if self._fresh:
            environment.kill()
        else:
            pool.idle.append(environment)

    def environment_returning(self, environment: Environment) -> None:
        """See :class:`~emissary_lib.local.environment.EnvironmentOwner`."""
        if not self._fresh:
            self._pools[environment.spec.logical_id].returning.append(environment)

    def environment_dead(self, environment: Environment) -> None:
        """See :class:`~emissary_lib.local.environment.EnvironmentOwner`."""
        pool = self._pools[environment.spec.logical_id]
        for free in (pool.idle, pool.returning):
            if environment in free:
                free.remove(environment)

    def environment_measured(self, environment: Environment, init_seconds: float) -> None:
        """See :class:`~emissary_lib.local.environment.EnvironmentOwner`."""
        self._log(environment.spec, f"INIT_REPORT Init Duration: {init_seconds * 1000:.2f} ms")

    def _take(self, pool: _Pool) -> bool:
        if pool.spec.reserved_concurrency is None:
            if self._shared_free <= 0:
                return False
            self._shared_free -= 1
        elif pool.running >= pool.spec.reserved_concurrency:
            return False
        pool.running += 1
        return True

    def _give_back(self, pool: _Pool) -> None:
        pool.running -= 1
        if pool.spec.reserved_concurrency is None:
            self._shared_free += 1

    def _free(self, pool: _Pool) -> Environment | None:
        if pool.idle:
            return pool.idle.pop()
        if pool.returning:
            return pool.returning.pop(0)
        return None

    async def _create(self, pool: _Pool) -> Environment:
        spec = pool.spec
        identifier = f"{next(self._numbers):06d}{secrets.token_hex(13)}"
        environment = Environment(identifier, spec, self, self._log)
        runtime_api = await environment.listen()
        self._alive.add(environment)
        environment.ended.add_done_callback(lambda _: self._alive.discard(environment))
        credentials = self._identities.by_function[spec.logical_id]
        variables = environment_variables(spec, credentials, self._endpoints(), runtime_api, identifier)
        # The invocation must be there before the process can answer or die.
        asyncio.get_running_loop().call_soon(
            self._forker.spawn, environment, variables, spec.task_root, self._log_file(spec)
        )
        return environment

    def _log_file(self, spec: FunctionSpec) -> Path:
        return self._logs / f"{spec.logical_id}.log"

    def _log(self, spec: FunctionSpec, line: str) -> None:
        with self._log_file(spec).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _event_head(request_id: str, spec: FunctionSpec) -> bytes:
    # Root=1-{seconds in hex}-{96 bits}; source: AWS X-Ray Developer Guide, "Tracing header".
    trace = f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=0"
    return (
        f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Invoked-Function-Arn: {spec.arn}\r\n"
        f"Lambda-Runtime-Trace-Id: {trace}\r\n"
    ).encode()
