"""Lambda: finds or starts an execution environment for every invocation, within the concurrency limits.

As on AWS an invocation that finds no free environment gets a new one and waits for it, even if another
becomes free meanwhile; that is what reorders messages by as much as a cold start. Only one that has had to
wait for its turn to start one (:data:`INITS_PER_PROCESSOR`) takes what has become free until then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from emissary_local.billing.meter import Meter
from emissary_local.errors import LocalCloudError, UnknownFunctionError
from emissary_local.faults import FaultEngine, FaultRng, Site
from emissary_local.lambda_.cpu_share import PROCESSOR_MEMORY
from emissary_local.lambda_.environment import Environment, EnvironmentState, Invocation, InvocationFault
from emissary_local.lambda_.forkserver import ForkServer
from emissary_local.lambda_.variables import Endpoints, Identities, environment_variables
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import FunctionSpec

#: How many environments of each processor may be in their init phase at once.
#:
#: On AWS every environment has a processor of its own while it starts. Here they share this machine's, and a
#: start is nothing but work for the processor: a hundred at once, as after a storm, would take as long as one
#: after the other, and nothing else would get its turn meanwhile. Two, because one waits now and then.
INITS_PER_PROCESSOR: Final = 2

#: Longest timeout of a function, in seconds. Source: Lambda's API (botocore 1.44.7), CreateFunction.
LONGEST_TIMEOUT: Final = 1800.0

_CRASHES: Final = (InvocationFault.DIES_BEFORE, InvocationFault.DIES_DURING, InvocationFault.DIES_AFTER)

_THROTTLED: Final = InvocationResult(InvocationStatus.THROTTLED)


class _Pool:
    """One function's environments and running count."""

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self.running = 0
        self.idle: list[Environment] = []  # the last one was used most recently
        self.returning: list[Environment] = []  # have answered, are about to be idle


