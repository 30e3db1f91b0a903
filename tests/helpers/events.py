"""The events in ``events/``: what API Gateway and Lambda hand to the functions, replayable.

Their MACs are valid for the key, nonce and date of :mod:`tools.replay.example`; tests replay them with a
clock that stands at :data:`NOW`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tools.replay.example import DATE as DATE
from tools.replay.example import DIALER as DIALER
from tools.replay.example import HOST as HOST
from tools.replay.example import INSTANCE as INSTANCE
from tools.replay.example import KEY as KEY
from tools.replay.example import NONCE as NONCE
from tools.replay.example import NOW as NOW
from tools.replay.example import RELAY as RELAY
from tools.replay.example import RELAY_TOKEN as RELAY_TOKEN
from tools.replay.example import RESUME_NONCE as RESUME_NONCE
from tools.replay.example import RESUME_TOKEN as RESUME_TOKEN
from tools.replay.example import SESSION as SESSION
from tools.replay.example import STAGE as STAGE

#: The dialer's next connection.
DIALER_AGAIN: Final = "Uv8eQfH1FiACEtM="
#: What the example opening asks for.
TARGET: Final = "db.internal:5432"

EVENTS: Final = Path(__file__).resolve().parents[2] / "events"


def load_event(
    name: str,
    *,
    connection_id: str | None = None,
    request_id: str | None = None,
    body: bytes | str | None = None,
    headers: Mapping[str, str | None] | None = None,
    close_code: int | None = None,
) -> dict[str, Any]:
    """Read ``events/<name>.json``.

    Args:
        name: File name without suffix.
        connection_id: Another connection.
        request_id: Another request.
        body: Another message.
        headers: Headers to set; None takes one away.
        close_code: Another close code, of a ``$disconnect``.
    """
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    if connection_id is not None:
        event["requestContext"]["connectionId"] = connection_id
    if request_id is not None:
        event["requestContext"]["requestId"] = request_id
    if body is not None:
        event["body"] = body.decode() if isinstance(body, bytes) else body
    if close_code is not None:
        event["requestContext"]["disconnectStatusCode"] = close_code
    for header, value in (headers or {}).items():
        event["headers"].pop(header, None)
        event["multiValueHeaders"].pop(header, None)
        if value is not None:
            event["headers"][header] = value
            event["multiValueHeaders"][header] = [value]
    return event
