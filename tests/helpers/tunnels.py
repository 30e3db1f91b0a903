"""Tunnels for tests: two real ones back to back, or one with a link that the test plays."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from emissary_lib.exceptions import LinkClosedError, LinkRefusedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Event
from emissary_lib.protocol.session.session import Outgoing, Session, SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Opened
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.tunnel.driver import Tunnel
from emissary_lib.tunnel.link import SocketLink
from emissary_lib.tunnel.loopback import tcp_pair
from emissary_lib.tunnel.shutdown import ShutdownPolicy
from tests.helpers.memory_transport import Faults, MemoryTransport, linked_pair
from tests.helpers.patience import HANG

#: Small buffers, so that windows shut soon.
CAPACITY = 65_536


#: The users' ends of this test's tunnels.
USERS: list[socket.socket] = []


def session_of(
    role: Role,
    *,
    capacity: int = CAPACITY,
    life: float | None = None,
    grace: float = 60.0,
    holds_end: bool = False,
) -> Session:
    streams = StreamConfig(capacity=capacity, holds_end=holds_end)
    if role is Role.RELAY:
        opened = Opened(Code.OK, 0, 0, bytes(32))
        expires_at = None if life is None else time.monotonic() + life
        config = SessionConfig(
            streams=streams, peer_epoch=1, opened=opened, expires_at=expires_at, grace=grace
        )
        return Session(role, config, now=time.monotonic())
    config = SessionConfig(streams=streams, peer_epoch=1, grace=grace)
    session = Session(role, config, now=time.monotonic())
    session.finish_opening()
    return session


class Ends:
    """What the bridge would do with END: ENDED to both."""

    def __init__(self) -> None:
        self.transports: list[MemoryTransport] = []

    def tell(self, role: Role, end: End) -> None:
        dialer, relay = (end.sent, end.received) if role is Role.DIALER else (end.received, end.sent)
        text = encode(Frame(FrameType.ENDED, generation=2, payload=Ended(end.code, dialer, relay).encode()))
        for transport in self.transports:
            with contextlib.suppress(LinkClosedError):
                transport.send(text)


class PairLink(SocketLink):
    """One tunnel's link over a transport in memory; what the test plays of the bridge takes END."""

    def __init__(self, role: Role, transport: MemoryTransport, ends: Ends) -> None:
        super().__init__(ReconnectingTransport(transport, refuse))
        self._role = role
        self._ends = ends

    def send(self, message: Outgoing) -> None:
        frame = decode(message.data)
        if frame.type is FrameType.END:
            self._ends.tell(self._role, End.decode(frame.payload))
        else:
            super().send(message)


def refuse(epoch: int, deadline: Deadline) -> MessageTransport:
    raise LinkRefusedError("the test gives no second connection")


class Running:
    """A tunnel in its thread, with the user's end of its socket.

    Attributes:
        filled: Bytes that were sent to the user before, so that the kernel takes no more.
    """

    def __init__(
        self, session: Session, link: object, *, shutdown: ShutdownPolicy | None = None, fill: bool = False
    ) -> None:
        ours, self.user = tcp_pair()
        self.filled = 0
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while fill:
                self.filled += ours.send(bytes(4096))
        USERS.append(self.user)
        self.user.settimeout(HANG)
        self.events: list[Event] = []
        self.session = session
        self.tunnel = Tunnel(session, link, ours, on_event=self.events.append, shutdown=shutdown)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.tunnel.run)
        self.thread.start()

    @property
    def aborted(self) -> Aborted | None:
        return next((event for event in self.events if isinstance(event, Aborted)), None)

    def join(self) -> None:
        self.thread.join(HANG)
        assert not self.thread.is_alive(), "the tunnel does not end"


@contextlib.contextmanager
def back_to_back(
    faults: Faults | None = None, *, seed: int = 1, holds_end: bool = False, fill: bool = False
) -> Iterator[tuple[Running, Running]]:
    here, there = linked_pair(seed, faults)
    ends = Ends()
    ends.transports = [here, there]
    dialer = Running(session_of(Role.DIALER), PairLink(Role.DIALER, here, ends))
    relay = Running(session_of(Role.RELAY, holds_end=holds_end), PairLink(Role.RELAY, there, ends), fill=fill)
    try:
        yield dialer, relay
    finally:
        for running in (dialer, relay):
            running.user.close()
            running.tunnel.abort(Code.DIALER_RESET, "the test is over")
            running.join()


class FakeLink:
    """A link whose other end the test plays."""

    def __init__(self, *, answers_end: bool = True) -> None:
        self.sent: list[Frame] = []
        self._answers_end = answers_end
        self._near, self._far = linked_pair()
        self.closed = False
        self.released = False
        self.dropped = False

    def send(self, message: Outgoing) -> None:
        frame = decode(message.data)
        self.sent.append(frame)
        if frame.type is FrameType.END and self._answers_end:
            end = End.decode(frame.payload)
            self.give(FrameType.ENDED, Ended(end.code, end.sent, end.received).encode())

    def recv(self) -> bytes:
        return self._near.recv(None)

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        raise LinkRefusedError("HTTP status 409")

    def drop(self) -> None:
        self.dropped = True
        self._near.abort()

    def close(self) -> None:
        self.closed = True
        self._near.close()

    def release(self) -> None:
        self.released = True

    def give(
        self, kind: FrameType, payload: bytes = b"", *, flags: int = 0, offset: int = 0, ack: int = 0
    ) -> None:
        frame = Frame(kind, flags, generation=2, window=1 << 20, offset=offset, ack=ack, payload=payload)
        with contextlib.suppress(LinkClosedError):
            self._far.send(encode(frame))

    def hang_up(self) -> None:
        self._far.abort()


def send_all(sock: socket.socket, data: bytes, *, close: bool = False) -> None:
    sock.sendall(data)
    if close:
        sock.close()
    else:
        sock.shutdown(socket.SHUT_WR)


def read_to_end(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(65_536):
        parts.append(data)
    return b"".join(parts)
