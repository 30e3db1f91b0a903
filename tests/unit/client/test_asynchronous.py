"""Dialling from asyncio: streams and protocols over a tunnel; a dial that is given up leaves nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import pytest

from emissary_lib.client import asynchronous
from emissary_lib.client.dialer import MAX_IN_FLIGHT, Dialer
from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exceptions import (
    AuthenticationError,
    ClosedError,
    ConfigError,
    DialTimeoutError,
    LocalResourceError,
    RelayDeadlineError,
    TargetRefusedError,
    TunnelResetError,
)
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import End
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import tcp_pair
from emissary_local.net.certificates import Certificates, create_certificates
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.kinds import OWN
from tests.helpers.patience import HANG, wait_until
from tests.helpers.servers import BlackHole
from tests.helpers.ws_server import Request, WsServer, noise, refusal

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(main: Coroutine[Any, Any, None]) -> None:
    """As ``asyncio.run``; whatever the loop has nobody to tell of is a failure."""
    unheard: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
        await asyncio.wait_for(main, HANG)

    asyncio.run(watched(), debug=False)
    gc.collect()
    assert unheard == []


@contextlib.contextmanager
def dialling(behaviour: Behaviour | None = None) -> Iterator[tuple[Bridge, Dialer]]:
    with Bridge(behaviour) as bridge:
        dialer = OWN.dialer(bridge.url, KEY)
        yield bridge, dialer
        wait_until(lambda: dialling_threads() == [], "the end of every dial and tunnel")
        assert dialer._in_flight.free == MAX_IN_FLIGHT


def dialling_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("emissary")]


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


# -- streams ------------------------------------------------------------------------------------


def test_streams_carry_both_ways() -> None:
    data = noise(1 << 20)
    with dialling(Behaviour(script=echo)) as (_bridge, dialer):

        async def main() -> None:
            reader, writer = await dialer.open_connection(TARGET)
            writer.write(data)
            got, _ = await asyncio.gather(reader.readexactly(len(data)), writer.drain())
            assert got == data
            await end(writer)

        run(main())


def test_a_half_close_is_kept_and_the_answer_comes_after_it() -> None:
    with dialling() as (bridge, dialer):

        async def main() -> None:
            reader, writer = await dialer.open_connection(("db.internal", 5432))
            writer.write(b"question")
            assert writer.can_write_eof()
            writer.write_eof()
            relay = bridge.relay()
            assert await asyncio.to_thread(relay.read_to_end) == b"question"
            relay.write(b"answer")
            relay.write_eof()
            assert await reader.read() == b"answer"
            await end(writer)

        run(main())


def test_a_target_that_reads_nothing_holds_the_writer_up() -> None:
    def deaf(relay: Relay) -> None:
        relay.reads = False

    with dialling(Behaviour(script=deaf)) as (bridge, dialer):

        async def main() -> None:
            _reader, writer = await dialer.open_connection(TARGET)
            data = noise(8 << 20)  # more than all buffers on the way
            writer.write(data)
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0)
            assert not drained.done()
            relay = bridge.relay()
            relay.reads = True
            await drained
            writer.write_eof()
            assert await asyncio.to_thread(relay.read_to_end) == data
            relay.write_eof()
            await end(writer)

        run(main())


def test_the_limit_is_the_readers() -> None:
    with dialling(Behaviour(script=echo)) as (bridge, dialer):

        async def main() -> None:
            with pytest.raises(ValueError, match="Limit"):
                await dialer.open_connection(TARGET, limit=0)
            assert bridge.server.requests == []
            reader, writer = await dialer.open_connection(TARGET, limit=10)
            writer.write(b"x" * 100 + b"\n")
            with pytest.raises(ValueError, match="limit"):
                await reader.readline()
            await end(writer)

        run(main())


# -- protocols ----------------------------------------------------------------------------------


class Recorder(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.received = bytearray()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.ids.append(Dialer.session_of(transport).id)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.mark.parametrize("named", [False, True])
def test_a_protocol_gets_its_transport_and_knows_its_session(named: bool) -> None:
    with dialling() as (bridge, dialer):

        async def main() -> None:
            if named:
                made = dialer.create_connection(target=TARGET, protocol_factory=Recorder)
            else:
                made = dialer.create_connection(Recorder, TARGET, HANG)
            transport, protocol = await made
            assert_type(transport, asyncio.Transport)
            assert_type(protocol, Recorder)
            session = dialer.session_of(transport)
            assert protocol.ids == [session.id]
            assert str(session.target) == TARGET
            transport.write(b"hello")
            relay = bridge.relay()
            assert await asyncio.to_thread(relay.read, 5) == b"hello"
            relay.write(b"bye")
            relay.write_eof()
            assert await protocol.lost is None
            assert protocol.received == b"bye"

        run(main())


def test_an_address_still_gets_a_socket() -> None:
    with dialling(Behaviour(script=echo)) as (_bridge, dialer):
        for made in (
            dialer.create_connection(("db.internal", 5432), 7.0),
            dialer.create_connection(address=("db.internal", 5432), timeout=7.0),
        ):
            assert_type(made, TunnelSocket)
            with made as sock:
                assert sock.gettimeout() == 7.0


def test_a_protocol_factory_that_fails_leaves_nothing_open() -> None:
    def fail() -> asyncio.Protocol:
        raise ZeroDivisionError("a bug")

    with dialling() as (bridge, dialer):

        async def main() -> None:
            with pytest.raises(ZeroDivisionError):
                await dialer.create_connection(fail, TARGET)

        run(main())
        assert bridge.relay().wait_aborted().code is Code.DIALER_RESET


def test_a_transport_that_is_no_tunnels_has_no_session() -> None:
    near, far = tcp_pair()

    async def main() -> None:
        _reader, writer = await asyncio.open_connection(sock=near)
        with pytest.raises(ConfigError, match="not over a tunnel"):
            Dialer.session_of(writer)
        await end(writer)

    with far:
        run(main())


# -- many ---------------------------------------------------------------------------------------


def test_64_dials_at_once_take_no_thread_of_the_loops_executor() -> None:
    with dialling(Behaviour(script=echo)) as (bridge, dialer):

        async def one(number: int) -> None:
            reader, writer = await dialer.open_connection(TARGET, HANG)
            data = f"{number}\n".encode()
            writer.write(data)
            assert await reader.readline() == data
            await end(writer)

        async def main() -> None:
            release = threading.Event()
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            busy = loop.run_in_executor(None, release.wait, HANG)
            async with asyncio.TaskGroup() as group:
                for number in range(64):
                    group.create_task(one(number))
            release.set()
            await busy

        run(main())
        assert len(bridge.server.requests) == 64


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [Code.TARGET_RESET, Code.RELAY_DEADLINE])
def test_a_reader_is_told_why_the_tunnel_was_cut_off(code: Code) -> None:
    with dialling() as (bridge, dialer):

        async def main() -> None:
            reader, writer = await dialer.open_connection(TARGET)
            session = dialer.session_of(writer)
            relay = bridge.relay()
            relay.write(b"half an answ")
            relay.flush()
            relay.reset(code, "out of memory")
            assert await reader.readexactly(12) == b"half an answ"
            with pytest.raises(TunnelResetError) as caught:
                await reader.read()
            assert isinstance(caught.value, RelayDeadlineError) is (code is Code.RELAY_DEADLINE)
            assert str(caught.value) == str(session.error)
            with pytest.raises(TunnelResetError):
                await writer.drain()
            with pytest.raises(TunnelResetError):
                await end(writer)

        run(main())


def test_a_writer_is_told_why_as_well() -> None:
    def deaf(relay: Relay) -> None:
        relay.reads = False

    with dialling(Behaviour(script=deaf)) as (bridge, dialer):

        async def main() -> None:
            transport, protocol = await dialer.create_connection(Recorder, TARGET)
            transport.pause_reading()  # so that only writing can tell
            for _ in range(3):
                transport.write(noise(4 << 20))
            bridge.relay().reset(Code.KILLED, "an operator")
            exc = await protocol.lost
            assert isinstance(exc, TunnelResetError)
            assert "an operator" in str(exc)

        run(main())


def refused() -> Behaviour:
    return Behaviour(dial_code=Code.TARGET_REFUSED)


@pytest.mark.parametrize(
    ("behaviour", "timeout", "expected"),
    [
        (refused, HANG, TargetRefusedError),
        (lambda: Behaviour(key=Key(8, bytes(32))), HANG, AuthenticationError),
        (lambda: Behaviour(silent=True), 0.05, DialTimeoutError),
    ],
)
def test_a_dial_that_fails_raises_what_dial_raises(
    behaviour: Callable[[], Behaviour], timeout: float, expected: type[Exception]
) -> None:
    with dialling(behaviour()) as (_bridge, dialer):

        async def main() -> None:
            for dial in (
                dialer.open_connection(TARGET, timeout),
                dialer.create_connection(Recorder, TARGET, timeout),
            ):
                with pytest.raises(expected):
                    await dial

        run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": "db"},
        {"timeout": "5"},
        {"server_hostname": "db.internal"},
        {"ssl": "yes"},
        {"ssl": True, "server_hostname": b"db"},
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused_before_anything_is_dialled(arguments: dict[str, Any]) -> None:
    with dialling() as (bridge, dialer):

        async def main() -> None:
            with pytest.raises(ConfigError):
                await dialer.open_connection(**{"target": TARGET, **arguments})
            with pytest.raises(ConfigError):
                await dialer.create_connection(Recorder, **{"target": TARGET, **arguments})

        run(main())
        assert bridge.server.requests == []


def test_a_closed_dialer_dials_no_more_and_closing_it_leaves_the_loop_free() -> None:
    with dialling(Behaviour(script=echo)) as (_bridge, dialer):

        async def main() -> None:
            async with dialer:
                reader, writer = await dialer.open_connection(TARGET)
                writer.write(b"x" * 1_000_000)  # the loop has to go on for it to arrive
                writer.write_eof()
                reading = asyncio.ensure_future(reader.read())
            assert await reading == b"x" * 1_000_000
            await end(writer)
            with pytest.raises(ClosedError):
                await dialer.open_connection(TARGET)

        run(main())


def test_a_lack_of_threads_is_a_declared_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "emissary-dial":
            raise RuntimeError("can't start new thread")
        real(thread)

    real = threading.Thread.start
    with dialling() as (bridge, dialer):

        async def main() -> None:
            monkeypatch.setattr(threading.Thread, "start", start)
            with pytest.raises(LocalResourceError, match="can't start new thread"):
                await dialer.open_connection(TARGET)
            monkeypatch.undo()

        run(main())
        assert bridge.server.requests == []


# -- given up -----------------------------------------------------------------------------------


def ends(bridge: Bridge) -> list[Code]:
    """Why the dialer has ended its sessions, as it told the bridge."""
    frames = [decode(text) for text in list(bridge.messages)]
    return [End.decode(frame.payload).code for frame in frames if frame.type is FrameType.END]


def test_cancelling_while_the_relay_starts_tells_the_bridge() -> None:
    with dialling(Behaviour(silent=True)) as (bridge, dialer):

        async def main() -> None:
            dial = asyncio.ensure_future(dialer.open_connection(TARGET, None))
            await asyncio.to_thread(wait_until, lambda: bridge.messages, "the opening")
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial

        run(main())
        wait_until(lambda: ends(bridge) == [Code.DIALER_RESET], "END")


@contextlib.contextmanager
def unanswered() -> Iterator[tuple[str, threading.Event]]:
    """A gateway that takes the upgrade request, and says nothing."""
    asked = threading.Event()

    def hold(request: Request) -> None:
        asked.set()
        server.wait_closing()

    server = WsServer(answer=hold)
    with server:
        yield server.url, asked


@contextlib.contextmanager
def throttled() -> Iterator[tuple[str, threading.Event]]:
    """A gateway that is throttled for ever: the dial waits between two attempts."""
    asked = threading.Event()

    def refuse(request: Request) -> bytes:
        asked.set()
        return refusal(429)

    with WsServer(answer=refuse) as server:
        yield server.url, asked


@contextlib.contextmanager
def unreachable() -> Iterator[tuple[str, threading.Event]]:
    """A gateway whose network swallows every attempt to connect."""
    asked = threading.Event()
    asked.set()
    with BlackHole() as (host, port):
        yield f"ws://{host}:{port}/stage", asked


@pytest.mark.parametrize("step", [unanswered, throttled, unreachable])
@pytest.mark.parametrize("how", ["cancel", "timeout", "group", "shutdown"])
def test_a_dial_without_limit_is_given_up_at_each_step_and_in_each_way(
    step: Callable[[], contextlib.AbstractContextManager[tuple[str, threading.Event]]], how: str
) -> None:
    with step() as (url, asked):
        dialer = OWN.dialer(url, KEY)

        async def main() -> None:
            async def dial() -> None:
                await dialer.open_connection(TARGET, None)

            async def fail_beside(other: Coroutine[Any, Any, None]) -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(other)
                    await asyncio.to_thread(asked.wait, HANG)
                    raise ZeroDivisionError

            if how == "timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await dial()
                return
            if how == "group":
                with pytest.raises(ExceptionGroup, match="unhandled errors"):
                    await fail_beside(dial())
                return
            task = asyncio.ensure_future(dial())
            await asyncio.to_thread(asked.wait, HANG)
            if how == "cancel":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        run(main())
        # As long as the server is there, nothing but the dial itself can end it.
        wait_until(lambda: dialling_threads() == [], "the dial's threads")
        assert dialer._in_flight.free == MAX_IN_FLIGHT


def test_a_tunnel_that_opens_while_its_task_is_cancelled_is_reset() -> None:
    """Whichever turn of the loop the cancellation comes in, behind the dial's end."""
    opened = [cancel_behind_the_dial(turns) for turns in range(6)]
    assert opened == sorted(opened)
    assert set(opened) == {False, True}, "the last comes too late, and the tunnel is its task's"


