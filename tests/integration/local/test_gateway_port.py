"""One port for upgrades and HTTP: any cutting of the first request works, and a bad one is turned away."""

from __future__ import annotations

import asyncio

import pytest

from emissary_local.limits import Limits
from tests.helpers.patience import HANG
from tests.integration.local.gateway_harness import STAGE, running

UPGRADE = (
    f"GET /{STAGE} HTTP/1.1\r\nHost: x\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
#: RFC 6455 section 1.3: the answer to the key above.
ACCEPT = b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="
PLAIN = f"POST /{STAGE}/@connections/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode()


async def ask(port: int, pieces: list[bytes], *, until: bytes = b"\r\n\r\n") -> bytes:
    """Send ``pieces`` one by one; the answer, lower case, up to ``until`` or the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        answer = b""
        while until not in answer:
            data = await asyncio.wait_for(reader.read(65536), HANG)
            if not data:
                break
            answer += data
        return answer.lower()
    finally:
        writer.close()
        await writer.wait_closed()


def asked(pieces: list[bytes], limits: Limits | None = None) -> bytes:
    async def scenario() -> bytes:
        async with running(limits=limits) as cloud:
            return await ask(cloud.port, pieces)

    return asyncio.run(scenario())


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_upgrade_works_however_it_is_cut(size: int) -> None:
    answer = asked([UPGRADE[start : start + size] for start in range(0, len(UPGRADE), size)])
    assert answer.startswith(b"http/1.1 101 ")
    assert ACCEPT in answer


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_plain_http_works_however_it_is_cut(size: int) -> None:
    answer = asked([PLAIN[start : start + size] for start in range(0, len(PLAIN), size)])
    assert answer.startswith(b"http/1.1 403 ")
    assert b"missingauthenticationtoken" in answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * 40_000, 431),
        (UPGRADE.replace(b"Version: 13", b"Version: 12"), 400),
        (UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
        (UPGRADE.replace(b"Connection: keep-alive, Upgrade", b"Connection: close"), 426),
        (UPGRADE.replace(b"GET", b"POST", 1), 405),
        (UPGRADE.replace(b"Host: x", b"no colon here"), 400),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
    ids=[
        "long target",
        "long head",
        "version",
        "no key",
        "no upgrade token",
        "method",
        "malformed",
        "TLS",
    ],
)
def test_a_bad_first_request_is_turned_away_without_an_invocation(head: bytes, status: int) -> None:
    async def scenario() -> bytes:
        async with running() as cloud:
            answer = await ask(cloud.port, [head])
            assert cloud.invoker.events == []
            return answer

    assert asyncio.run(scenario()).split()[1] == str(status).encode()


def test_a_client_that_never_finishes_its_head_is_dropped() -> None:
    async def scenario() -> bytes:
        async with running(limits=Limits(head_seconds=0.05)) as cloud:
            reader, writer = await asyncio.open_connection("127.0.0.1", cloud.port)
            writer.write(b"GET /")
            try:
                return await asyncio.wait_for(reader.read(), HANG)
            except ConnectionResetError:
                return b""
            finally:
                writer.close()

    assert asyncio.run(scenario()) == b""


def test_a_client_that_does_not_answer_a_close_is_dropped() -> None:
    # RFC 6455 section 5.5.1: opcode 8, length 12, two bytes of code (1001), then the reason.
    close = b"\x88\x0c\x03\xe9Going away"

    async def scenario() -> tuple[bytes, bytes]:
        async with running(limits=Limits(idle_seconds=0.05, close_seconds=0.05)) as cloud:
            reader, writer = await asyncio.open_connection("127.0.0.1", cloud.port)
            writer.write(UPGRADE)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG)
            frame = await asyncio.wait_for(reader.readexactly(len(close)), HANG)
            try:
                return frame, await asyncio.wait_for(reader.read(), HANG)
            except ConnectionResetError:
                return frame, b""
            finally:
                writer.close()

    assert asyncio.run(scenario()) == (close, b"")


def test_a_refused_clients_unread_data_does_not_destroy_the_close_frame() -> None:
    """Closing a TCP connection with bytes unread resets it, and a reset overtakes what was sent before."""

    async def scenario() -> bytes:
        async with running() as cloud:
            reader, writer = await asyncio.open_connection("127.0.0.1", cloud.port)
            writer.write(UPGRADE)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG)
            binary = b"\x82\x82\x00\x00\x00\x00no"
            text = b"\x81\xfe\x40\x00" + bytes(4 + 0x4000)
            writer.write(binary + text * 500)
            await asyncio.wait_for(writer.drain(), HANG)
            answer = await asyncio.wait_for(reader.read(), HANG)
            writer.close()
            return answer

    assert asyncio.run(scenario())[2:4] == (1003).to_bytes(2, "big")
