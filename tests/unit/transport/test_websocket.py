"""The WebSocket, frame by frame, against a server that shows and sends raw ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import pytest
from websocket import WebSocketException
from websockets.asyncio.server import ServerConnection, serve

from emissary_lib.exceptions import GatewayUnreachableError, LinkClosedError, TransportError
from emissary_lib.protocol.constants import MAX_FRAGMENT, MAX_MESSAGE, SUBPROTOCOL
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import (
    MAX_HEAD,
    MAX_INCOMING_FRAGMENTS,
    SEND_TIMEOUT,
    OriginalServerError,
    WebSocketTransport,
    _AnswerHead,
    connect,
)
from emissary_local.net.certificates import Certificates, create_certificates
from tests.helpers.clock import Clock
from tests.helpers.hostile import FLOODS, Script, Torrent
from tests.helpers.patience import HANG, repeat_until_it_raises
from tests.helpers.servers import BlackHole, unused_port
from tests.helpers.ws_server import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Peer,
    RawFrame,
    WsServer,
    frame_bytes,
)


class Joined:
    """A transport and the peer at its other end."""

    def __init__(self, server: WsServer, peers: queue.Queue[Peer]) -> None:
        self.transport = connect(server.url, headers={}, deadline=Deadline(HANG))
        self.peer = peers.get(timeout=HANG)


@pytest.fixture
def joined() -> Iterator[Joined]:
    peers: queue.Queue[Peer] = queue.Queue()
    done = threading.Event()

    def hand_over(peer: Peer) -> None:
        peers.put(peer)
        done.wait(HANG)

    with WsServer(hand_over) as server:
        joined = Joined(server, peers)
        yield joined
        done.set()
        joined.transport.abort()
        joined.transport.release()


def repeat(count: int, send: Callable[[bytes], None], text: bytes) -> None:
    for _ in range(count):
        send(text)


def frames_of_one_message(peer: Peer) -> list[RawFrame]:
    frames = [peer.read_frame()]
    while not frames[-1].fin:
        frames.append(peer.read_frame())
    return frames


@pytest.mark.parametrize("size", [0, 1, MAX_FRAGMENT - 1, MAX_FRAGMENT, MAX_FRAGMENT + 1, MAX_MESSAGE])
def test_a_message_goes_out_in_masked_text_fragments_that_the_gateway_takes(
    joined: Joined, size: int
) -> None:
    text = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    joined.transport.send(text)
    frames = frames_of_one_message(joined.peer)
    assert b"".join(frame.payload for frame in frames) == text
    assert [frame.opcode for frame in frames] == [TEXT, *[CONT] * (len(frames) - 1)]
    assert len(frames) == max(1, -(-size // MAX_FRAGMENT))
    assert all(len(frame.payload) <= 31_000 < 32_000 and frame.masked for frame in frames)


class Written:
    """In place of a stream: keeps what is written."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes, deadline: Deadline) -> None:
        self.data += data


