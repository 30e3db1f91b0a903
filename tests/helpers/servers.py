"""Loopback TCP servers for tests: each accepted connection is served in a thread of its own.

Every server is a context manager that gives its address; leaving it closes all connections and joins all
threads.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from emissary_lib.tunnel.loopback import reset
from tests.helpers.patience import HANG

#: The same, by the name that servers' callers know.
PATIENCE = HANG

Service = Callable[[socket.socket], None]


class Server:
    """Listens on 127.0.0.1 and runs a service for each connection.

    Args:
        service: Called with each connection in a thread of its own; the connection is closed behind it. An
            ``OSError`` of it ends that connection alone.

    Attributes:
        accepted: How many connections there were.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="test server", daemon=True)
        self.accepted = 0

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return str(host), int(port)

    def __enter__(self) -> tuple[str, int]:
        self._acceptor.start()
        return self.address

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        self._acceptor.join(HANG)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HANG)
            assert not thread.is_alive() or value, "a service does not end though its connection has"

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="test service", daemon=True
            )
            with self._lock:
                self._open.add(connection)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                self._service(connection)
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes, until its end."""
    while data := connection.recv(65_536):
        connection.sendall(data)


def sink(connection: socket.socket) -> None:
    """Read everything; nothing is sent."""
    while connection.recv(65_536):
        pass


def after_the_end(answer: Callable[[bytes], bytes]) -> Service:
    """Read to the end of the client's stream, then send what ``answer`` makes of it."""

    def serve(connection: socket.socket) -> None:
        received = bytearray()
        while data := connection.recv(65_536):
            received += data
        connection.sendall(answer(bytes(received)))

    return serve


def source(data: bytes) -> Service:
    """Send ``data`` and close, whatever the client does: the target that closes first."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        sink(connection)

    return serve


def greeter(greeting: bytes) -> Service:
    """Speak first, as mail and database servers do; then echo."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(greeting)
        echo(connection)

    return serve


def resetter(after: int) -> Service:
    """Reset the connection after ``after`` bytes; 0 resets at once."""

    def serve(connection: socket.socket) -> None:
        left = after
        while left and (data := connection.recv(left)):
            left -= len(data)
        reset(connection)

    return serve


class BlackHole:
    """A listener that never answers a SYN: its backlog is full. A context manager that gives its address."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._fillers: list[socket.socket] = []

    def __enter__(self) -> tuple[str, int]:
        address: tuple[str, int] = self._listener.getsockname()
        # Two fill it on Linux; the others make sure, and stay in SYN_SENT.
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            self._fillers.append(filler)
        return address

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for filler in self._fillers:
            filler.close()
        self._listener.close()


@contextlib.contextmanager
def unused_port() -> Iterator[tuple[str, int]]:
    """An address that refuses connections, and that nobody else is given meanwhile: bound, not listening."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()
