"""CPU time of dialer and relay: both are measured where they run, over the least of gateways."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.websocket import WebSocketTransport
from tests.helpers.patience import HANG
from tools.bench import cpu
from tools.bench.cpu_gateway import Gateway

HERE = Path(cpu.__file__).resolve().parents[2]
PLAIN = cpu.Variant("plain", HERE, plain=True)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


def connect(gateway: Gateway, kind: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", gateway.port), HANG)
    sock.sendall(kind)
    return sock


def test_the_gateway_carries_the_dialers_messages_to_the_relay_and_posts_back(gateway: Gateway) -> None:
    message = encode(Frame(FrameType.DATA, payload=bytes(range(256)) * 300))
    dialer = WebSocketTransport(ByteStream(connect(gateway, b"d")), "ws://127.0.0.1")
    relay = WebSocketTransport(ByteStream(connect(gateway, b"r")), "ws://127.0.0.1")
    dialer.send(encode(Frame(FrameType.END)))  # for the bridge, which is not there
    dialer.send(message)
    assert relay.recv(HANG) == message
    with connect(gateway, b"") as poster:
        poster.sendall(
            b"POST /stage/@connections/d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(message), message)
        )
        assert poster.recv(100).startswith(b"HTTP/1.1 200")
    assert dialer.recv(HANG) == message
    for transport in (dialer, relay):
        transport.close()
        transport.release()


def test_both_sides_are_measured_each_way_in_both_kinds_of_session() -> None:
    line = cpu.run([PLAIN], rounds=1, size=1_000_000, progress=io.StringIO())
    found = json.loads(line)["plain"]
    for kind in ("tunnel", "shared"):
        for way in ("to_target", "from_target"):
            figures = found[kind][way]
            assert min(figures["dialer"], figures["relay"]) > 0
            assert figures["both"] == pytest.approx(figures["dialer"] + figures["relay"], abs=0.001)
    assert min(found["steps"].values()) > 0


def test_each_figure_is_the_median_of_its_rounds() -> None:
    rounds = [{"a": {"b": each}} for each in (3.0, 1.0, 8.0)]
    assert cpu._medians(rounds) == {"a": {"b": 3.0}}


def test_a_tree_beside_this_one_is_measured_with_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "emissary_lib").mkdir()
    (tmp_path / "emissary_lib" / "__init__.py").write_text("raise SystemExit('the other one')")
    with cpu._side(cpu.Variant("before", tmp_path, plain=True), "steps") as process:
        assert process.wait(HANG) == 1
    assert [each.name for each in cpu.variants(tmp_path)][:2] == ["before", "plain"]
