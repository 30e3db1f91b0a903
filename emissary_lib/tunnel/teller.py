"""Tells what may block, as a log does, in a thread that nobody's bytes wait for."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable


class Teller:
    """Makes calls one after another in a thread of its own, which the first of them starts.

    Thread safety: any.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def tell(self, call: Callable[[], None]) -> None:
        """Have ``call`` made. Does not block, but where no thread is left for it: then it is made here."""
        with self._lock:
            started = self._thread is not None or self._start()
        if started:
            self._calls.put(call)
        else:
            call()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="emissary-teller", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        for call in iter(self._calls.get, None):
            try:
                call()
            except Exception:  # a handler of the program's: the next is told all the same
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))

    def close(self) -> None:
        """Let the thread end; nothing is told any more.

        Blocking: until all was told.
        """
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
