"""What only shared relays have to show: many dials at once, and small questions beside bulk."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from emissary_lib.client.dialer import Dialer
from tools.bench.measure import Dial, open_stream, round_trip_milliseconds
from tools.bench.processes import family, resident_bytes
from tools.bench.target import receive_exactly, send_exactly

#: A stream that goes on until it is closed, in bytes.
_ENDLESS = 1 << 40


def dials_at_once_milliseconds(dial: Dial, count: int) -> tuple[float, float]:
    """Median and longest of ``count`` dials that begin together, in milliseconds."""
    took: list[float] = []
    sockets: list[socket.socket] = []
    begin = threading.Barrier(count)

    def one() -> None:
        begin.wait()
        begun = time.monotonic()
        sock = dial()
        took.append(time.monotonic() - begun)
        sockets.append(sock)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sock in sockets:
        sock.close()
    if len(took) < count:
        raise ConnectionError(f"{count - len(took)} of {count} dials failed")
    return statistics.median(took) * 1e3, max(took) * 1e3


def round_trip_beside_bulk_milliseconds(dial: Dial, command: bytes, count: int) -> float:
    """Median of small round trips while another connection carries as much as it can.

    Args:
        dial: Gives connections over the same relay.
        command: ``S`` for bulk from the target, ``K`` for bulk to it.
        count: How many round trips.
    """
    with _bulk(dial, command):
        return round_trip_milliseconds(dial, count)


@contextlib.contextmanager
def _bulk(dial: Dial, command: bytes) -> Iterator[None]:
    """A connection that carries bytes as fast as it can, in a thread of its own."""
    flowing = threading.Event()

    def carry(sock: socket.socket) -> None:
        moved = 0
        move: Callable[[socket.socket, int], None] = receive_exactly if command == b"S" else send_exactly
        with contextlib.suppress(OSError):
            while True:
                move(sock, 65_536)
                moved += 65_536
                if moved >= 4_000_000:
                    flowing.set()

    with open_stream(dial, command, _ENDLESS) as sock:
        thread = threading.Thread(target=carry, args=(sock,))
        thread.start()
        try:
            flowing.wait()
            yield
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()


def stopped_readers_megabytes(dial: Dial, count: int, settle: float = 3.0) -> float:
    """How much more memory all processes hold while targets pour into connections that nobody reads.

    In millions of bytes; ``settle`` seconds after the last of ``count`` began.
    """
    before = sum(resident_bytes(pid) for pid in family())
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(open_stream(dial, b"S", _ENDLESS))
        time.sleep(settle)
        return max(0.0, sum(resident_bytes(pid) for pid in family()) - before) / 1e6


def first_dial_milliseconds(make: Callable[[], Dialer], target: tuple[str, int], count: int) -> float:
    """Median of first dials, each of a dialer of its own: a relay has to be started for each."""
    took = []
    for _ in range(count):
        with make() as dialer:
            begun = time.monotonic()
            sock = dialer.dial(target)
            took.append(time.monotonic() - begun)
            sock.close()
    return statistics.median(took) * 1e3
