"""One execution environment: a process under AWS's runtime client, and its Runtime API listener.

The environment is recognised by the port it talks to: each has a listener of its own, because the runtime
client knows a host and a port only. Between invocations the process is stopped (SIGSTOP), as Lambda
freezes it, so that whatever it left running does not run and its kept connections can die.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from emissary_local.lambda_.cpu_share import CpuThrottle, cpu_seconds
from emissary_local.lambda_.runtime_api import MAX_RESPONSE, RuntimeConnection
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import FunctionSpec

#: Longest init phase, in seconds. Source: AWS Lambda Developer Guide, "Lambda execution environment
#: lifecycle": "The Init phase is limited to 10 seconds." What takes longer is begun again as part of the
#: invocation, within the function's timeout; here it is simply given that time as well.
INIT_TIMEOUT: Final = 10.0


class EnvironmentState(enum.Enum):
    """Where an environment is in its life."""

    STARTING = "starting"  # its module is being imported
    IDLE = "idle"  # stopped, waiting for an event
    BUSY = "busy"  # in the handler
    RETURNING = "returning"  # has answered, has not asked for the next event yet
    DEAD = "dead"


class EnvironmentOwner(Protocol):
    """Who is told of an environment's life: the Lambda service."""

    def environment_idle(self, environment: Environment) -> None:
        """It is stopped and free for an invocation."""

    def environment_returning(self, environment: Environment) -> None:
        """Its handler has answered; it will be idle in a moment, and takes an invocation already."""

    def environment_dead(self, environment: Environment) -> None:
        """Its process has ended or is being killed; it takes no more invocations."""

    def environment_measured(self, environment: Environment, init_seconds: float) -> None:
        """Its init phase took this long, from fork to the first request for an event."""


class InvocationFault(enum.Enum):
    """What happens to one invocation on purpose."""

    DIES_BEFORE = "dies before the handler is given the event"
    DIES_DURING = "dies some time after"
    DIES_AFTER = "dies when the handler has answered, and the answer with it"
    HANGS_BEFORE = "never gives the event to the handler"
    HANGS_AFTER = "never hears the handler's answer"


@dataclass(slots=True)
class Invocation:
    """One run of a handler.

    Attributes:
        request_id: Lambda's request id.
        head: Header lines of the Runtime API's answer that never change.
        payload: The event's JSON.
        future: Gets the result, never an exception; None if the environment ended before the handler was
            given the event, through no fault of this invocation: try another.
        started: Loop time from which it is billed, or 0.0 before it was handed to the handler. The init
            phase is billed too (AWS Compute Blog, "AWS Lambda standardizes billing for INIT Phase", 2025).
        seconds: Billed run time, once it has ended.
        fault: What goes wrong with it on purpose.
        dies_in: Seconds after the event was given, for ``DIES_DURING``.
    """

    request_id: str
    head: bytes
    payload: bytes
    future: asyncio.Future[InvocationResult | None]
    started: float = 0.0
    seconds: float = 0.0
    fault: InvocationFault | None = None
    dies_in: float = 0.0


