"""Claims a session by dialling back (docs/protocol.md section 3.4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from emissary_lib.exceptions import GatewayRefusedError, GatewayUnreachableError
from emissary_lib.transport.backoff import back_off, may_pass, wait
from emissary_lib.transport.deadline import Deadline

T = TypeVar("T")

_NOT_OURS: Final = 409


class Claimed(NamedTuple, Generic[T]):
    """A session that is ours: what the dial-back gave, and the epoch that it was claimed with."""

    link: T
    epoch: int


def claim(
    dial_back: Callable[[int], T], deadline: Deadline, *, sleep: Callable[[float], None] = time.sleep
) -> Claimed[T] | None:
    """Dial back until the gateway lets us in.

    Every attempt has an epoch of its own, whether or not its answer arrives: an attempt that failed here may
    have claimed the session there, and the next one must not look like an older one (section 5).

    Args:
        dial_back: Opens the WebSocket with this epoch, 1 at the first attempt; raises what
            ``transport.websocket.connect`` does.
        deadline: Until when another attempt may follow one that failed; one under way is not cut short.
        sleep: Waits some seconds.

    Returns:
        What ``dial_back`` gave, with its epoch; ``None`` if the session is not ours to claim: another
        instance holds it, it is over, or nobody is there any more.

    Raises:
        GatewayRefusedError, GatewayUnreachableError, TimeoutError: It did not work in time.
    """
    waits = back_off()
    epoch = 0
    while True:
        epoch += 1
        try:
            return Claimed(dial_back(epoch), epoch)
        except GatewayRefusedError as exc:
            if exc.http_status == _NOT_OURS:
                return None
            if not may_pass(exc.http_status):
                raise
            wait(next(waits), deadline, exc, sleep=sleep)
        except GatewayUnreachableError as exc:
            wait(next(waits), deadline, exc, sleep=sleep)