def cancel_behind_the_dial(turns: int) -> bool:
    with dialling() as (bridge, dialer):

        async def main() -> None:
            task = asyncio.ensure_future(dialer.open_connection(TARGET))
            await asyncio.sleep(0)
            # The loop stands still until the dial is over and has told so.
            bridge.relay()
            wait_until(lambda: "emissary-dial" not in dialling_threads(), "the dial's end")
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert bridge.relay().wait_aborted().code is Code.DIALER_RESET
                return
            opened.append(True)
            bridge.relay().write_eof()
            await end(task.result()[1])

        opened: list[bool] = []
        run(main())
        return bool(opened)


def test_a_tunnel_that_opens_after_its_dial_was_given_up_is_reset() -> None:
    """Too late for the deadline: the dial was about to return."""
    near, far = tcp_pair()
    began, given_up = threading.Event(), threading.Event()

    def dial(deadline: Deadline) -> TunnelSocket:
        began.set()
        assert given_up.wait(HANG)
        assert deadline.passed()
        return TunnelSocket(fileno=near.detach())

    async def main() -> None:
        opening = asyncio.ensure_future(asynchronous.open_connection(dial, None, 1, {}))
        await asyncio.to_thread(began.wait, HANG)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        given_up.set()
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(far.recv, 1)

    with far:
        far.settimeout(HANG)
        run(main())


