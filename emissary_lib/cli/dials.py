"""What a dial waits for, as one line on a terminal that goes away again."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import TextIO


class LiveLine:
    """The last line of a terminal, for what is true for now; nothing anywhere else.

    Args:
        err: Where; standard error, as a rule.
        columns: How wide it is; what is longer is cut off, since what was wrapped cannot be taken away.

    Thread safety: any.
    """

    def __init__(
        self, err: TextIO | None, columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns
    ) -> None:
        self._err = err
        self._columns = columns
        self._lock = threading.RLock()
        self._shown = ""
        self.usable = err is not None and err.isatty()

    def show(self, text: str) -> None:
        """Show this instead of what stood there; ``""`` for nothing. Never raises."""
        if self._err is None or not self.usable:
            return
        with self._lock, contextlib.suppress(OSError, ValueError):  # the terminal has gone
            before, self._shown = len(self._shown), text[: max(0, self._columns() - 1)]
            if before or self._shown:
                self._err.write(f"\r{' ' * before}\r{self._shown}")
                self._err.flush()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """For others to write to the terminal under: the line makes room."""
        with self._lock:
            shown = self._shown
            self.show("")
            try:
                yield
            finally:
                self.show(shown)


@contextlib.contextmanager
def show_dials(show: Callable[[str], None]) -> Iterator[None]:
    """Have ``show`` called with what dials that take long wait for, and with ``""`` when none is left.

    Args:
        show: From any thread, one at a time.
    """
    handler, logger = _Dials(show), logging.getLogger("emissary_lib.dial")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        show("")


class _Dials(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._texts: dict[int, str] = {}  # by dial

    def emit(self, record: logging.LogRecord) -> None:
        dial: int = getattr(record, "dial", 0)
        self._texts.pop(dial, None)
        if not getattr(record, "over", True):
            self._texts[dial] = record.getMessage()
        newest = next(reversed(self._texts.values()), "")
        others = f"[{len(self._texts)} dials] " if len(self._texts) > 1 else ""
        self._show(f"emissary: {others}{newest}" if newest else "")
