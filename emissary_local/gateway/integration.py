"""A route's function behind API Gateway: the call, its time limit, and what its answer means."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emissary_local.errors import LocalCloudError
from emissary_local.gateway.error_frames import ENDPOINT_TIMED_OUT, FORBIDDEN, INTERNAL_SERVER_ERROR
from emissary_local.limits import Limits
from emissary_local.ports import FunctionInvoker, InvocationResult, InvocationStatus
from emissary_local.template.specs import Route

_log = logging.getLogger(__name__)


class IntegrationError(LocalCloudError):
    """A route has no function, or the function gave no usable answer in time.

    Attributes:
        status: HTTP status for a refused upgrade: 401, 403, 429, 500, 502 or 504.
        frame_message: The ``message`` of the error frame for a client's message.
    """

    def __init__(self, status: int, frame_message: str, cause: str) -> None:
        super().__init__(cause)
        self.status = status
        self.frame_message = frame_message


@dataclass(frozen=True, slots=True)
class Answer:
    """A Lambda proxy response, as far as a WebSocket API looks at it.

    Attributes:
        status: ``statusCode``.
        subprotocol: The response's ``Sec-WebSocket-Protocol``: the one header that reaches the client.
        body: What reaches the client, if the route has a route response: ``body``.
    """

    status: int
    subprotocol: str | None = None
    body: bytes | None = None


class Integrations:
    """Calls the functions of an API's routes.

    Args:
        routes: Route key (``$connect``, ``$default``, ``sendmessage``...) to what is behind it.
        invoker: Runs the functions.
        limits: The integration timeout.
    """

    def __init__(self, routes: Mapping[str, Route], invoker: FunctionInvoker, limits: Limits) -> None:
        self._routes = dict(routes)
        self._invoker = invoker
        self._limits = limits
        self._running: set[asyncio.Task[InvocationResult]] = set()

    def has(self, route: str) -> bool:
        """Whether there is such a route."""
        return route in self._routes

    async def call(self, route: str, event: bytes) -> Answer:
        """Invoke a route's function once and read its answer.

        Past the integration timeout the caller is let go, but the function runs on, as on AWS.

        Raises:
            IntegrationError: If there is no such route (403), no concurrency was left (429), the function
                failed, was killed at its own timeout or answered no response object (502), or the
                integration timeout passed (504).
        """
        found = self._routes.get(route)
        if found is None:
            raise IntegrationError(403, FORBIDDEN, f"no route {route}")
        if found.function is None:
            return Answer(found.status)
        return _read(found, found.function, await self.run(found.function, event, found.timeout))

    async def run(self, function: str, event: bytes, timeout: float | None = None) -> InvocationResult:
        """Invoke a function once.

        Args:
            function: Its logical id.
            event: The event.
            timeout: Longest wait, in seconds, if that is shorter than the integration timeout.

        Raises:
            IntegrationError: If it could not be invoked (502), or the timeout passed (504).
        """
        task = asyncio.ensure_future(self._invoker.invoke(function, event))
        self._running.add(task)
        task.add_done_callback(self._on_end)
        longest = self._limits.integration
        if timeout is not None:
            longest = min(longest, self._limits.run(timeout))
        done, _ = await asyncio.wait({task}, timeout=longest)
        if not done:
            raise IntegrationError(504, ENDPOINT_TIMED_OUT, f"{function} ran past the integration timeout")
        if task.cancelled() or task.exception() is not None:
            raise IntegrationError(502, INTERNAL_SERVER_ERROR, f"{function} could not be invoked")
        return task.result()

    def _on_end(self, task: asyncio.Task[InvocationResult]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A fault of the local cloud, not of the function: the client gets 502, we want the traceback.
            _log.error("the invoker failed", exc_info=task.exception())

    async def close(self) -> None:
        """Give up every call still running."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(route: Route, function: str, result: InvocationResult) -> Answer:
    if result.status is InvocationStatus.THROTTLED:
        # For a message this ends as "Internal server error" too: Lambda's 429 is an integration failure
        # to the gateway, and only an upgrade has an HTTP status to show it in.
        raise IntegrationError(429, INTERNAL_SERVER_ERROR, f"{function} was throttled")
    if result.status is not InvocationStatus.OK:
        raise IntegrationError(502, INTERNAL_SERVER_ERROR, f"{function} failed: {result.status.value}")
    try:
        answer: Any = json.loads(result.payload)
        status = int(answer["statusCode"])
        body = answer.get("body") if route.replies else None
        body = None if body is None else str.encode(body)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise IntegrationError(
            502, INTERNAL_SERVER_ERROR, f"{function} answered no response object with a statusCode"
        ) from exc
    headers = answer.get("headers")
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if name.lower() == "sec-websocket-protocol":
            return Answer(status, str(value), body)
    return Answer(status, None, body)