@pytest.mark.parametrize("opens_first", [False, True])
def test_a_loop_that_is_closed_while_it_dials_leaves_nothing_open(opens_first: bool) -> None:
    asked, held = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        asked.set()
        held.wait(HANG)

    with dialling() as (bridge, dialer):
        bridge.server.answering(hold)
        loop = asyncio.new_event_loop()
        task = loop.create_task(dialer.open_connection(TARGET))
        loop.run_until_complete(asyncio.sleep(0))
        assert asked.wait(HANG)
        if opens_first:
            held.set()
            wait_until(lambda: "emissary-dial" not in dialling_threads(), "the dial's end")
        loop.set_exception_handler(
            lambda loop, context: None
        )  # that a task was destroyed is this test's doing
        loop.close()
        held.set()
        if opens_first:
            del task
            gc.collect()
        assert bridge.relay().wait_aborted().code is Code.DIALER_RESET
        if not opens_first:
            del task
            gc.collect()


# -- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def tls_target(certificates: Certificates, *, greets: bool) -> Iterator[tuple[Bridge, Dialer]]:
    """A target that echoes over TLS, at once or once it was greeted in plain text."""
    inside, outside = tcp_pair()

    def serve() -> None:
        with inside:
            if greets:
                assert inside.recv(8) == b"STARTTLS"
                inside.sendall(b"ok")
            with contextlib.suppress(OSError):
                with certificates.server_context().wrap_socket(inside, server_side=True) as tls:
                    while data := tls.recv(65_536):
                        tls.sendall(data)

    def play(relay: Relay) -> None:
        def pump() -> None:
            with contextlib.suppress(OSError):
                while data := outside.recv(65_536):
                    relay.write(data)
            relay.write_eof()

        def feed() -> None:
            with contextlib.suppress(OSError):
                while data := relay.read_some():
                    outside.sendall(data)
                outside.shutdown(socket.SHUT_WR)

        threads.extend(threading.Thread(target=each) for each in (pump, feed, serve))
        for thread in threads:
            thread.start()

    threads: list[threading.Thread] = []
    with outside, dialling(Behaviour(script=play)) as opened:
        yield opened
        for thread in threads:
            thread.join(HANG)


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = noise(300_000)
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    assert writer.get_extra_info("ssl_object").version().startswith("TLS")
    assert str(Dialer.session_of(writer).target) == TARGET


