"""What a cut WebSocket costs whoever is using the tunnel at that moment."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from tools.bench.measure import SMALL, Dial, open_stream
from tools.bench.target import receive_exactly, send_exactly

#: Whose WebSocket is cut, and how: each of these its owner learns of at once.
WAYS: Final = tuple(itertools.product(("dialer", "relay", "both"), ("close", "reset")))

#: More bytes than a stream that goes on for as long as it is watched comes to.
_ENDLESS: Final = 1 << 62

#: Bytes that are sent or received at a time.
_BLOCK: Final = 65_536

#: Cuts whatever is open: one of :data:`WAYS`.
Cut = Callable[[str, str], object]


def round_trip_pause(
    dial: Dial, cut: Cut, seconds: float, clock: Callable[[], float] = time.monotonic
) -> float:
    """Milliseconds of the longest round trip while a connection that carries nothing else is cut.

    Args:
        dial: Gives a connection to the bench's target.
        cut: Cuts what is below it.
        seconds: How long to go on before the first cut, and after each of :data:`WAYS`; one more, before
            them, is not counted.
        clock: The time, in seconds; it does not go back.
    """

    def step(sock: socket.socket) -> None:
        sock.sendall(bytes(SMALL))
        receive_exactly(sock, SMALL)

    return _longest(dial, b"E", step, cut, seconds, clock)


def from_target_pause(
    dial: Dial, cut: Cut, seconds: float, clock: Callable[[], float] = time.monotonic
) -> float:
    """The same of a stream: the longest time until the next 64 KiB have come."""
    return _longest(dial, b"S", lambda sock: receive_exactly(sock, _BLOCK), cut, seconds, clock)


def to_target_pause(
    dial: Dial, cut: Cut, seconds: float, clock: Callable[[], float] = time.monotonic
) -> float:
    """The same of a stream the other way: the longest time until the next 64 KiB are taken to be sent."""
    return _longest(dial, b"K", lambda sock: send_exactly(sock, _BLOCK), cut, seconds, clock)


def _longest(
    dial: Dial,
    command: bytes,
    step: Callable[[socket.socket], None],
    cut: Cut,
    seconds: float,
    clock: Callable[[], float],
) -> float:
    with open_stream(dial, command, _ENDLESS) as sock:

        def steps(during: threading.Thread | None = None) -> float:
            """Take steps for so long, and one after the end of ``during``; the seconds of the longest."""
            until, longest, last = clock() + seconds, 0.0, False
            while not last:
                begun = clock()
                last = begun >= until and not (during and during.is_alive())
                step(sock)
                longest = max(longest, clock() - begun)
            return longest

        steps()
        pauses = []
        for way in (WAYS[-1], *WAYS):
            thread = threading.Thread(target=cut, args=way)
            thread.start()  # meanwhile the traffic goes on
            try:
                pauses.append(steps(thread))
            finally:
                thread.join()
        # At the first, functions start from cold, which here share a few cores and on Lambda do not.
        return max(pauses[1:]) * 1e3
