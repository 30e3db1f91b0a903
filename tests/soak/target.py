"""The target of the byte transfers: takes a pattern, gives a pattern, and looks at every byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from tests.soak.pattern import first_difference, pattern
from tests.soak.stats import Stats

#: What the target sends last, when it has everything and the dialer's end of stream.
DONE: Final = b"K"

#: Bytes of one read or write.
PIECE: Final = 262_144

_HEADER: Final = struct.Struct(">QQQ?d")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is asked of the target, as the first bytes of the stream.

    Attributes:
        number: Of this transfer, alone of its kind; the seed of the bytes up, and one more of those down.
        up, down: Bytes to the target and from it.
        after: The target says nothing before it has seen the end of the dialer's stream; and then nothing at
            all, if it has nothing to send either.
        pause: Seconds for which the target reads nothing more.
    """

    number: int
    up: int
    down: int
    after: bool = False
    pause: float = 0.0

    def header(self) -> bytes:
        """The first bytes of the stream."""
        return _HEADER.pack(self.number, self.up, self.down, self.after, self.pause)


class Target:
    """Listens on a loopback port while the ``with`` block lasts.

    Wrong bytes are counted as mismatches here. An end of stream that comes too early is only noted: the
    kernel ends a killed relay's connections like that, and the dialer must then never be told of success.

    Attributes:
        whole: Numbers of transfers of which everything came.
        cut_short: Numbers of transfers whose stream ended too early, without a reset.
    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._accepting = threading.Thread(target=self._accept, name="soak-target", daemon=True)
        self._closing = threading.Event()
        self.whole: set[int] = set()
        self.cut_short: set[int] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def open_connections(self) -> int:
        """How many relays are connected now."""
        with self._lock:
            return len(self._open)

    def __enter__(self) -> Target:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            left = dict(self._open)
        for sock, thread in left.items():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), name="soak-served", daemon=True)
            with self._lock:
                self._open[sock] = thread
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # the dialer hears of a reset too, and tells
                self._transfer(sock)
        finally:
            sock.close()
            with self._lock:
                del self._open[sock]

    def _transfer(self, sock: socket.socket) -> None:
        start = sock.recv(_HEADER.size, socket.MSG_WAITALL)
        if len(start) < _HEADER.size:
            return
        transfer = Transfer(*_HEADER.unpack(start))
        if transfer.after:
            complete = self._take(sock, transfer)
            if complete:
                give(sock, transfer.number + 1, transfer.down)
        else:
            giver = threading.Thread(
                target=_give_quietly, args=(sock, transfer), name="soak-giver", daemon=True
            )
            giver.start()
            try:
                complete = self._take(sock, transfer)
                if not complete:
                    sock.shutdown(socket.SHUT_RDWR)
            finally:
                giver.join()
        if complete:
            with self._lock:
                self.whole.add(transfer.number)
            if transfer.down or not transfer.after:
                sock.sendall(DONE)
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _take(self, sock: socket.socket, transfer: Transfer) -> bool:
        """Whether everything came, and was right."""
        offset = 0
        if transfer.pause:
            self._closing.wait(transfer.pause)
        while data := sock.recv(PIECE):
            if offset + len(data) > transfer.up:
                self._stats.mismatch(f"target, transfer {transfer.number}: more than {transfer.up} bytes")
                return False
            if (where := first_difference(transfer.number, offset, data)) is not None:
                self._stats.mismatch(f"target, transfer {transfer.number}: wrong byte at {where}")
                return False
            offset += len(data)
            self._stats.moved(len(data))
        if offset < transfer.up:
            with self._lock:
                self.cut_short.add(transfer.number)
            return False
        return True


def give(sock: socket.socket, seed: int, size: int) -> None:
    """Send ``size`` bytes of the pattern."""
    for offset in range(0, size, PIECE):
        sock.sendall(pattern(seed, offset, min(PIECE, size - offset)))


def _give_quietly(sock: socket.socket, transfer: Transfer) -> None:
    with contextlib.suppress(OSError):  # the reader meets it too
        give(sock, transfer.number + 1, transfer.down)
