"""What the parts of the local cloud ask of each other."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

#: Why ``identity`` may not do ``action`` on the resource ``arn``, in words; None if it may.
Authorize = Callable[[str, str, str], str | None]


def allow_all(identity: str, action: str, arn: str) -> str | None:
    """Allow every signed call."""
    return None


class InvocationStatus(enum.Enum):
    """How an invocation ended, as the caller of Lambda's Invoke API would see it."""

    OK = "ok"
    #: The function raised, exited or answered more than 6 MB; the payload is Lambda's error JSON.
    FUNCTION_ERROR = "function_error"
    #: The function ran past its own timeout and was killed.
    TIMEOUT = "timeout"
    #: No concurrency was left (account-wide or reserved): HTTP 429 TooManyRequestsException.
    THROTTLED = "throttled"
    #: An asynchronous invocation was accepted into the queue: HTTP 202.
    QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """The outcome of one invocation.

    Attributes:
        status: How it ended.
        payload: The function's JSON answer, or Lambda's error JSON; empty when queued or throttled.
    """

    status: InvocationStatus
    payload: bytes = b""


class FunctionInvoker(Protocol):
    """Runs Lambda functions; what API Gateway and Lambda's Invoke API stand on."""

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        """Run ``function`` (its logical id in the template) once and wait for its answer."""

    async def enqueue(self, function: str, payload: bytes) -> InvocationResult:
        """Queue one asynchronous (``Event``) invocation and return at once."""
