"""What a dial waits for, as one line on a terminal that goes away again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TextIO

#: What parts of a sentence end with.
_PAUSES: Final = (";", ":", ",")


class LiveLine:
    """The last line of a terminal, for what is true for now; nothing anywhere else.

    Args:
        err: Where; standard error, as a rule.
        columns: How wide it is; ``None`` to ask the terminal. What is longer is shortened, since what was
            wrapped cannot be taken away.

    Thread safety: any.
    """

    def __init__(self, err: TextIO | None, columns: Callable[[], int] | None = None) -> None:
        self._err = err
        self._columns = columns or (lambda: columns_of(err))
        self._lock = threading.RLock()
        self._shown = ""
        self.usable = err is not None and err.isatty()

    def show(self, *texts: str) -> None:
        """Show this instead of what stood there; ``""`` for nothing. Never raises.

        Args:
            texts: The same in words that are ever shorter; the first that has room is shown.
        """
        if self._err is None or not self.usable:
            return
        with self._lock, contextlib.suppress(OSError, ValueError):  # the terminal has gone
            before, self._shown = len(self._shown), fit(texts, self._columns() - 1)
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


def columns_of(stream: TextIO | None) -> int:
    """How wide the terminal is that a stream writes to, or what COLUMNS says, or 80."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if columns := os.get_terminal_size(stream.fileno()).columns:
                return columns
    return shutil.get_terminal_size().columns


def fit(texts: Sequence[str], room: int) -> str:
    """The first of some texts that has room; if none has, the last without what has none.

    That ends with a part of a sentence, if it is not much shorter for that, else with a word.

    Args:
        texts: In the order in which they are wanted.
        room: In characters.

    Example:
        >>> fit(["still dialling db.internal:5432 after 2.1 s: waiting for the relay"], 50)
        'still dialling db.internal:5432 after 2.1 s'
        >>> fit(["0 open, 0 in all; since 10:00:00", "0 open, 0 in all"], 20)
        '0 open, 0 in all'
    """
    for text in texts:
        if len(text) <= room:
            return text
    words = texts[-1][: max(0, room) + 1].split(" ")[:-1]
    if not words:
        return texts[-1][: max(0, room)]  # a word that is longer than the line
    ends = [number for number, word in enumerate(words, start=1) if word.endswith(_PAUSES)]
    parts = " ".join(words[: ends[-1]] if ends else [])
    shown = parts if 2 * len(parts) >= room else " ".join(words)
    return shown.rstrip("".join(_PAUSES))


@contextlib.contextmanager
def show_dials(show: Callable[..., None]) -> Iterator[None]:
    """Have ``show`` called with what dials that take long wait for, and with ``""`` when none is left.

    Args:
        show: From any thread, one at a time, with the same in words that are ever shorter.
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
    def __init__(self, show: Callable[..., None]) -> None:
        super().__init__()
        self._show = show
        self._texts: dict[int, tuple[str, ...]] = {}  # by dial

    def emit(self, record: logging.LogRecord) -> None:
        dial: int = getattr(record, "dial", 0)
        self._texts.pop(dial, None)
        if not getattr(record, "over", True):
            self._texts[dial] = (record.getMessage(), *getattr(record, "shorter", ()))
        newest = next(reversed(self._texts.values()), ())
        others = f"[{len(self._texts)} dials] " if len(self._texts) > 1 else ""
        self._show(*(f"emissary: {others}{text}" for text in newest) if newest else ("",))
