"""Notices that the host slept, or that the process was stopped (docs/protocol.md section 4.7).

Timers do not: ``time.monotonic`` and the timeouts of ``select`` stand still while Linux or macOS sleeps, so a
timer of four minutes still has its four minutes to go on waking, however long everybody else has waited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emissary_lib.system import sleepless_clock

#: Longest wait between two looks at the clock, in seconds. Each look costs a turn of the driver, some 0.3 ms
#: of processor time for each tunnel.
LOOK: Final = 5.0

#: How late a look may be before that counts as suspended, in seconds: what a busy machine may add.
LATE: Final = 2.0


class SuspendDetector:
    """One driver's looks at the clock.

    A suspension of more than ``LOOK + LATE`` is always noticed, at the first turn after it; a shorter one
    perhaps. A turn that was itself held up for as long counts as well.

    Args:
        clock: Goes on while the host sleeps; ``None`` for :func:`sleepless_clock`.

    Thread safety: for one thread.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or sleepless_clock()
        self._looked = self._clock()

    def cap(self, timeout: float | None) -> float:
        """How long to wait at most, so that the next look is in time; ``None`` for no end."""
        return LOOK if timeout is None else min(timeout, LOOK)

    def look(self) -> bool:
        """Look at the clock: whether everything stood still since the last look."""
        before, self._looked = self._looked, self._clock()
        return self._looked - before > LOOK + LATE
