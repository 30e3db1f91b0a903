"""Many connections at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.helpers.patience import HANG

#: Longest dial among dozens at once, in seconds: each starts several processes, and there may be two cores.
FROM_COLD: Final = 4 * HANG


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send everything and the end; gives everything that comes back."""

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, name="sender")
    sender.start()
    got = bytearray()
    while chunk := sock.recv(65_536):
        got += chunk
    sender.join(HANG)
    return bytes(got)


def run_at_once(count: int, work: Callable[[int], bool]) -> list[bool]:
    """What each of so many threads finds, all of which begin together and are given their numbers."""
    together = threading.Barrier(count)

    def one(number: int) -> bool:
        together.wait(HANG)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
