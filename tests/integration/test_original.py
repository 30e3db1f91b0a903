"""The dialer and its commands over the original's transport: bulk, many at once, cuts, TLS, programs.

``ORIGINAL_SERVER`` may name the original's own server, built of its authors' source: then these run
against that as well.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from emissary_lib import Dialer
from emissary_lib.exceptions import (
    AuthenticationError,
    TargetNotAllowedError,
    TargetRefusedError,
    TunnelResetError,
)
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.tunnel.loopback import reset
from emissary_local.net.certificates import create_certificates
from tests.helpers.original import KEY, OriginalServer
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.servers import Server, echo, source, unused_port
from tests.helpers.tls_front import pass_on
from tests.helpers.ws_server import noise

REAL = os.environ.get("ORIGINAL_SERVER")

#: Of each bulk transfer, in bytes.
BULK = 30_000_000

#: Opens a server that reaches these targets, and gives its URL and what cuts all of its connections.
Opens = Callable[..., contextlib.AbstractContextManager[tuple[str, Callable[[], None]]]]


@contextlib.contextmanager
def fake(*allowed: tuple[str, int]) -> Iterator[tuple[str, Callable[[], None]]]:
    with OriginalServer(allowed) as server:
        yield server.url, server.cut


@contextlib.contextmanager
def real(*allowed: tuple[str, int]) -> Iterator[tuple[str, Callable[[], None]]]:
    assert REAL
    with unused_port() as (_host, port):
        pass
    environ = {
        "EMISSARY_HTTP_PORT": str(port),
        "EMISSARY_AUTH_KEYS": json.dumps(
            [{"kid": KEY.key_id, "data": base64.b64encode(KEY.secret).decode()}]
        ),
        "EMISSARY_ALLOWED_PROXY_TARGETS": json.dumps([{"host": host, "port": p} for host, p in allowed]),
    }
    process = subprocess.Popen([REAL], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", port)) == 0

    def cut() -> None:
        process.kill()
        process.wait(HANG)

    try:
        wait_until(listens, "the server listens")
        yield f"ws://127.0.0.1:{port}", cut
    finally:
        cut()


@pytest.fixture(
    params=[
        fake,
        pytest.param(
            real, marks=pytest.mark.skipif(REAL is None, reason="the original's server is not here")
        ),
    ]
)
def opens(request: pytest.FixtureRequest) -> Opens:
    made: Opens = request.param
    return made


def read_all(sock: socket.socket) -> bytes:
    got = bytearray()
    while data := sock.recv(1 << 18):
        got += data
    return bytes(got)


def test_bulk_to_the_target_arrives_whole(opens: Opens) -> None:
    def digest(connection: socket.socket) -> None:
        found, left = hashlib.sha256(), BULK
        while left:
            data = connection.recv(1 << 18)
            found.update(data)
            left -= len(data)
        connection.sendall(found.digest())

    data = noise(BULK)
    with Server(digest) as target, opens(target) as (url, _cut), Dialer(url, KEY) as dialer:
        with dialer.dial(target, HANG) as sock:
            sock.sendall(data)
            assert read_all(sock) == hashlib.sha256(data).digest()


def test_bulk_from_the_target_arrives_whole(opens: Opens) -> None:
    data = noise(BULK)
    with Server(source(data)) as target, opens(target) as (url, _cut), Dialer(url, KEY) as dialer:
        with dialer.dial(target, HANG) as sock:
            assert hashlib.sha256(read_all(sock)).digest() == hashlib.sha256(data).digest()


def test_bulk_both_ways_at_once_arrives_whole(opens: Opens) -> None:
    data = noise(BULK // 3)
    with Server(echo) as target, opens(target) as (url, _cut), Dialer(url, KEY) as dialer:
        with dialer.dial(target, HANG) as sock:
            sender = threading.Thread(target=sock.sendall, args=(data,))
            sender.start()
            got = bytearray()
            while len(got) < len(data):
                got += sock.recv(1 << 18)
            sender.join(HANG)
            assert bytes(got) == data


def test_fifty_connections_at_once(opens: Opens) -> None:
    with Server(echo) as target, opens(target) as (url, _cut), Dialer(url, KEY) as dialer:

        def converse(number: int) -> bool:
            data = number.to_bytes(4, "big") * 20_000
            with dialer.dial(target, HANG) as sock:
                sender = threading.Thread(target=sock.sendall, args=(data,))
                sender.start()
                got = bytearray()
                while len(got) < len(data):
                    got += sock.recv(65_536)
                sender.join(HANG)
                return bytes(got) == data

        with ThreadPoolExecutor(50) as threads:
            assert all(threads.map(converse, range(50)))


def test_a_wrong_key_a_target_off_the_list_and_one_that_refuses(opens: Opens) -> None:
    with (
        Server(echo) as target,
        Server(echo) as other,
        unused_port() as closed,
        opens(target, closed) as (url, _cut),
    ):
        with Dialer(url, Key(KEY.key_id, bytes(32))) as stranger, pytest.raises(AuthenticationError):
            stranger.dial(target, HANG)
        with Dialer(url, KEY) as dialer:
            with pytest.raises(TargetNotAllowedError):
                dialer.dial(other, HANG)
            with pytest.raises(TargetRefusedError):
                dialer.dial(closed, HANG)
            with dialer.dial(target, HANG) as sock:
                sock.sendall(b"still here")
                assert sock.recv(100) == b"still here"


@pytest.mark.parametrize("way", ["to the target", "from the target"])
def test_a_cut_in_the_middle_of_a_transfer_is_an_error_and_what_came_is_right(opens: Opens, way: str) -> None:
    data, half = noise(8_000_000), threading.Event()

    def serve(connection: socket.socket) -> None:
        if way == "to the target":
            while connection.recv(65_536):
                half.set()
        else:
            connection.sendall(data)
            connection.recv(1)

    with Server(serve) as target, opens(target) as (url, cut), Dialer(url, KEY) as dialer:
        with dialer.dial(target, HANG) as sock:
            if way == "to the target":
                cutter = threading.Thread(target=lambda: half.wait(HANG) and cut())
                cutter.start()
                with pytest.raises(TunnelResetError, match="DIALER_GONE"):
                    repeat_until_it_raises(lambda: sock.sendall(data))
                cutter.join(HANG)
            else:
                got = bytearray(sock.recv(100_000))
                cut()
                with pytest.raises(TunnelResetError, match="DIALER_GONE"):
                    read_until_it_raises(lambda: sock.recv(65_536), got)
                assert len(got) < len(data)
                assert data.startswith(got)


def test_asyncio_s_streams(opens: Opens) -> None:
    async def main(url: str, target: tuple[str, int]) -> bytes:
        async with Dialer(url, KEY) as dialer:
            reader, writer = await dialer.open_connection(target, HANG)
            writer.write(b"over streams")
            await writer.drain()
            got = await reader.readexactly(12)
            writer.close()
            return got

    with Server(echo) as target, opens(target) as (url, _cut):
        assert asyncio.run(main(url, target)) == b"over streams"


def test_a_forwarded_port_and_a_socks5_server(opens: Opens) -> None:
    with Server(echo) as target, opens(target) as (url, _cut), Dialer(url, KEY) as dialer:
        with dialer.forward(target) as address, socket.create_connection(address, HANG) as sock:
            sock.sendall(b"forwarded")
            assert sock.recv(100) == b"forwarded"
        with dialer.socks() as address, socket.create_connection(address, HANG) as sock:
            host = socket.inet_aton(target[0])
            sock.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x01" + host + target[1].to_bytes(2, "big"))
            assert sock.recv(2, socket.MSG_WAITALL) == b"\x05\x00"
            assert sock.recv(10)[:2] == b"\x05\x00"
            sock.sendall(b"by SOCKS5")
            assert sock.recv(100) == b"by SOCKS5"


def command(url: str, *words: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, "EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}
    environ.pop("EMISSARY_ENV_FILE", None)
    return subprocess.run(
        [sys.executable, "-m", "emissary_lib", *words],
        env=environ,
        input=text,
        capture_output=True,
        timeout=HANG,
    )


def test_emissary_exec_and_connect(opens: Opens) -> None:
    program = (
        "import os, socket; s = socket.create_connection((os.environ['EMISSARY_HOST'], "
        "int(os.environ['EMISSARY_PORT']))); s.sendall(b'from exec'); print(s.recv(100).decode())"
    )

    def once(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100))

    with Server(once) as target, opens(target) as (url, _cut):
        named = f"{target[0]}:{target[1]}"
        done = command(url, "exec", named, "--", sys.executable, "-c", program)
        assert (done.returncode, done.stdout.strip()) == (0, b"from exec"), done.stderr
        done = command(url, "connect", named, text=b"from connect")
        assert (done.returncode, done.stdout) == (0, b"from connect"), done.stderr


def test_a_program_that_exits_right_after_it_wrote_has_delivered(opens: Opens) -> None:
    got, over = bytearray(), threading.Event()

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            got.extend(data)
        over.set()

    program = (
        "import sys\n"
        "from emissary_lib import Dialer\n"
        "from emissary_lib.protocol.auth.keys import parse_keys as p\n"
        "sock = Dialer(sys.argv[1], p(sys.argv[2])[0]).dial(sys.argv[3])\n"
        "sock.sendall(b'x' * 3_000_000)"
    )
    with Server(serve) as target, opens(target) as (url, _cut):
        words = [sys.executable, "-c", program, url, format_keys([KEY]), f"{target[0]}:{target[1]}"]
        done = subprocess.run(words, capture_output=True, timeout=HANG)
        assert (done.returncode, done.stderr) == (0, b"")
        assert over.wait(HANG)
        assert len(got) == 3_000_000


def test_over_tls(tmp_path: pathlib.Path) -> None:
    certificates = create_certificates(tmp_path)
    data = noise(100_000)

    def add_tls(sock: socket.socket) -> None:
        """What a load balancer does, in one thread: an SSL object is for one at a time."""
        with (
            socket.create_connection(plain) as back,
            certificates.server_context().wrap_socket(sock, server_side=True) as front,
        ):
            pass_on(front, back)

    with Server(echo) as target, OriginalServer([target]) as server:
        plain = ("127.0.0.1", urlsplit(server.url).port)
        with Server(add_tls) as (_host, port):
            dialer = Dialer(f"wss://localhost:{port}/", KEY, ca_file=certificates.ca_file)
            with dialer, dialer.dial(target, HANG) as sock:
                for _ in range(30):  # what kernels hold: it is passed on one way at a time
                    sock.sendall(data)
                    assert sock.recv(len(data), socket.MSG_WAITALL) == data
                server.cut()
                with pytest.raises(TunnelResetError):
                    sock.recv(1)


def test_a_target_that_resets_while_it_is_written_to_is_no_clean_end(opens: Opens) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        reset(connection)

    with Server(serve) as target, opens(target) as (url, _cut), Dialer(url, KEY) as dialer:
        with dialer.dial(target, HANG) as sock:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                repeat_until_it_raises(lambda: sock.sendall(bytes(65_536)))
