"""The events in ``events/``: what API Gateway and Lambda hand to the functions, replayable.

Their MACs are valid for the example key, nonce and date below, which are documented, fixed and secret to
nobody; tests replay them with a clock that stands at :data:`NOW`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emissary_lib.protocol.auth import session_id
from emissary_lib.protocol.keys import Key

EVENTS: Final = Path(__file__).resolve().parents[2] / "events"

#: The example key: 32 bytes, 0 to 31.
KEY: Final = Key(1, bytes(range(32)))
#: The example nonce: 32 bytes, 64 to 95. Its session.
NONCE: Final = bytes(range(64, 96))
SESSION: Final = session_id(NONCE)
#: The example date, and the same moment on the clock.
DATE: Final = "Sun, 22 Nov 2026 10:15:00 GMT"
NOW: Final = 1_795_342_500.0
HOST: Final = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
STAGE: Final = "emissary"
DIALER: Final = "Uv8abcE0FiACDIA="
RELAY: Final = "Uv8bXdR3FiACReL="
#: The dialer's next connection, and the nonce it signed that with: 32 bytes, 192 to 223.
DIALER_AGAIN: Final = "Uv8eQfH1FiACEtM="
RESUME_NONCE: Final = bytes(range(192, 224))
#: 32 bytes, 128 to 159; and 160 to 191.
RELAY_TOKEN: Final = bytes(range(128, 160))
RESUME_TOKEN: Final = bytes(range(160, 192))
INSTANCE: Final = "0123456789abcdef0123456789abcdef"
#: What the example opening asks for.
TARGET: Final = "db.internal:5432"


def load_event(
    name: str,
    *,
    connection_id: str | None = None,
    request_id: str | None = None,
    body: str | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Read ``events/<name>.json``.

    Args:
        name: File name without suffix.
        connection_id: Another connection.
        request_id: Another request.
        body: Another message.
        headers: Headers to set; None takes one away.
    """
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    if connection_id is not None:
        event["requestContext"]["connectionId"] = connection_id
    if request_id is not None:
        event["requestContext"]["requestId"] = request_id
    if body is not None:
        event["body"] = body
    for header, value in (headers or {}).items():
        event["headers"].pop(header, None)
        event["multiValueHeaders"].pop(header, None)
        if value is not None:
            event["headers"][header] = value
            event["multiValueHeaders"][header] = [value]
    return event
