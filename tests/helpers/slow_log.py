"""A log that is slow: a disk that is full, a collector that does not answer."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from tests.helpers.patience import HANG


class SlowLog(logging.Handler):
    """Blocks whoever writes a line with ``text`` in it.

    Attributes:
        blocked: Set when somebody is.
        go_on: To set, for lines to be written at once.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.blocked = threading.Event()
        self.go_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.blocked.set()
            assert self.go_on.wait(HANG)


@contextlib.contextmanager
def slow_log(name: str, text: str) -> Iterator[SlowLog]:
    """A logger's lines with ``text`` in them block until the end."""
    logger, handler = logging.getLogger(name), SlowLog(text)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        handler.go_on.set()
        logger.removeHandler(handler)
        logger.setLevel(level)
