"""Endless bytes that both ends know: what stands where is a function of a seed and the offset."""

from __future__ import annotations

import random
from typing import Final

#: A prime, so that the pattern's repetition falls together with no size of a frame, a window or a buffer.
_PERIOD: Final = 1_000_003

_BYTES: Final = random.Random(18).randbytes(_PERIOD) * 2


def pattern(seed: int, offset: int, size: int) -> bytes:
    """``size`` bytes, at most :data:`_PERIOD`, of the stream ``seed`` from ``offset`` on."""
    start = (seed * 7919 + offset) % _PERIOD
    return _BYTES[start : start + min(size, _PERIOD)]


def first_difference(seed: int, offset: int, data: bytes) -> int | None:
    """Where ``data``, which came at ``offset``, differs from the stream; ``None`` if nowhere."""
    expected = pattern(seed, offset, len(data))
    if data == expected:
        return None
    return next(i for i, (a, b) in enumerate(zip(data, expected, strict=True)) if a != b) + offset
