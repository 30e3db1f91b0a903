"""Something done over and over beside the soak."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def every(act: Callable[[], None], *, pause: float, name: str) -> Iterator[None]:
    """Call ``act`` in a thread of its own, each time after ``pause`` seconds, until the end of the block.

    Blocking: at the end of the block, until a call that is under way is over.

    Args:
        act: What to do; what it raises ends the thread.
        pause: Seconds.
        name: The thread's.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(pause):
            act()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
