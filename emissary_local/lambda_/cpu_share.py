"""How much of a processor an execution environment gets: by its memory, as on Lambda.

Lambda gives a function processor time in proportion to its memory, by the kernel's quota on a control group:
a process that has used its quota stands still until the period is over. Here a process that has used more
than its share is stopped (SIGSTOP) until time has caught up with it: that needs no privilege and no control
groups, and the share is the same. It comes in larger pieces on a busy machine, though: a process is looked at
every few milliseconds, if the event loop gets its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

#: Memory, in MB, that comes with one whole processor. Source: AWS Lambda Developer Guide, "Configure Lambda
#: function memory": "At 1,769 MB, a function has the equivalent of one vCPU".
PROCESSOR_MEMORY: Final = 1769

#: Seconds of unused share that can be made up for at once: one period of the kernel's quota. AWS publishes
#: no figure; 20 ms is what people have measured there.
PERIOD: Final = 0.02

#: Seconds between two looks at a process that runs.
LOOK_EVERY: Final = 0.002

#: Linux: the clock of a process's CPU time, all threads together, from its id. Source: clock_getcpuclockid(3)
#: and the kernel's include/linux/posix-timers_types.h (CPUCLOCK_SCHED).
_CPUCLOCK_SCHED: Final = 2


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all threads together; 0 if it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


class CpuBudget:
    """What a process may use, by its share. Pure.

    Args:
        share: Of one processor; may be more than 1.
        used: CPU seconds that it has used so far, which are free.
        now: The time, in seconds.
    """

    def __init__(self, share: float, used: float, now: float) -> None:
        self._share = share
        self._used = used
        self._seen = now
        self._credit = share * PERIOD

    def pause(self, used: float, now: float) -> float:
        """Seconds for which it has to stand still now; 0.0 while it is within its share.

        Args:
            used: CPU seconds that it has used so far.
            now: The time, in seconds.
        """
        earned, spent = self._share * max(0.0, now - self._seen), max(0.0, used - self._used)
        self._credit = min(self._credit + earned - spent, self._share * PERIOD)
        self._seen, self._used = max(self._seen, now), max(self._used, used)
        return max(0.0, -self._credit / self._share)


class CpuThrottle:
    """Holds one process to a share, whenever it is to run.

    Args:
        share: Of one processor.
        used: Gives the CPU seconds that it has used so far; those of before are free.
        stop: Stops it.
        go: Lets it go on.

    Thread safety: none; it belongs to the event loop that it was made on.
    """

    def __init__(
        self, share: float, used: Callable[[], float], stop: Callable[[], None], go: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._read, self._stop, self._go = used, stop, go
        self._timer: asyncio.TimerHandle | None = None
        self._budget = CpuBudget(share, used(), self._loop.time())

    def begin(self) -> None:
        """The process runs from now on; what it owes from before is due now."""
        self.end()
        self._look()

    def end(self) -> None:
        """Leave the process as it is: it is frozen, or over. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        pause = self._budget.pause(self._read(), self._loop.time())
        if pause:
            self._stop()
            self._timer = self._loop.call_later(pause, self._resume)
        else:
            self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def _resume(self) -> None:
        self._go()
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)
