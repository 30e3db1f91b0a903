"""Tells both sides of a session that it is over, in the bridge's own words (docs/protocol.md section 6).

Source: API Gateway developer guide, "Use @connections commands in your backend service".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.operate.sessions import SessionFacts
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Ended

#: Of a side that could be neither told nor cut off.
NOT_REACHED: Final = "not reached"

_SCHEMES = {"wss": "https", "ws": "http"}


def callback_endpoint(url: str) -> str:
    """Where ``@connections`` is of the API with this WebSocket URL.

    Raises:
        ConfigError: It is no WebSocket's URL.
    """
    parts = urlsplit(Endpoint(url).url)
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"


def tell_ended(client: Any, session: SessionFacts) -> dict[str, str]:
    """Post ENDED to the relay and the dialer; cut the connection of a side that cannot be told.

    Args:
        client: A boto3 client of ``apigatewaymanagementapi`` at the API's :func:`callback_endpoint`.
        session: A session that has been killed.

    Returns:
        Side -> ``told``, ``gone``, ``cut off`` (it hears of the end when it comes back), or
        :data:`NOT_REACHED`.
    """
    payload = Ended(Code.KILLED, 0, 0, MEANINGS[Code.KILLED]).encode()
    text = encode(Frame(FrameType.ENDED, generation=session.generation, payload=payload))
    # The relay first: it is the one that has the target.
    sides = {side: session.connections.get(side) for side in ("relay", "dialer")}
    return {side: _tell(client, connection, text) for side, connection in sides.items()}


def _tell(client: Any, connection: str | None, text: str) -> str:
    from botocore.exceptions import BotoCoreError  # as in emissary_lib.operate.clients

    if connection is None:
        return "gone"
    steps: dict[str, Callable[[], Any]] = {
        "told": lambda: client.post_to_connection(ConnectionId=connection, Data=text.encode("ascii")),
        "cut off": lambda: client.delete_connection(ConnectionId=connection),
    }
    for outcome, step in steps.items():
        try:
            step()
        except client.exceptions.GoneException:
            return "gone"
        except (client.exceptions.ClientError, BotoCoreError):
            continue
        return outcome
    return NOT_REACHED