class LambdaService:
    """Runs invocations; the synchronous half of :class:`~emissary_local.ports.FunctionInvoker`.

    Args:
        functions: By logical id.
        fork_server: Makes the processes; the caller starts and closes it.
        meter: Told of each invocation's run time.
        identities: The functions' credentials.
        endpoints: Where the functions find the other services; asked when an environment is started.
        logs: Directory for one log file per function.
        account_concurrency: Executions at once in the whole account, reserved ones included.
        fresh_environments: Give every invocation a new process and kill it afterwards.
        faults: What to do wrong on purpose, and the clock.
        on_freeze: Told the function and the process id of each environment that has been stopped.
        init_slots: How many environments may be in their init phase at once; None: as this machine's
            processors allow.
        cpu_share: Hold each environment to its memory's share of a processor, times this; None: to none.

    Raises:
        LocalCloudError: If the reserved concurrency leaves nothing for the other functions.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        *,
        fork_server: ForkServer,
        meter: Meter,
        identities: Identities,
        endpoints: Callable[[], Endpoints],
        logs: Path,
        account_concurrency: int = 1000,
        fresh_environments: bool = False,
        faults: FaultEngine | None = None,
        on_freeze: Callable[[str, int], None] | None = None,
        init_slots: int | None = None,
        cpu_share: float | None = None,
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
        self._fork_server = fork_server
        self._meter = meter
        self._identities = identities
        self._endpoints = endpoints
        self._logs = logs
        self._fresh = fresh_environments
        self._cpu_share = cpu_share
        self._faults = faults or FaultEngine()
        self._rng = {name: self._faults.rng(Site.INVOCATION, name) for name in functions}
        self._skews = self._faults.rng(Site.INVOCATION, "skew")
        self._on_freeze = on_freeze
        self._numbers = itertools.count(1)
        self._init_slots = asyncio.Semaphore(init_slots or INITS_PER_PROCESSOR * len(os.sched_getaffinity(0)))
        self._starting: set[Environment] = set()
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
            fault, dies_in, cold = None, 0.0, False
            if not self._faults.quiet and self._faults.touches(function):
                rng = self._rng[function]
                fault, dies_in = self._draw_fault(rng)
                cold = rng.triggers("cold_start")
                if cold:
                    await asyncio.sleep(rng.up_to("cold_start", self._faults.faults.cold_start_seconds))
            while True:
                future: asyncio.Future[InvocationResult | None] = asyncio.get_running_loop().create_future()
                invocation = Invocation(request_id, head, payload, future, fault=fault, dies_in=dies_in)
                environment = (None if cold else self._free(pool)) or await self._start(pool, cold)
                environment.start(invocation)
                result = await future
                if result is not None:
                    self._meter.invocation(
                        function, invocation.seconds, pool.spec.memory, logged=pool.spec.system_log
                    )
                    return result
        finally:
            self._give_back(pool)

    def log_bytes(self) -> int:
        """How many bytes are in the functions' logs."""
        files = [self._log_file(pool.spec) for pool in self._pools.values()]
        return sum(file.stat().st_size for file in files if file.exists())

    def crash(self, function: str) -> int:
        """Kill the processes that run an invocation of ``function`` now; how many there were."""
        busy = [each for each in self._of(function) if each.state is EnvironmentState.BUSY]
        for environment in busy:
            environment.kill()
        self._faults.count("crash", len(busy))
        return len(busy)

    def retire(self, function: str | None = None) -> int:
        """Kill the idle environments, of one function or of those that faults touch; how many there were.

        The next invocations, however many come at once, all start cold.
        """
        names = (
            [function]
            if function is not None
            else [name for name in self._pools if self._faults.touches(name)]
        )
        idle = [each for name in names for each in self._of(name) if each.state is EnvironmentState.IDLE]
        for environment in idle:
            environment.kill()
        return len(idle)

    def set_timeout(self, function: str, seconds: float) -> None:
        """Give ``function`` another timeout, for invocations from now on; they start cold.

        Source: Lambda's API reference, "UpdateFunctionConfiguration".

        Raises:
            UnknownFunctionError: If the template has no such function.
            LocalCloudError: If Lambda allows no such timeout.
        """
        if not 1 <= seconds <= LONGEST_TIMEOUT:
            raise LocalCloudError(
                f"a function's timeout is 1 to {LONGEST_TIMEOUT:.0f} seconds, not {seconds:g}"
            )
        if function not in self._pools:
            raise UnknownFunctionError(f"the template has no function {function!r}")
        self.replace(dataclasses.replace(self._pools[function].spec, timeout=seconds))

    def replace(self, spec: FunctionSpec) -> None:
        """Give a function another version of its code and settings, for invocations from now on.

        They start cold; those that run go on with what they began with, to their end.

        Source: Lambda's API reference, "UpdateFunctionCode", "UpdateFunctionConfiguration".

        Raises:
            UnknownFunctionError: If the template has no such function.
            LocalCloudError: If its reserved concurrency is another one: what runs is counted by it.
        """
        self.retire(spec.logical_id)
        pool = self._pools[spec.logical_id]
        if spec.reserved_concurrency != pool.spec.reserved_concurrency:
            raise LocalCloudError(f"{spec.logical_id} has another reserved concurrency, which stays as it is")
        pool.spec = spec
        pool.returning.clear()

    async def close(self) -> None:
        """Kill every environment and wait for its end."""
        alive = list(self._alive)
        for environment in alive:
            environment.kill()
        if alive:
            await asyncio.wait([environment.ended for environment in alive])

    # Whom the environments tell (environment.EnvironmentOwner).

    def environment_idle(self, environment: Environment) -> None:
        """See :class:`~emissary_local.lambda_.environment.EnvironmentOwner`."""
        pool = self._pools[environment.spec.logical_id]
        if environment in pool.returning:
            pool.returning.remove(environment)
        if not self._reusable(environment):
            environment.kill()
        else:
            pool.idle.append(environment)
            if self._on_freeze is not None and self._faults.faults.kept_dead:
                pid = environment.pid
                if pid is not None:
                    self._on_freeze(pool.spec.logical_id, pid)

    def environment_returning(self, environment: Environment) -> None:
        """See :class:`~emissary_local.lambda_.environment.EnvironmentOwner`."""
        if self._reusable(environment):
            self._pools[environment.spec.logical_id].returning.append(environment)

    def environment_dead(self, environment: Environment) -> None:
        """See :class:`~emissary_local.lambda_.environment.EnvironmentOwner`."""
        self._end_init(environment)
        pool = self._pools[environment.spec.logical_id]
        for free in (pool.idle, pool.returning):
            if environment in free:
                free.remove(environment)

    def environment_measured(self, environment: Environment, init_seconds: float) -> None:
        """See :class:`~emissary_local.lambda_.environment.EnvironmentOwner`."""
        self._end_init(environment)
        self._log(environment.spec, f"INIT_REPORT Init Duration: {init_seconds * 1000:.2f} ms")

    def _reusable(self, environment: Environment) -> bool:
        return not self._fresh and environment.spec is self._pools[environment.spec.logical_id].spec

    def _of(self, function: str) -> list[Environment]:
        if function not in self._pools:
            raise UnknownFunctionError(f"the template has no function {function!r}")
        return [each for each in self._alive if each.spec.logical_id == function]

    def _draw_fault(self, rng: FaultRng) -> tuple[InvocationFault | None, float]:
        """What goes wrong with the next invocation, and for ``DIES_DURING`` when."""
        if rng.triggers("crash"):
            fault = rng.stream("crash").choice(_CRASHES)
            return fault, rng.up_to("crash", self._faults.faults.crash_seconds)
        if rng.triggers("invoke_hang"):
            return (
                InvocationFault.HANGS_BEFORE if rng.coin("invoke_hang") else InvocationFault.HANGS_AFTER
            ), 0.0
        return None, 0.0

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

    async def _start(self, pool: _Pool, cold: bool) -> Environment:
        """A new environment, in its turn; or, unless it must be a new one, any that is free by then."""
        await self._init_slots.acquire()
        try:
            free = None if cold else self._free(pool)
            if free is None:
                environment = await self._create(pool)
                self._starting.add(environment)  # it holds the slot until its init phase ends
                return environment
        except BaseException:
            self._init_slots.release()
            raise
        self._init_slots.release()
        return free

    def _end_init(self, environment: Environment) -> None:
        if environment in self._starting:
            self._starting.discard(environment)
            self._init_slots.release()

    async def _create(self, pool: _Pool) -> Environment:
        spec = pool.spec
        identifier = f"{next(self._numbers):06d}{secrets.token_hex(13)}"
        faults = self._faults.faults
        skew = faults.skew_seconds
        if faults.skew_spread:
            skew += self._skews.stream("skew_spread").uniform(-faults.skew_spread, faults.skew_spread)
        share = None if self._cpu_share is None else self._cpu_share * spec.memory / PROCESSOR_MEMORY
        environment = Environment(identifier, spec, self, self._log, lambda: time.time() + skew, share)
        runtime_api = await environment.listen()
        self._alive.add(environment)
        environment.ended.add_done_callback(lambda _: self._alive.discard(environment))
        credentials = self._identities.by_function[spec.logical_id]
        variables = environment_variables(spec, credentials, self._endpoints(), runtime_api, identifier)
        # The invocation must be there before the process can answer or die.
        asyncio.get_running_loop().call_soon(
            self._fork_server.spawn, environment, variables, spec.task_root, self._log_file(spec), skew
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
