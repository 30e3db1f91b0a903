"""What is worth another attempt, and how long to wait before it (docs/protocol.md sections 3.1 and 5.2)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from emissary_lib.protocol.constants import BACK_OFF
from emissary_lib.transport.deadline import Deadline


def may_pass(http_status: int) -> bool:
    """Whether an upgrade that was answered so may be granted the next time: throttled, or broken."""
    return http_status == 429 or http_status >= 500


def may_be_the_gateways(http_status: int) -> bool:
    """Whether the gateway also answers an upgrade so on its own, without having asked the bridge.

    API Gateway does while a custom domain has no mapping, an API no deployment, or a stage is being changed.
    A refusal of ``$connect``'s looks the same: the gateway takes nothing of it but the status.
    """
    return http_status == 403


def jitter() -> float:
    """A random number from 0 to 1.

    It comes from the system: a state of ours would give each forked child the same numbers, and the state of
    the ``random`` module belongs to the program that uses us.
    """
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def back_off(draw: Callable[[], float] = jitter, *, at_longest: bool = False) -> Iterator[float]:
    """Seconds to wait before the second attempt, the third, and so on, without end.

    Each is drawn between half and one and a half of a wait that doubles from the first to the longest of
    :data:`~emissary_lib.protocol.constants.BACK_OFF`: clients that were cut off together must not come back
    together.

    Args:
        draw: Gives a random number from 0 to 1.
        at_longest: Whether the first wait is as long as any.
    """
    middle, longest = BACK_OFF
    middle = longest if at_longest else middle
    while True:
        yield middle * (0.5 + draw())
        middle = min(longest, middle * 2)


def wait(
    seconds: float, deadline: Deadline, cause: Exception, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait before the next attempt. Raises ``cause``, why the last one failed, if there is no time for it."""
    remaining = deadline.remaining()
    if remaining is not None and remaining <= seconds:
        raise cause
    left = seconds
    while left > 0 and not deadline.passed():  # which need not be a matter of time
        step = deadline.cap(left) or 0.0
        sleep(step)
        left -= step