def test_tls_from_the_start(certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with tls_target(certificates, greets=False) as (_bridge, dialer):

        async def main() -> None:
            reader, writer = await dialer.open_connection(TARGET, ssl=context, server_hostname="localhost")
            await echoes(reader, writer)
            await end(writer)

        run(main())


def test_tls_behind_a_greeting(certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with tls_target(certificates, greets=True) as (_bridge, dialer):

        async def main() -> None:
            reader, writer = await dialer.open_connection(TARGET)
            writer.write(b"STARTTLS")
            assert await reader.readexactly(2) == b"ok"
            await writer.start_tls(context, server_hostname="localhost")
            await echoes(reader, writer)
            await end(writer)

        run(main())


def test_tls_expects_the_targets_own_name_and_a_refusal_leaves_nothing_open(
    certificates: Certificates,
) -> None:
    context = ssl.create_default_context(cafile=certificates.ca_file)
    with tls_target(certificates, greets=False) as (_bridge, dialer):

        async def main() -> None:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"db\.internal"):
                await dialer.open_connection(TARGET, ssl=context)

        run(main())


def test_cancelling_during_the_tls_handshake_leaves_nothing_open() -> None:
    with dialling() as (bridge, dialer):

        async def main() -> None:
            dial = asyncio.ensure_future(dialer.open_connection(TARGET, ssl=True))
            relay = await asyncio.to_thread(bridge.relay)
            await asyncio.to_thread(relay.read, 1)  # of the ClientHello
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial

        run(main())
        assert bridge.relay().wait_aborted().code is Code.DIALER_RESET


# -- the import ---------------------------------------------------------------------------------


def test_whoever_dials_without_asyncio_does_not_load_it() -> None:
    program = "import sys; from emissary_lib import Dialer; print('asyncio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=True
    )
    assert done.stdout == "False\n"