def test_each_frame_has_a_key_of_its_own_drawn_for_it() -> None:
    """RFC 6455 section 5.3: fresh, and from a source that nobody can foretell."""
    stream, drawn = Written(), [bytes([number]) * 4 for number in range(1, 5)]
    keys = iter(drawn)

    def random(size: int) -> bytes:
        return b"".join(next(keys) for _ in range(size // 4))

    transport = WebSocketTransport(cast(ByteStream, stream), "wss://x", random=random)
    transport.send(bytes(2 * MAX_FRAGMENT + 100))
    transport.send(bytes(200))
    lengths = (MAX_FRAGMENT, MAX_FRAGMENT, 100, 200)
    frames = [
        bytes([first, 0x80 | size]) + key * (size // 4 + 1)
        if size < 126
        else bytes([first, 0xFE]) + size.to_bytes(2, "big") + key * (size // 4 + 1)
        for first, size, key in zip((0x01, 0x00, 0x80, 0x81), lengths, drawn, strict=True)
    ]
    assert bytes(stream.data) == b"".join(frames)


def test_messages_of_several_threads_are_never_interleaved(joined: Joined) -> None:
    texts = [letter * 100_000 for letter in (b"a", b"b", b"c", b"d")]
    threads = [threading.Thread(target=joined.transport.send, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    got = [joined.peer.read_message() for _ in texts]
    for thread in threads:
        thread.join()
    assert sorted(filter(None, got)) == texts


def test_a_ping_between_fragments_is_answered_and_the_message_is_whole(joined: Joined) -> None:
    joined.peer.send_frame(TEXT, b"one ", fin=False)
    joined.peer.send_frame(PING, b"there?")
    joined.peer.send_frame(CONT, b"two", fin=True)
    assert joined.transport.recv(HANG) == b"one two"
    pong = joined.peer.read_frame()
    assert (pong.opcode, pong.payload, pong.masked) == (PONG, b"there?", True)


def test_a_ping_is_answered_between_the_messages_of_a_busy_sender(joined: Joined) -> None:
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            joined.transport.send(b"x" * MAX_MESSAGE)

    def receive() -> None:
        with pytest.raises(LinkClosedError):
            joined.transport.recv(None)

    threads = [threading.Thread(target=send), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    joined.peer.send_frame(PING, b"busy?")
    while (frame := joined.peer.read_frame()).opcode != PONG:
        assert frame.opcode in (TEXT, CONT)  # never anything that half a frame would look like
    stop.set()
    while threads[0].is_alive():  # drain, so that the sender gets out
        with contextlib.suppress(TimeoutError):
            joined.peer.read_frame(0.05)
    joined.transport.abort()
    threads[1].join(HANG)
    assert frame.payload == b"busy?"
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 100, 69_000])
def test_a_timeout_in_mid_frame_loses_nothing(joined: Joined, cut: int) -> None:
    text = b"0123456789" * 7_000
    raw = frame_bytes(TEXT, text)
    joined.peer.send_raw(raw[:cut])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            joined.transport.recv(0.02)
    joined.peer.send_raw(raw[cut:] + frame_bytes(TEXT, b"next"))
    assert joined.transport.recv(HANG) == text
    assert joined.transport.recv(HANG) == b"next"


def test_a_timeout_between_fragments_loses_nothing(joined: Joined) -> None:
    joined.peer.send_frame(TEXT, b"one ", fin=False)
    with pytest.raises(TimeoutError):
        joined.transport.recv(0.05)
    joined.peer.send_frame(CONT, b"two")
    assert joined.transport.recv(HANG) == b"one two"


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        (b"\x03\xe8", 1000, "no reason given"),
        (b"\x03\xe9Going away", 1001, "Going away"),
        (b"\x03\xf1", 1009, "1009"),
        (b"", 1005, "1005"),
    ],
)
def test_a_close_frame_is_answered_and_its_code_is_told(
    joined: Joined, payload: bytes, code: int, text: str
) -> None:
    joined.peer.send_frame(CLOSE, payload)
    with pytest.raises(LinkClosedError, match=text) as caught:
        joined.transport.recv(HANG)
    assert caught.value.close_code == code
    assert isinstance(caught.value, ConnectionError)
    echo = joined.peer.read_frame()
    assert (echo.opcode, echo.payload) == (CLOSE, payload[:2])


def test_a_connection_that_just_ends_is_code_1006(joined: Joined) -> None:
    joined.peer.sock.close()
    with pytest.raises(LinkClosedError, match="without a close frame") as caught:
        joined.transport.recv(HANG)
    assert caught.value.close_code == 1006


@pytest.mark.parametrize(
    "frames",
    [
        [frame_bytes(BINARY, b"\0\1")],
        [frame_bytes(CONT, b"of what?")],
        [frame_bytes(TEXT, b"one", fin=False), frame_bytes(TEXT, b"another")],
        [b"\xf1\x00"],  # reserved bits
        [b"\x83\x00"],  # an unknown opcode
        [frame_bytes(CLOSE, b"\x03")],
        [b"\x81\x7f" + (1 << 40).to_bytes(8, "big")],  # a terabyte
        [frame_bytes(TEXT, b"x" * 100_000, fin=False), frame_bytes(CONT, b"x" * 100_000)],
    ],
    ids=[
        "binary",
        "no start",
        "two starts",
        "reserved",
        "opcode",
        "half a code",
        "huge frame",
        "huge message",
    ],
)
def test_what_the_gateway_never_sends_ends_the_link(joined: Joined, frames: list[bytes]) -> None:
    joined.peer.send_raw(b"".join(frames))
    with pytest.raises(LinkClosedError):
        joined.transport.recv(HANG)


def test_a_message_in_as_many_fragments_as_may_be_is_whole(joined: Joined) -> None:
    parts = [frame_bytes(CONT, b"x", fin=False)] * (MAX_INCOMING_FRAGMENTS - 2)
    whole = b"".join([frame_bytes(TEXT, b"x", fin=False), *parts, frame_bytes(CONT, b"y")])
    for _ in range(2):
        joined.peer.send_raw(whole)
        assert joined.transport.recv(HANG) == b"x" * (MAX_INCOMING_FRAGMENTS - 1) + b"y"


def test_what_had_come_before_an_abort_is_not_given_any_more(joined: Joined) -> None:
    """A flood is a lot of it, and nobody wants it."""
    joined.peer.send_raw(frame_bytes(TEXT, b"one") + frame_bytes(TEXT, b"two"))
    assert joined.transport.recv(HANG) == b"one"
    joined.transport.abort()
    with pytest.raises(LinkClosedError):
        joined.transport.recv(HANG)


class Counted(bytes):
    """Bytes that count how often anybody asks how many they are."""

    asked = 0

    def __len__(self) -> int:
        Counted.asked += 1
        return super().__len__()


def test_each_fragment_is_measured_once_or_so_however_many_came_before(joined: Joined) -> None:
    """A sum over all of them for each made a message of one-byte fragments cost 500 s."""
    Counted.asked = 0
    for index in range(MAX_INCOMING_FRAGMENTS):
        joined.transport._take(Counted(b"x"), starts=index == 0)
    assert Counted.asked <= 3 * MAX_INCOMING_FRAGMENTS


def on_a_clock(script: Script) -> tuple[WebSocketTransport, Clock]:
    clock = Clock()
    stream = cast(ByteStream, Torrent(script, clock))
    return WebSocketTransport(stream, "ws://hostile", lambda: clock.now), clock


@pytest.mark.parametrize(
    ("frames", "cause"),
    [
        ([frame_bytes(TEXT, fin=False), *[frame_bytes(CONT, fin=False)] * 1024], "1024 fragments"),
        (
            [frame_bytes(TEXT, b"x", fin=False), *[frame_bytes(CONT, b"x", fin=False)] * 1024],
            "1024 fragments",
        ),
        ([frame_bytes(PING, bytes(126))], "control frame"),
        ([frame_bytes(PONG, fin=False)], "control frame"),
    ],
    ids=["empty fragments", "tiny fragments", "huge ping", "half a pong"],
)
def test_what_would_make_work_without_end_ends_the_link_at_once(frames: list[bytes], cause: str) -> None:
    transport, _clock = on_a_clock(Script(b"".join(frames)))
    with pytest.raises(LinkClosedError, match=cause):
        transport.recv(1.0)


#: Those that give no message, so that one call has to go through all of it.
NO_MESSAGE = ["pings", "pongs", "pings between fragments", "a frame that drips", "a frame byte by byte"]


@pytest.mark.parametrize("name", NO_MESSAGE)
def test_a_flood_that_is_no_message_does_not_outlast_the_deadline(name: str) -> None:
    transport, clock = on_a_clock(FLOODS[name])
    began = clock.now
    with pytest.raises(TimeoutError):
        transport.recv(1.0)
    assert clock.now - began <= 1.0 + FLOODS[name].pace


def test_a_receiver_without_any_time_gets_on_all_the_same() -> None:
    transport, _clock = on_a_clock(Script(frame_bytes(TEXT, b"hello")))
    for _ in range(10):
        with contextlib.suppress(TimeoutError):
            assert transport.recv(0.0) == b"hello"
            return
    raise AssertionError("the message was there and never came out")


def test_a_pong_that_nobody_takes_does_not_outlast_the_deadline() -> None:
    transport, clock = on_a_clock(Script(again=frame_bytes(PING), takes=0))
    began = clock.now
    with pytest.raises(LinkClosedError):
        transport.recv(1.0)
    assert clock.now - began <= 1.1


@pytest.mark.parametrize(("timeout", "waited"), [(1.0, 1.0), (None, SEND_TIMEOUT), (1000.0, SEND_TIMEOUT)])
def test_a_message_that_nobody_takes_breaks_the_link_in_time(timeout: float | None, waited: float) -> None:
    transport, clock = on_a_clock(Script(takes=0))
    began = clock.now
    with pytest.raises(LinkClosedError):
        transport.send(b"x", timeout)
    assert clock.now - began == pytest.approx(waited)


class Drip(socket.socket):
    """A connection that gives an answer byte by byte, without end, and counts them."""

    given = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.given += 1
        return b"x"


def test_the_head_of_an_answer_is_read_up_to_a_limit_and_no_longer_than_the_deadline() -> None:
    clock = Clock()
    with Drip() as endless:
        head = _AnswerHead(endless, Deadline(1.0, lambda: clock.now))
        with pytest.raises(WebSocketException, match="65536 bytes"):
            head.recv(1)
        assert endless.given == MAX_HEAD + 1
    clock.advance(2.0)
    with Drip() as endless:
        with pytest.raises(TimeoutError):
            _AnswerHead(endless, Deadline(-1.0, lambda: clock.now)).recv(1)
        assert endless.given == 0


@pytest.mark.parametrize("cookie", ["a=1; domain=127.0.0.1", "a/b=1", "a=1"])
def test_cookies_are_neither_kept_nor_sent_nor_understood(cookie: str) -> None:
    """The library keeps one jar for the whole process, and breaks at a name that it cannot parse."""
    with WsServer(subprotocol=f"{SUBPROTOCOL}\r\nSet-Cookie: {cookie}") as server:
        for _ in range(2):
            transport = connect(server.url, headers={}, deadline=Deadline(HANG))
            transport.close()
            transport.release()
        assert not any("cookie" in request.headers for request in server.requests)


def test_what_is_not_ascii_is_left_to_the_frame_decoder_to_refuse(joined: Joined) -> None:
    joined.peer.send_frame(TEXT, b"\xff\xfe")
    assert joined.transport.recv(HANG) == b"\xff\xfe"


def test_abort_wakes_a_thread_that_waits(joined: Joined) -> None:
    failed: list[BaseException] = []

    def receive() -> None:
        try:
            joined.transport.recv(None)
        except TransportError as exc:
            failed.append(exc)

    thread = threading.Thread(target=receive)
    thread.start()
    joined.transport.abort()
    joined.transport.abort()
    thread.join(HANG)
    assert len(failed) == 1
    with pytest.raises(LinkClosedError):
        joined.transport.send(b"too late")


def test_close_says_goodbye_once(joined: Joined) -> None:
    joined.transport.close()
    goodbye = joined.peer.read_frame()
    assert (goodbye.opcode, goodbye.payload) == (CLOSE, b"\x03\xe8")
    with pytest.raises(ConnectionError):
        joined.peer.read_frame()


def test_close_does_not_wait_for_a_sender_that_is_stuck(joined: Joined) -> None:
    def send() -> None:
        with pytest.raises(LinkClosedError):
            repeat_until_it_raises(lambda: joined.transport.send(b"x" * MAX_MESSAGE))  # nobody reads

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    joined.transport.close()
    thread.join(HANG)
    assert not thread.is_alive()


def test_a_big_message_costs_time_in_proportion(joined: Joined) -> None:
    def seconds(count: int) -> float:
        text = b"x" * MAX_MESSAGE
        sender = threading.Thread(target=repeat, args=(count, joined.peer.send_text, text))
        sender.start()
        began = time.process_time()
        for _ in range(count):
            assert len(joined.transport.recv(HANG)) == MAX_MESSAGE
        spent = time.process_time() - began
        sender.join()
        return spent

    seconds(20)
    assert seconds(400) < HANG  # 50 MB; a quadratic cost would take minutes


# -- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("tls"))


class AsyncServer:
    """A TLS server that reads and writes at once, in an event loop of its own."""

    def __init__(self, context: ssl.SSLContext, handler: Callable[[ServerConnection], object]) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._context = context
        self._handler = handler
        self.port = 0
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    async def _run(self) -> None:
        handler = self._handler
        async with serve(
            handler,  # type: ignore[arg-type]
            "127.0.0.1",
            0,
            ssl=self._context,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> str:
        self._thread.start()
        assert self._ready.wait(HANG)
        return f"wss://localhost:{self.port}/stage"

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(HANG)
        self._loop.close()


def test_bulk_crosses_both_ways_at_once_over_tls(certificates: Certificates) -> None:
    count, text = 100, os.urandom(47_000).hex().encode()
    received: list[int] = []

    async def both_ways(connection: ServerConnection) -> None:
        async def send() -> None:
            for _ in range(count):
                await connection.send(text, text=True)

        async def receive() -> None:
            for _ in range(count):
                received.append(hash(await connection.recv(decode=False)))

        await asyncio.gather(send(), receive())

    with AsyncServer(certificates.server_context(), both_ways) as url:
        context = ssl.create_default_context(cafile=certificates.ca_file)
        transport = connect(url, headers={}, deadline=Deadline(HANG), ssl_context=context)
        sender = threading.Thread(target=repeat, args=(count, transport.send, text))
        sender.start()
        assert all(transport.recv(HANG) == text for _ in range(count))
        sender.join(HANG)
        with pytest.raises(LinkClosedError) as caught:
            transport.recv(HANG)
        transport.close()
        transport.release()
    assert received == [hash(text)] * count
    assert caught.value.close_code == 1000


def test_a_certificate_of_nobody_known_is_refused(certificates: Certificates) -> None:
    with WsServer(ssl_context=certificates.server_context()) as server:
        with pytest.raises(
            GatewayUnreachableError, match="the certificate is not signed by a known authority"
        ):
            connect(server.url, headers={}, deadline=Deadline(HANG))
        assert server.requests == []


def test_who_does_not_speak_tls_is_told_so() -> None:
    """Symptom: "wrong version number; check the URL, DNS" for wss:// to a port of ws://."""
    with WsServer(raw=lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        with pytest.raises(GatewayUnreachableError, match="what answers there does not speak TLS"):
            connect(server.url.replace("ws://", "wss://"), headers={}, deadline=Deadline(HANG))


def test_a_certificate_for_another_name_is_refused(certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with WsServer(ssl_context=certificates.server_context()) as server:
        url = f"wss://127.1:{server.port}/stage"  # 127.0.0.1, but the certificate does not call it that
        with pytest.raises(GatewayUnreachableError, match="127\\.1"):
            connect(url, headers={}, deadline=Deadline(HANG), ssl_context=context)
        assert server.requests == []


def test_the_callers_own_tls_context_is_used_and_left_alone(certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with WsServer(ssl_context=certificates.server_context()) as server:
        transport: WebSocketTransport = connect(
            server.url, headers={"X-Test": "1"}, deadline=Deadline(HANG), ssl_context=context
        )
        transport.close()
        transport.release()
        assert server.requests[0].headers["x-test"] == "1"
    assert len(context.get_ca_certs()) == 1  # the system's were not added


@pytest.mark.parametrize("secure", [False, True])
def test_a_gateway_one_of_whose_addresses_swallows_everything_is_reached_at_another(
    certificates: Certificates, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a VPC whose only way out is IPv6, where IPv4 may come first."""
    context = certificates.server_context() if secure else None
    with BlackHole() as swallowing, WsServer(ssl_context=context) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        there = ("127.0.0.1", urlsplit(url).port)

        def both(host: str, port: int, **_options: object) -> list[object]:
            assert (host, port) == ("localhost", there[1])
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (swallowing, there)]

        monkeypatch.setattr(socket, "getaddrinfo", both)
        trusted = ssl.create_default_context(cafile=certificates.ca_file) if secure else None
        transport = connect(url, headers={}, deadline=Deadline(HANG), ssl_context=trusted)
        transport.abort()
        transport.release()


@pytest.mark.parametrize(
    ("host", "says"), [("127.0.0.1", "Connection refused"), ("no-such-host.invalid", "not known|resolution")]
)
def test_a_gateway_that_is_not_there_is_told_in_the_system_s_words_and_no_number(
    host: str, says: str
) -> None:
    """Symptom: "[Errno 111] Connection refused"."""
    with unused_port() as (_address, port):
        with pytest.raises(GatewayUnreachableError, match=f"({says}).*; check the URL, DNS") as caught:
            connect(f"ws://{host}:{port}/s", headers={}, deadline=Deadline(HANG))
    assert "Errno" not in str(caught.value)


def test_a_server_that_accepts_no_subprotocol_is_handed_over_where_that_is_wanted() -> None:
    def greet(peer: Peer) -> None:
        peer.send_frame(BINARY, b"banner")
        peer.read_frame()

    with WsServer(greet, subprotocol=None) as server:
        with pytest.raises(OriginalServerError, match=r"does not speak emissary\.v2") as caught:
            connect(server.url, headers={}, deadline=Deadline(HANG), original=True)
        stream = caught.value.stream
        assert stream.read(100, Deadline(HANG)) == b"\x82\x06banner"  # nothing of it was read before
        assert caught.value.date is None
        stream.shutdown()
        stream.close()
        with pytest.raises(GatewayUnreachableError) as other:
            connect(server.url, headers={}, deadline=Deadline(HANG))
        assert not isinstance(other.value, OriginalServerError)


def test_a_server_that_accepts_another_subprotocol_is_never_handed_over() -> None:
    with WsServer(subprotocol="mqtt") as server:
        with pytest.raises(GatewayUnreachableError, match="check the URL") as caught:
            connect(server.url, headers={}, deadline=Deadline(HANG), original=True)
        assert not isinstance(caught.value, OriginalServerError)
