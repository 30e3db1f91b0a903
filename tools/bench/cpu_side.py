"""One side of a session, in a process of its own, for :mod:`tools.bench.cpu`; or the table of single steps.

It is started by its path, with the tree whose code is to be measured in front on ``PYTHONPATH``: so a tree
from before a change is measured by the bench from after it. It uses only what both have.

It writes a line when it is connected, and then, for each line on its standard input, one with the CPU seconds
that the process has used so far. It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import binascii
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

#: What is hidden to measure without the extra: an import of it fails, as if it were not installed.
EXTRA: Final = ("pybase64", "websockets")

_TARGET_PORT: Final = 5432

#: Of a step: how often it is timed, and how often it is made in each.
_ROUNDS: Final = 9
_REPEATS: Final = 20


def main() -> None:
    """Be one side, or print the table, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("dialer", "relay", "steps"))
    parser.add_argument("--shared", action="store_true", help="a session that carries many connections")
    parser.add_argument("--plain", action="store_true", help="without what the extra installs")
    parser.add_argument("--gateway", type=int, help="port of the gateway")
    parser.add_argument("--user", type=int, help="port of the user, or of the target")
    arguments = parser.parse_args()
    if arguments.plain:
        sys.modules.update(dict.fromkeys(EXTRA))  # type: ignore[arg-type]  # None is what makes an import fail
    if arguments.what == "steps":
        sys.stdout.write(json.dumps(steps()) + "\n")
        return
    start = shared_session if arguments.shared else own_session
    start(arguments.what, arguments.gateway, arguments.user)
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    while sys.stdin.readline():
        sys.stdout.write(f"{time.process_time()}\n")
        sys.stdout.flush()
    os._exit(0)  # the session is not ended: nobody would answer


# -- one side of a session ------------------------------------------------------------------------


def own_session(side: str, gateway: int, user: int) -> None:
    """A session of one connection."""
    from emissary_lib.tunnel.driver import Tunnel

    tunnel = Tunnel(_session(side, shared=False), _link(side, gateway), _connect(user))
    tunnel.start()
    tunnel.run_in_thread(tunnel.run)


def shared_session(side: str, gateway: int, user: int) -> None:
    """A shared session, of which one connection is used."""
    from emissary_lib.protocol.mux.dialer import DialerMultiplexer
    from emissary_lib.protocol.mux.limits import MuxLimits
    from emissary_lib.protocol.mux.relay import RelayMultiplexer
    from emissary_lib.protocol.targets.allow_list import Target
    from emissary_lib.tunnel.shared import SharedTunnel
    from emissary_lib.tunnel.shared_relay import RelayTunnel

    session, link, now = _session(side, shared=True), _link(side, gateway), time.monotonic()
    if side == "relay":
        relay = RelayTunnel(
            session,
            link,
            RelayMultiplexer(MuxLimits(), now),
            on_request=lambda request: request.accept(_connect(user)),  # type: ignore[arg-type]
        )
        relay.start()
        relay.run_in_thread(relay.run)
        return
    dialer = SharedTunnel(session, link, DialerMultiplexer(MuxLimits(), now))
    dialer.start()
    dialer.run_in_thread(dialer.run)
    connection = dialer.open(Target("db.internal", _TARGET_PORT))
    assert connection is not None
    connection.answered.wait()
    connection.attach(_connect(user))


def _session(side: str, *, shared: bool) -> Any:
    """A session that is open, as if the bridge had paired both sides."""
    from emissary_lib.protocol.codes import Code
    from emissary_lib.protocol.role import Role
    from emissary_lib.protocol.session.session import Session, SessionConfig
    from emissary_lib.protocol.stream.duplex import StreamConfig
    from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED, Opened

    if side == "dialer":
        session = Session(Role.DIALER, SessionConfig(peer_epoch=1), now=time.monotonic())
        session.finish_opening()
        return session
    opened = Opened(Code.OK, 0, 60_000, bytes(32), CAPABILITY_SHARED if shared else 0)
    config = SessionConfig(streams=StreamConfig(holds_end=not shared), peer_epoch=1, opened=opened)
    return Session(Role.RELAY, config, now=time.monotonic())


def _link(side: str, gateway: int) -> Any:
    from emissary_lib.transport.bytestream import ByteStream
    from emissary_lib.transport.reconnecting import ReconnectingTransport
    from emissary_lib.transport.websocket import WebSocketTransport
    from emissary_lib.tunnel.link import SocketLink

    sock = socket.create_connection(("127.0.0.1", gateway))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(side[:1].encode())  # in place of the upgrade: what is measured comes after it
    transport = WebSocketTransport(ByteStream(sock), "ws://127.0.0.1")
    again = ReconnectingTransport(transport, _no_other)
    if side == "dialer":
        return SocketLink(again)
    from functions.common.adapters.apigateway import PostToConnection
    from functions.common.adapters.sigv4 import Credentials
    from functions.relay.link import RelayLink

    poster = PostToConnection(
        f"http://127.0.0.1:{gateway}/stage",
        region="us-east-1",
        credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "no secret, only as long as one is: 40 bytes"),
    )
    return RelayLink(again, poster, "dialer=")