class Environment:
    """One execution environment of one function.

    Args:
        identifier: Its name.
        spec: Its function; ``timeout`` is what is enforced.
        owner: Who is told.
        log: Writes to the function's log.
        clock: The clock that the process reads, seconds since 1970, for its deadlines.
        cpu_share: Of one processor, what its handler may use; None: whatever there is. Its init phase is not
            held to it: AWS says nothing of that.

    Thread safety: none; it belongs to the cloud process's event loop.
    """

    def __init__(
        self,
        identifier: str,
        spec: FunctionSpec,
        owner: EnvironmentOwner,
        log: Callable[[FunctionSpec, str], None],
        clock: Callable[[], float] = time.time,
        cpu_share: float | None = None,
    ) -> None:
        self.id = identifier
        self._cpu_share = cpu_share
        self._throttle: CpuThrottle | None = None
        self._clock = clock
        self.spec = spec
        self.state = EnvironmentState.STARTING
        self._owner = owner
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._pidfd = -1
        self._connections: set[RuntimeConnection] = set()
        self._waiting: RuntimeConnection | None = None
        self._invocation: Invocation | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._doom: asyncio.TimerHandle | None = None
        self._created = self._loop.time()
        self.ended = self._loop.create_future()

    async def listen(self) -> str:
        """Open the Runtime API; its ``host:port``."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self._server = await self._loop.create_server(self._new_connection, sock=listener, backlog=8)
        self._timer = self._loop.call_later(INIT_TIMEOUT + self.spec.timeout, self._init_timed_out)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def on_fork(self, pidfd: int) -> None:
        """The process is there; ``pidfd`` becomes this object's own."""
        if self._pidfd >= 0 or self.ended.done():
            os.close(pidfd)
            return
        self._pidfd = pidfd
        if self.state is EnvironmentState.DEAD:
            self._signal(signal.SIGKILL)

    def on_exit(self, reason: str) -> None:
        """The process has ended (or never started), for ``reason`` in Lambda's words."""
        if self.ended.done():
            return
        if self._invocation is not None:
            request_id = self._invocation.request_id
            text = f"Error: {reason}"
            self._log(self.spec, f"RequestId: {request_id} {text}")
            result = _error(InvocationStatus.FUNCTION_ERROR, "Runtime.ExitError", text, request_id)
            self._finish(None if self.state is EnvironmentState.RETURNING else result)
        self._die()
        for connection in self._connections:
            connection.abort()
        self._connections.clear()
        if self._throttle is not None:
            self._throttle.end()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self.ended.set_result(None)

    def start(self, invocation: Invocation) -> None:
        """Run ``invocation``: now if idle, else as soon as the runtime asks for an event."""
        assert self._invocation is None and self.state is not EnvironmentState.DEAD
        self._invocation = invocation
        if self.state is EnvironmentState.IDLE:
            self._signal(signal.SIGCONT)
            self._deliver()
        elif self.state is EnvironmentState.RETURNING:
            self._arm(self.spec.timeout)

    def kill(self) -> None:
        """Kill the process; its invocation, if any, ends with an exit error."""
        self._die()
        self._signal(signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """Its process, while it is there."""
        return process_of(self._pidfd) if self._pidfd >= 0 else None

    # What the runtime says (runtime_api.RuntimeEvents).

    def next_requested(self, connection: RuntimeConnection) -> None:
        """See :class:`~emissary_local.lambda_.runtime_api.RuntimeEvents`."""
        if self.state is EnvironmentState.DEAD:
            return
        self._waiting = connection
        if self.state is EnvironmentState.STARTING:
            self._cancel_timer()
            self._owner.environment_measured(self, self._loop.time() - self._created)
        if self.state is EnvironmentState.BUSY:
            return  # it has answered, and is not heard: HANGS_AFTER
        if self._invocation is not None:
            self._deliver()
            return
        self.state = EnvironmentState.IDLE
        if self._throttle is not None:
            self._throttle.end()
        self._signal(signal.SIGSTOP)
        self._owner.environment_idle(self)

    def response_posted(self, request_id: str, body: bytes) -> bool:
        """See :class:`~emissary_local.lambda_.runtime_api.RuntimeEvents`."""
        return self._return_result(request_id, InvocationResult(InvocationStatus.OK, body))

    def response_too_large(self, request_id: str, size: int) -> bool:
        """See :class:`~emissary_local.lambda_.runtime_api.RuntimeEvents`."""
        message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
        body = {"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"}
        result = InvocationResult(InvocationStatus.FUNCTION_ERROR, json.dumps(body).encode())
        return self._return_result(request_id, result)

    def error_posted(self, request_id: str, body: bytes) -> bool:
        """See :class:`~emissary_local.lambda_.runtime_api.RuntimeEvents`."""
        return self._return_result(request_id, InvocationResult(InvocationStatus.FUNCTION_ERROR, body))

    def init_failed(self, body: bytes) -> None:
        """See :class:`~emissary_local.lambda_.runtime_api.RuntimeEvents`."""
        self._finish(InvocationResult(InvocationStatus.FUNCTION_ERROR, body))
        self._die()  # the process ends by itself, after it has read our answer

    def _new_connection(self) -> RuntimeConnection:
        connection = RuntimeConnection(self)
        self._connections.add(connection)
        return connection

    def _deliver(self) -> None:
        invocation, connection = self._invocation, self._waiting
        assert invocation is not None and connection is not None
        self._waiting = None
        invocation.started = self._created if self.state is EnvironmentState.STARTING else self._loop.time()
        self.state = EnvironmentState.BUSY
        self._arm(self.spec.timeout)
        self._hold_to_share()
        if invocation.fault is InvocationFault.DIES_BEFORE:
            self.kill()
            return
        if invocation.fault is InvocationFault.DIES_DURING:
            self._doom = self._loop.call_later(invocation.dies_in, self.kill)
        elif invocation.fault is InvocationFault.HANGS_BEFORE:
            return  # its timer runs
        deadline = int((self._clock() + self.spec.timeout) * 1000)
        connection.send_event(
            b"%bLambda-Runtime-Deadline-Ms: %d\r\n" % (invocation.head, deadline), invocation.payload
        )

    def _hold_to_share(self) -> None:
        if self._cpu_share is None or (pid := self.pid) is None:
            return
        if self._throttle is None:
            self._throttle = CpuThrottle(
                self._cpu_share,
                lambda: cpu_seconds(pid),
                lambda: self._signal(signal.SIGSTOP),
                lambda: self._signal(signal.SIGCONT),
            )
        self._throttle.begin()

    def _return_result(self, request_id: str, result: InvocationResult) -> bool:
        invocation = self._invocation
        if (
            invocation is None
            or invocation.request_id != request_id
            or self.state is not EnvironmentState.BUSY
        ):
            return False
        if invocation.fault is InvocationFault.HANGS_AFTER:
            return True  # until its timeout
        if invocation.fault in (InvocationFault.DIES_DURING, InvocationFault.DIES_AFTER):
            self.kill()  # no later than this: it was to die
            return True
        self.state = EnvironmentState.RETURNING
        self._owner.environment_returning(self)
        self._finish(result)
        return True

    def _finish(self, result: InvocationResult | None) -> None:
        self._cancel_timer()
        if self._doom is not None:
            self._doom.cancel()
            self._doom = None
        invocation, self._invocation = self._invocation, None
        if invocation is None:
            return
        if invocation.started:
            invocation.seconds = self._loop.time() - invocation.started
        if not invocation.future.done():
            invocation.future.set_result(result)

    def _arm(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self._timed_out)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        assert self._invocation is not None
        self._time_out(f"Task timed out after {self.spec.timeout:.2f} seconds")

    def _init_timed_out(self) -> None:
        self._time_out(f"Init phase timed out after {INIT_TIMEOUT + self.spec.timeout:.2f} seconds")

    def _time_out(self, text: str) -> None:
        request_id = self._invocation.request_id if self._invocation else ""
        self._log(self.spec, f"{request_id} {text}")
        self._finish(_error(InvocationStatus.TIMEOUT, "Sandbox.Timedout", f"Error: {text}", request_id))
        self.kill()

    def _die(self) -> None:
        if self.state is EnvironmentState.DEAD:
            return
        self.state = EnvironmentState.DEAD
        self._cancel_timer()
        if self._server is not None:
            self._server.close()
        self._owner.environment_dead(self)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # it has just ended; on_exit() will say how


def process_of(pidfd: int) -> int | None:
    """The process behind a pidfd; None once it has been reaped. Source: pidfd_open(2), proc(5) (fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name == "Pid":
                return int(value) if int(value) > 0 else None
    return None


def _error(status: InvocationStatus, kind: str, text: str, request_id: str) -> InvocationResult:
    body = {"errorType": kind, "errorMessage": f"RequestId: {request_id} {text}"}
    return InvocationResult(status, json.dumps(body).encode())
