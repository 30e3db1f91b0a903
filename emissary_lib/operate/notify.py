"""Tells both sides of a session that it is over, in the bridge's own words (docs/protocol.md section 6).

Source: API Gateway developer guide, "Use @connections commands in your backend service".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.role import Role

#: Of a side that could be neither told nor cut off.
NOT_REACHED: Final = "not reached"

#: The status for a connection that is no longer there.
_GONE: Final = 410


def tell_ended(client: Any, session: SessionRecord) -> dict[str, str]:
    """Post ENDED to the relay and the dialer; cut the connection of a side that cannot be told.

    Args:
        client: A boto3 client of ``apigatewaymanagementapi``, at the address that the functions post to.
        session: A session that has been killed.

    Returns:
        Side -> ``told``, ``gone``, ``cut off`` (it hears of the end when it comes back), or
        :data:`NOT_REACHED`.
    """
    message = replies.encode_ended(session)
    # The relay first: it is the one that has the target.
    sides = (Role.RELAY, Role.DIALER)
    return {role.value: _tell(client, session.side(role).connection, message) for role in sides}


def _tell(client: Any, connection: str | None, message: bytes) -> str:
    from botocore.exceptions import BotoCoreError, ClientError  # as in emissary_lib.aws

    if connection is None:
        return "gone"
    steps: dict[str, Callable[[], Any]] = {
        "told": lambda: client.post_to_connection(ConnectionId=connection, Data=message),
        "cut off": lambda: client.delete_connection(ConnectionId=connection),
    }
    for outcome, step in steps.items():
        try:
            step()
        except ClientError as exc:
            # As in the functions: not everything that answers there names the exception's type.
            if exc.response["ResponseMetadata"]["HTTPStatusCode"] == _GONE:
                return "gone"
            continue
        except BotoCoreError:
            continue
        return outcome
    return NOT_REACHED
