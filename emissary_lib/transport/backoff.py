"""How long to wait between two attempts at something that is expected back (docs/protocol.md section 5.2)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

from emissary_lib.protocol.constants import BACK_OFF

#: Gives a random number from 0 to 1. It comes from the system: a state of ours would give each forked child
#: the same numbers, and the state of the ``random`` module belongs to the program that uses us.
jitter: Final[Callable[[], float]] = random.SystemRandom().random


def back_off(draw: Callable[[], float] = jitter) -> Iterator[float]:
    """Seconds to wait before the second attempt, the third, and so on, without end.

    Each is drawn between half and one and a half of a wait that doubles from the first to the longest of
    :data:`~emissary_lib.protocol.constants.BACK_OFF`: clients that were cut off together must not come back
    together.

    Args:
        draw: Gives a random number from 0 to 1.
    """
    wait, longest = BACK_OFF
    while True:
        yield wait * (0.5 + draw())
        wait = min(longest, wait * 2)
