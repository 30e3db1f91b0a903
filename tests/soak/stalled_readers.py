"""Readers that have stopped: how much memory one stream takes while nobody reads at either end.

``python -m tests.soak.stalled_readers``, in a process of its own, so that its memory is the dialer's alone.
Settings come as one line of JSON on standard input (:mod:`tests.soak.child`), the counts go as one line to
standard output when standard input ends.
"""

from __future__ import annotations

import gc
import random
import threading
from pathlib import Path
from typing import Final

from tests.soak import child
from tests.soak.leaks import peak_memory, resident_memory
from tests.soak.target import Transfer
from tests.soak.work import Context, exchange, transfers

#: Most memory that one stream may take beyond its window, in bytes.
ALLOWANCE: Final = 16_000_000

#: Bytes each way: several times what both windows and all kernel buffers hold.
SIZE: Final = 16_000_000

#: How long nobody reads, in seconds: long enough for every buffer to be full, whatever goes wrong meanwhile.
_STOPPED: Final = (8.0, 15.0)


def stalled_readers(context: Context, chance: random.Random) -> None:
    """Both ends write and neither reads; then they do, and every byte must be right. What it took is told."""
    pause = chance.uniform(*_STOPPED)
    transfer = Transfer(chance.randrange(1 << 62), SIZE, SIZE, pause=pause)
    gc.collect()
    before = resident_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; proc(5)
    try:
        with transfers(context, transfer) as sock:
            exchange(context, sock, transfer, wait=lambda: context.stop.wait(pause))
    finally:
        taken = peak_memory() - before
        context.stats.most("stream_mb", taken)


def warmed_up(context: Context, chance: random.Random) -> None:
    """One whole transfer, so that what is loaded and pooled once is not taken for the stream's."""
    transfer = Transfer(chance.randrange(1 << 62), 1_000_000, 1_000_000)
    with transfers(context, transfer) as sock:
        exchange(context, sock, transfer)


def main() -> None:
    """Work until standard input ends; then finish what has begun."""
    first = threading.Event()

    def work(context: Context, chance: random.Random) -> None:
        if not first.is_set():
            warmed_up(context, chance)
            first.set()
        else:
            stalled_readers(context, chance)

    child.run("stopped", work)


if __name__ == "__main__":
    main()