def _no_other(*_: object) -> Any:
    raise ConnectionError("the bench's gateway takes no second connection")


def _connect(port: int) -> socket.socket:
    from emissary_lib.tunnel.loopback import tune

    sock = socket.create_connection(("127.0.0.1", port))
    tune(sock)
    return sock


# -- single steps -----------------------------------------------------------------------------------


def steps() -> dict[str, float]:
    """Milliseconds of CPU for each step, on a full frame; of the multiplexer, on a million bytes."""
    from emissary_lib.protocol.constants import MAX_PAYLOAD
    from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode

    frame = Frame(FrameType.DATA, 0, 2, 1 << 20, 1 << 30, 1 << 20, os.urandom(MAX_PAYLOAD))
    message: Any = encode(frame)  # text in trees of before, bytes in those of after
    data = message.encode() if isinstance(message, str) else message
    text = data.decode()
    send, receive = _websocket(data)
    mux_send, mux_receive = _multiplexer_milliseconds()
    return {
        "frame_encode": _milliseconds(lambda: encode(frame)),
        "frame_decode": _milliseconds(lambda: decode(message)),
        "websocket_send": _milliseconds(lambda: send(message)),
        "websocket_receive": _milliseconds(receive),
        "base64_encode": _milliseconds(lambda: binascii.b2a_base64(frame.payload, newline=False)),
        "base64_decode": _milliseconds(lambda: binascii.a2b_base64(data, strict_mode=True)),
        "text_and_back": _milliseconds(lambda: text.encode("ascii").decode("ascii")),
        "multiplexer_send": mux_send,
        "multiplexer_receive": mux_receive,
    }


def _milliseconds(step: Callable[[], object]) -> float:
    took = []
    for _ in range(_ROUNDS):
        begun = time.thread_time()
        for _ in range(_REPEATS):
            step()
        took.append((time.thread_time() - begun) / _REPEATS)
    return round(statistics.median(took) * 1e3, 4)


class _Stream:
    """In place of a connected socket: takes all, and gives the same bytes again and again."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = memoryview(data)
        self._at = 0

    def read(self, size: int, deadline: object) -> bytes:
        """The next bytes, no more than one fragment's, as the kernel would."""
        piece = self._data[self._at : self._at + size]
        self._at = (self._at + len(piece)) % len(self._data)
        return bytes(piece)

    def write(self, data: object, deadline: object) -> None:
        """Drop them."""

    def shutdown(self) -> None:
        """Nothing is held."""

    close = shutdown


def _websocket(data: bytes) -> tuple[Callable[[Any], object], Callable[[], object]]:
    """What sends a message, frames and masks included, and what takes it from the server's frames."""
    from emissary_lib.transport.websocket import WebSocketTransport

    size = 32_000  # of a fragment of API Gateway's
    frames = b""
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        head = (0x80 if at + size >= len(data) else 0) | (0 if at else 1)
        frames += bytes([head, 126]) + len(piece).to_bytes(2, "big") + piece
    sender: Any = WebSocketTransport(_Stream(), "ws://127.0.0.1")  # type: ignore[arg-type]
    receiver = WebSocketTransport(_Stream(frames), "ws://127.0.0.1")  # type: ignore[arg-type]
    return sender.send, lambda: receiver.recv(None)


def _multiplexer_milliseconds() -> tuple[float, float]:
    """CPU to put a million bytes into a shared session's stream, and to take them out again."""
    from emissary_lib.protocol.mux.dialer import DialerMultiplexer
    from emissary_lib.protocol.mux.limits import SEND_BUFFER, SESSION_BACKLOG, MuxLimits
    from emissary_lib.protocol.mux.relay import RelayMultiplexer
    from emissary_lib.protocol.targets.allow_list import Target

    dialer, relay = DialerMultiplexer(MuxLimits(), 0.0), RelayMultiplexer(MuxLimits(), 0.0)
    stream = dialer.open(Target("db.internal", _TARGET_PORT))
    relay.receive(dialer.data_to_send(SESSION_BACKLOG), 0.0)
    relay.accept(stream)
    block, took = bytes(SEND_BUFFER // 2), []
    for _ in range(_ROUNDS * 4):
        dialer.receive(relay.data_to_send(SESSION_BACKLOG), 0.0)
        dialer.send_data(stream, block)
        begun, size, flows = time.thread_time(), len(block), []
        while flow := dialer.data_to_send(SESSION_BACKLOG):
            flows.append(flow)
            size += dialer.send_data(stream, block) if size < 1_000_000 else 0
        sent = time.thread_time()
        for flow in flows:
            relay.receive(flow, 0.0)
            while waits := relay.peek(stream, len(block)):
                relay.consume(stream, len(waits))
        took.append((1e3 * (sent - begun) * 1e6 / size, 1e3 * (time.thread_time() - sent) * 1e6 / size))
    # At first its window is small, and a round is short of a million bytes.
    send, receive = zip(*took[_ROUNDS:], strict=True)
    return round(statistics.median(send), 3), round(statistics.median(receive), 3)


if __name__ == "__main__":
    main()
