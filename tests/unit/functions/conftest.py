"""What every test of the functions has."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from functions.common import logs


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """The log belongs to the process: who sets it up as in Lambda does so for one test only."""
    logger = logging.getLogger(logs.NAME)
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
