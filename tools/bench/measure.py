"""The bench's measurements. Each is of whatever ``dial`` connects with, a tunnel or a plain connection."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import statistics
import time
from collections.abc import Callable
from typing import Final

from tools.bench.processes import cpu_seconds, family
from tools.bench.target import HEADER, receive_exactly, send_exactly

#: Bytes of a small message: about a short query.
SMALL: Final = 64

Dial = Callable[[], socket.socket]


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        dials: Dials, one after the other.
        round_trips: Small messages sent back and forth on one tunnel.
        stream: Bytes each way.
        warm: Bytes each way before the clock runs: enough for every function to have started that the stream
            keeps busy at a time.
        idle_tunnels: Tunnels that do nothing.
        idle_seconds: For so long.
        cut_seconds: For so long a tunnel is watched after each cut.
        at_once: Connections over shared relays that are dialled, or not read, together.
        imports: Interpreters that import the library, and that import what it needs.
    """

    dials: int = 20
    round_trips: int = 200
    stream: int = 64_000_000
    warm: int = 48_000_000
    idle_tunnels: int = 10
    idle_seconds: float = 10.0
    cut_seconds: float = 1.5
    at_once: int = 64
    imports: int = 15


def dial_milliseconds(dial: Dial, count: int) -> float:
    """Median of ``count`` dials, each closed before the next."""
    took = []
    for _ in range(count):
        begun = time.monotonic()
        sock = dial()
        took.append(time.monotonic() - begun)
        sock.close()
    return statistics.median(took) * 1e3


def round_trip_milliseconds(dial: Dial, count: int) -> float:
    """Median of ``count`` small messages sent and echoed, one at a time, on one connection."""
    took = []
    with open_stream(dial, b"E", 0) as sock:
        for _ in range(count):
            begun = time.monotonic()
            sock.sendall(bytes(SMALL))
            receive_exactly(sock, SMALL)
            took.append(time.monotonic() - begun)
    return statistics.median(took) * 1e3


def from_target_megabytes(dial: Dial, warm: int, size: int) -> float:
    """Millions of bytes a second, target to dialer: ``size`` bytes after the first ``warm`` of a stream."""
    with open_stream(dial, b"S", warm + size) as sock:
        receive_exactly(sock, warm)
        begun = time.monotonic()
        receive_exactly(sock, size)
        return size / 1e6 / (time.monotonic() - begun)


def to_target_megabytes(dial: Dial, warm: int, size: int) -> float:
    """The same, dialer to target; the clock stops when the target has said that it has all of it."""
    with open_stream(dial, b"K", warm) as sock:
        send_exactly(sock, warm)
        receive_exactly(sock, 1)
        sock.sendall(HEADER.pack(b"K", size))
        begun = time.monotonic()
        send_exactly(sock, size)
        receive_exactly(sock, 1)
        return size / 1e6 / (time.monotonic() - begun)


def idle_cpu_seconds(dial: Dial, tunnels: int, seconds: float, settle: float = 2.0) -> float:
    """CPU seconds of this process and all it has started while ``tunnels`` do nothing for ``seconds``.

    The clock runs ``settle`` seconds after the last of them was used: until then there are delayed
    acknowledgements, and what else follows a start.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(tunnels):
            sock = stack.enter_context(open_stream(dial, b"E", 0))
            sock.sendall(b"!")
            receive_exactly(sock, 1)
        time.sleep(settle)
        before = {pid: cpu_seconds(pid) for pid in family()}
        time.sleep(seconds)
        return sum(max(0.0, cpu_seconds(pid) - spent) for pid, spent in before.items())


def open_stream(dial: Dial, command: bytes, count: int) -> socket.socket:
    """A connection to the bench's target that has been given its first command."""
    sock = dial()
    try:
        sock.settimeout(60.0)
        sock.sendall(HEADER.pack(command, count))
    except BaseException:
        sock.close()
        raise
    return sock
