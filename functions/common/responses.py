"""What API Gateway is told: the only table of exceptions and statuses.

On ``$connect`` the status is the upgrade's (docs/protocol.md section 3.1). On ``$disconnect`` nobody listens.

On ``$default`` API Gateway ignores the status: a client learns that its message was not handled only if the
*invocation fails*, by the frame ``{"message": "Internal server error", ...}`` (docs/protocol.md section 4.6).
So where a message was accepted but could not be delivered, and sending it again would help, the handler
raises; that costs a data point in the function's error metric, which is true, and works even while
the callback API is throttled. Everything else is answered in the protocol, and the status is 200.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from emissary_lib.protocol.auth.headers import MissingCredentialsError
from emissary_lib.protocol.auth.macs import WrongHostError
from emissary_lib.protocol.errors import AuthenticationError, ConfigError, EmissaryError, RemoteProtocolError
from functions.common import logs, metrics
from functions.common.errors import (
    ClaimRefusedError,
    EventError,
    KeysUnavailableError,
    LaunchError,
    NonceBurntError,
    PeerBusyError,
    PeerError,
    StoreError,
    SubprotocolError,
)
from functions.common.metrics import Metric

Response = dict[str, Any]
Handler = Callable[[Mapping[str, Any], object], Response]

#: Exception -> HTTP status; the first class that fits counts.
STATUS: Final[Mapping[type[Exception], int]] = {
    SubprotocolError: 400,
    EventError: 400,
    RemoteProtocolError: 400,
    MissingCredentialsError: 401,
    WrongHostError: 421,
    AuthenticationError: 403,
    NonceBurntError: 409,
    ClaimRefusedError: 409,
    PeerBusyError: 429,
    KeysUnavailableError: 503,
    StoreError: 503,
    LaunchError: 503,
    PeerError: 502,
    ConfigError: 500,
    EmissaryError: 500,
}

#: From here on it is our failure, not the caller's.
_OURS: Final = 500


class MessageNotHandledError(Exception):
    """Ends an invocation of ``$default``, so that API Gateway tells the sender; the cause is in the log."""


def status_of(exc: Exception) -> int:
    """The HTTP status for an exception; 500 for any that is not in the table."""
    return next((status for kind, status in STATUS.items() if isinstance(exc, kind)), 500)


def to_gateway(
    route: Callable[[Mapping[str, Any]], Mapping[str, str] | None], *, tell_sender: bool = False
) -> Handler:
    """Make a Lambda handler.

    Args:
        route: Handles the event; returns the response's headers, or None.
        tell_sender: Whether a failure ends the invocation instead of giving a status (``$default``).

    Returns:
        A handler that always returns a response object, or raises :class:`MessageNotHandledError`.
    """

    def handler(event: Mapping[str, Any], context: object) -> Response:
        try:
            headers = route(event)
        except Exception as exc:
            status = status_of(exc)
            _log(exc, status, event)
            _count(exc, status, event)
            if tell_sender and status >= 429:
                # No cause: Lambda would write it, and a traceback, to the log a second time.
                raise MessageNotHandledError(f"{type(exc).__name__}: the message was not handled") from None
            return {"statusCode": status}
        return {"statusCode": 200, "headers": dict(headers)} if headers else {"statusCode": 200}

    return handler


def _count(exc: Exception, status: int, event: Mapping[str, Any]) -> None:
    if isinstance(exc, PeerBusyError):
        metrics.count(Metric.PEER_THROTTLED)
    elif _context(event).get("routeKey") == "$connect":
        metrics.count(Metric.AUTH_FAILURE if status in (401, 403, 421) else Metric.CONNECT_REFUSED)


def _context(event: Mapping[str, Any]) -> Mapping[str, Any]:
    context = event.get("requestContext") if isinstance(event, Mapping) else None
    return context if isinstance(context, Mapping) else {}


def _log(exc: Exception, status: int, event: Mapping[str, Any]) -> None:
    context = _context(event)
    connection, request, route = (context.get(k) for k in ("connectionId", "requestId", "routeKey"))
    if isinstance(exc, EmissaryError):
        text = "request failed" if status >= _OURS else "request refused"
        logs.warning(
            text, cause=str(exc), status=status, route=route, connection_id=connection, request_id=request
        )
    else:
        logs.error(
            "unexpected error", exc, status=status, route=route, connection_id=connection, request_id=request
        )
