"""The JSON that API Gateway itself writes: on the data channel, and as the body of a refused request.

The texts are those its users quote; the spacing is AWS's own.
"""

from __future__ import annotations

import json
from typing import Final

INTERNAL_SERVER_ERROR: Final = "Internal server error"
ENDPOINT_TIMED_OUT: Final = "Endpoint request timed out"
FORBIDDEN: Final = "Forbidden"
UNAUTHORIZED: Final = "Unauthorized"

#: HTTP status -> (message, ``x-amzn-ErrorType``), for refusals.
_REFUSALS: Final = {
    400: ("Bad Request", "BadRequestException"),
    401: (UNAUTHORIZED, "UnauthorizedException"),
    403: (FORBIDDEN, "ForbiddenException"),
    404: ("Not Found", "NotFoundException"),
    409: ("Conflict", "ConflictException"),
    429: ("Too Many Requests", "TooManyRequestsException"),
    502: (INTERNAL_SERVER_ERROR, "InternalServerErrorException"),
    504: (ENDPOINT_TIMED_OUT, "GatewayTimeoutException"),
}


def error_frame(message: str, connection_id: str, request_id: str) -> bytes:
    """What a client receives, as a text message, when its message's route failed."""
    return (
        f'{{"message": {json.dumps(message)}, "connectionId":"{connection_id}", "requestId":"{request_id}"}}'
    ).encode()


def refused_upgrade(status: int, connection_id: str | None, request_id: str) -> tuple[str, bytes]:
    """The error type and the JSON body of a refused upgrade.

    Args:
        status: HTTP status of the refusal.
        connection_id: The id that the connection would have had; ``None`` if there was no stage to ask.
        request_id: Id of the request.
    """
    fallback = (INTERNAL_SERVER_ERROR, "InternalServerErrorException") if status >= 500 else _REFUSALS[400]
    message, kind = _REFUSALS.get(status, fallback)
    if connection_id is None:
        return kind, f'{{"message":{json.dumps(message)}}}'.encode()
    return kind, error_frame(message, connection_id, request_id)
