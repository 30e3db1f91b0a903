"""What every test of the functions has."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from functions.common import logs, metrics


class Figures(logging.Handler):
    """Keeps the figures that are written.

    Attributes:
        lines: Title -> value, for each line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, float]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append({metric.title: value for metric, value in record.__dict__["figures"].items()})

    def total(self, title: str) -> float:
        return sum(line.get(title, 0) for line in self.lines)


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """The log belongs to the process: who sets it up as in Lambda does so for one test only."""
    loggers = [logging.getLogger(name) for name in (logs.NAME, metrics.NAME)]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def figures(log_as_it_was: None) -> Figures:
    """What the functions tell CloudWatch."""
    logger, handler = logging.getLogger(metrics.NAME), Figures()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return handler
