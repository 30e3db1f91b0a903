"""Everybody who works in a soak: threads of this process, and processes of their own."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Final

from tests.soak import child, exits, work
from tests.soak.work import Context

#: How many dialers do what, at any time.
WORKERS: Final[dict[Callable[[Context, random.Random], None], int]] = {
    work.bulk_up: 1,
    work.bulk_down: 1,
    work.bulk_both: 1,
    work.half_close: 1,
    work.ping_pong: 2,
    work.short_dial: 2,
    work.idle: 2,
    exits.write_and_exit: 1,
}

#: In processes of their own: eight migrations at once, and streams whose readers have stopped.
CHILDREN: Final = (*["tests.soak.migration"] * 8, "tests.soak.stalled_readers")


class Workers:
    """Works from its making on.

    Args:
        context: Where, and until when: ``context.stop`` ends it.
        settings: For the children.
        seed: Of what each of them does.
    """

    def __init__(self, context: Context, settings: child.Settings, seed: int) -> None:
        self._world = context
        self._threads = [
            threading.Thread(
                target=self._repeat, args=(kind, f"{seed}/{kind.__name__}/{number}"), daemon=True
            )
            for kind, count in WORKERS.items()
            for number in range(count)
        ]
        self._children: list[subprocess.Popen[str]] = [
            child.start(module, settings, f"{seed}/{number}") for number, module in enumerate(CHILDREN)
        ]
        for thread in self._threads:
            thread.start()

    def finish(self, deadline: float) -> None:
        """Let everybody end the piece of work that has been begun; who does not is a mismatch.

        Args:
            deadline: Until when, on the monotonic clock.
        """
        self._world.stop.set()
        for process in self._children:
            child.stop(process)
        for process in self._children:
            child.end(process, self._world.stats, deadline - time.monotonic())
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if hung := sum(thread.is_alive() for thread in self._threads):
            # They hold their sockets, and leaks are looked for all the same.
            self._world.stats.mismatch(f"{hung} pieces of work hang")

    def _repeat(self, kind: Callable[[Context, random.Random], None], seed: str) -> None:
        chance = random.Random(seed)
        while not self._world.stop.is_set():
            if not work.attempt(self._world, kind.__name__, kind, chance):
                self._world.stop.wait(0.2)
