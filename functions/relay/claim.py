"""Claims a session by dialling back (docs/protocol.md section 3.4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from emissary_lib.deadline import Deadline
from emissary_lib.exceptions import GatewayRefusedError, GatewayUnreachableError

T = TypeVar("T")

#: Pauses between attempts, in seconds; the last one is repeated.
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0)

_NOT_OURS: Final = 409


def claim(
    dial_back: Callable[[], T], deadline: Deadline, *, pause: Callable[[float], None] = time.sleep
) -> T | None:
    """Dial back until the gateway lets us in.

    Args:
        dial_back: Opens the WebSocket; raises what ``transport.websocket.connect`` does.
        deadline: How long 429, 5xx and silence are put up with.
        pause: Waits some seconds.

    Returns:
        What ``dial_back`` gave; ``None`` if the session is not ours to claim: another instance holds it, it
        is over, or nobody is there any more.

    Raises:
        GatewayRefusedError, GatewayUnreachableError, TimeoutError: It did not work in time.
    """
    attempt = 0
    while True:
        try:
            return dial_back()
        except GatewayRefusedError as exc:
            if exc.http_status == _NOT_OURS:
                return None
            if (exc.http_status != 429 and exc.http_status < 500) or deadline.passed():
                raise
        except GatewayUnreachableError:
            if deadline.passed():
                raise
        pause(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        attempt += 1
