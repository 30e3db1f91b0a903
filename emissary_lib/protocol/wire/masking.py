"""Masks what a client sends in a WebSocket frame (RFC 6455 section 5.3).

It is done in C where the package websockets is installed (the extra ``speedups``), which takes next to no
time; Python's own means take a nanosecond a byte.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

#: Gives the bytes of a frame masked with a key of four.
Mask = Callable[[bytes, bytes], bytes]

#: Bytes of a key.
KEY: Final = 4

_IDENTITY: Final = int.from_bytes(range(256), "big")
_ONES: Final = int.from_bytes(b"\1" * 256, "big")

#: From so many bytes on it is worth to look for the package, whose import takes some 20 ms of CPU.
_LONG: Final = 16_384


def mask(data: bytes, key: bytes) -> bytes:
    """Mask the payload of one frame by the fastest means there are.

    Args:
        data: The payload.
        key: Four bytes that nobody can guess, fresh for each frame.
    """
    return _fastest()(data, key) if len(data) >= _LONG else mask_by_lanes(data, key)


def mask_by_lanes(data: bytes, key: bytes) -> bytes:
    """The same by Python's own means: a table for each byte of the key, over each fourth byte of the data.

    Half as long as one exclusive-or of two long integers takes, which both have to be made of bytes first.
    """
    masked = bytearray(len(data))
    for lane, number in enumerate(key):
        masked[lane::KEY] = data[lane::KEY].translate(_exclusive_or(number))
    return bytes(masked)


def accelerated() -> Mask | None:
    """The masking of the package websockets; ``None`` if it, or its part in C, is not installed."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return None
    return apply_mask


@functools.cache
def _fastest() -> Mask:
    return accelerated() or mask_by_lanes


def _exclusive_or(number: int) -> bytes:
    """Each byte, in ascending order, exclusive-ored with a number."""
    return (_IDENTITY ^ _ONES * number).to_bytes(256, "big")
