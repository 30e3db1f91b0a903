"""A local SOCKS5 server: each client where it wants to go, each failure told, and nothing left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.client.socks import SocksServer
from emissary_lib.exceptions import (
    AuthenticationError,
    ClosedError,
    ConfigError,
    DialTimeoutError,
    EmissaryError,
    GatewayUnreachableError,
    TargetRefusedError,
    dial_error,
    local_resource_error,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening.socks5_messages import connect
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.tunnel.loopback import reset
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.kinds import Kind
from tests.helpers.patience import HANG, repeat_until_it_raises, wait_until
from tests.helpers.servers import Server, greeter
from tests.helpers.servers import echo as echo_service
from tests.helpers.socks_client import GREETING, SUCCEEDED, ask, read_exactly
from tests.helpers.vpc import Vpc

ANY = ("127.0.0.1", 0)
DB = Target.parse("db.internal:5432")


@pytest.fixture
def vpc() -> Iterator[Vpc]:
    with Server(echo_service) as echoes, Server(greeter(b"hello")) as speaks:
        yield Vpc({"echo.internal:7": echoes, "10.0.0.7:7": echoes, "[fd00::7]:7": echoes, "mail:25": speaks})


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("emissary-forward")]


@pytest.mark.parametrize("target", ["echo.internal:7", "10.0.0.7:7", "[fd00::7]:7"])
def test_a_client_reaches_what_it_asks_for_by_the_name_it_uses(vpc: Vpc, target: str) -> None:
    with SocksServer(ANY, vpc.dial, timeout=7.0) as address:
        sock, reply = ask(address, target)
        with sock:
            assert reply == SUCCEEDED
            sock.sendall(b"over there")
            assert read_exactly(sock, 10) == b"over there"
    assert (vpc.dialled, vpc.timeouts) == ([target], [7.0]), "each dial has its own time, handshake or not"


def test_no_name_is_resolved_here(vpc: Vpc, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a name was resolved")

    with SocksServer(ANY, vpc.dial) as address, Server(echo_service):
        sock, reply = ask(address, "echo.internal:7")
        monkeypatch.setattr(socket, "getaddrinfo", fail)
        second, again = ask_without_names(address, "no-such-name.internal:7")
        monkeypatch.undo()
        with sock, second:
            assert (reply, again[:2]) == (SUCCEEDED, b"\x05\x02")


def ask_without_names(address: tuple[str, int], target: str) -> tuple[socket.socket, bytes]:
    sock = socket.socket()
    sock.settimeout(HANG)
    sock.connect(address)
    sock.sendall(GREETING + connect(Target.parse(target)))
    assert read_exactly(sock, 2) == b"\x05\x00"
    return sock, read_exactly(sock, 10)


def test_what_a_client_writes_before_it_is_answered_reaches_the_target(vpc: Vpc) -> None:
    with SocksServer(ANY, vpc.dial) as address, socket.create_connection(address, HANG) as sock:
        sock.sendall(GREETING + connect(Target.parse("echo.internal:7")) + b"early")
        sock.shutdown(socket.SHUT_WR)
        assert read_exactly(sock, 100) == b"\x05\x00" + SUCCEEDED + b"early"


def test_the_answer_comes_before_what_the_target_says_first(vpc: Vpc) -> None:
    with SocksServer(ANY, vpc.dial) as address:
        sock, reply = ask(address, "mail:25")
        with sock:
            assert (reply, read_exactly(sock, 5)) == (SUCCEEDED, b"hello")


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (dial_error(DB, Code.TARGET_NOT_ALLOWED), 2),
        (dial_error(DB, Code.TARGET_UNREACHABLE), 3),
        (dial_error(DB, Code.NAME_NOT_FOUND), 4),
        (dial_error(DB, Code.TARGET_REFUSED), 5),
        (dial_error(DB, Code.TARGET_TIMED_OUT), 6),
        (DialTimeoutError("too slow", target=DB, timeout=1.0, step="the relay"), 6),
        (dial_error(DB, Code.TARGET_FAILED), 1),
        (dial_error(DB, Code.SESSION_LIMIT), 1),
        (AuthenticationError("the key"), 1),
        (GatewayUnreachableError("the gateway"), 1),
        (local_resource_error(OSError(24, "descriptors")), 1),
    ],
    ids=lambda value: value.code.name if hasattr(value, "code") else str(getattr(value, "args", value)),
)
def test_a_failed_dial_is_told_to_the_client_and_to_the_log(
    error: EmissaryError, reply: int, caplog: pytest.LogCaptureFixture
) -> None:
    vpc = Vpc()
    vpc.errors["db.internal:5432"] = error
    told: list[Exception] = []
    with SocksServer(ANY, vpc.dial) as address:
        address.forward.on_failure = told.append
        sock, answer = ask(address, "db.internal:5432")
        with sock:
            assert answer == bytes((5, reply)) + SUCCEEDED[2:]
            assert sock.recv(1) == b"", "a clean end follows, no reset"
        assert (address.last_error, told) == (error, [error])
    assert str(error) in caplog.text


def test_one_that_fails_harms_no_other(vpc: Vpc) -> None:
    with SocksServer(ANY, vpc.dial) as address:
        good, _reply = ask(address, "echo.internal:7")
        bad, reply = ask(address, "elsewhere.internal:7")
        with good, bad:
            assert reply[1] == 2
            good.sendall(b"x")
            assert good.recv(1) == b"x"


@pytest.mark.parametrize(
    ("said", "answer", "why"),
    [
        (b"GET http://db.internal/ HTTP/1.1\r\nHost: db\r\n\r\n" * 100, b"HTTP/1.1 400 ", "speaks HTTP"),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01user\x00db.internal\x00", b"\x00\x5b", "speaks SOCKS4"),
        (b"\x05\x01\x02", b"\x05\xff", "offers no SOCKS5 without authentication"),
        (GREETING + b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x07", "asks for BIND"),
        (b"\x16\x03\x01\x02\x00" + bytes(512), b"", "speaks TLS"),
    ],
    ids=["HTTP", "SOCKS4a", "authentication", "BIND", "TLS"],
)
def test_another_protocol_is_answered_in_its_own_words_and_logged(
    said: bytes, answer: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    vpc = Vpc()
    with SocksServer(ANY, vpc.dial) as address, socket.create_connection(address, HANG) as sock:
        sock.sendall(said)
        got = read_exactly(sock, 1000)
        sock.sendall(b"more")
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: threads() == ["emissary-forward"], "its thread ends")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "no reset, which may void the answer"
    assert got[: len(answer)] == answer
    assert bool(got) == bool(answer)
    assert why in caplog.text
    assert vpc.dialled == []


def test_a_client_that_ends_within_its_handshake_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with SocksServer(ANY, Vpc().dial) as address, socket.create_connection(address, HANG) as sock:
        sock.sendall(GREETING + b"\x05\x01")
        sock.shutdown(socket.SHUT_WR)
        assert read_exactly(sock, 100) == b"\x05\x00"
    assert "stopped in the middle of the SOCKS5 handshake" in caplog.text


@pytest.mark.parametrize("end", ["closes", "resets"])
def test_one_that_only_connects_is_no_failure(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """So do those that look whether a port is open."""
    with SocksServer(ANY, Vpc().dial) as address:
        sock = socket.create_connection(address, HANG)
        sock.close() if end == "closes" else reset(sock)
        wait_until(lambda: threads() == ["emissary-forward"], "its thread ends")
        assert address.last_error is None
    assert caplog.text == ""


@pytest.mark.parametrize("said", [b"", GREETING[:1]])
def test_a_slow_client_is_let_go(said: bytes) -> None:
    with SocksServer(ANY, Vpc().dial, handshake_timeout=0.05) as address:
        with socket.create_connection(address, HANG) as sock:
            sock.sendall(said)
            assert sock.recv(1) == b""


def test_a_refused_client_that_writes_on_and_on_is_reset() -> None:
    with SocksServer(ANY, Vpc().dial) as address, socket.create_connection(address, HANG) as sock:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            repeat_until_it_raises(lambda: sock.sendall(b"GET " * 1024))


@pytest.mark.parametrize("said", [b"", GREETING, GREETING + b"\x05\x01\x00\x03"])
def test_closing_does_not_wait_for_clients_that_say_nothing(said: bytes) -> None:
    server = SocksServer(ANY, Vpc().dial, timeout=HANG, handshake_timeout=100 * HANG)
    with server as address:
        sock = socket.create_connection(address, HANG)
        sock.sendall(said)
        if said:
            assert read_exactly(sock, 2) == b"\x05\x00"
    with sock:
        assert sock.recv(1) == b""
    wait_until(lambda: not threads(), "the end of all threads")


def test_stopping_gives_up_clients_that_have_asked_for_nothing_without_an_alarm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with SocksServer(ANY, Vpc().dial, timeout=HANG, handshake_timeout=100 * HANG) as address:
        given_up = threading.Event()
        address.forward.on_happening = lambda what, connection: assert_(given_up.wait(HANG))
        with socket.create_connection(address, HANG) as sock:
            wait_until(lambda: "emissary-forwarded" in threads(), "it is accepted")
            address.forward.give_up_dialling()
            assert sock.recv(1) == b""
            given_up.set()
    assert caplog.text == ""


def assert_(value: bool) -> None:
    assert value


def test_closing_waits_for_what_was_asked_before() -> None:
    """Also of a client that nobody had accepted yet."""
    with Server(echo_service) as echoes:
        vpc = Vpc({"echo.internal:7": echoes})
        vpc.gate.clear()
        with SocksServer(ANY, vpc.dial, timeout=HANG) as address:
            sock = socket.create_connection(address, HANG)
            sock.sendall(GREETING + connect(Target.parse("echo.internal:7")) + b"last words")
            sock.shutdown(socket.SHUT_WR)
            closing = threading.Thread(target=address.forward.close)
            closing.start()
            wait_until(lambda: vpc.dialled, "the dial")
            assert closing.is_alive()
            vpc.gate.set()
            closing.join(HANG)
        with sock:
            assert read_exactly(sock, 100) == b"\x05\x00" + SUCCEEDED + b"last words"


def test_a_client_that_hangs_up_has_its_dial_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "emissary_lib")
    vpc = Vpc()
    vpc.gate.clear()
    with SocksServer(ANY, vpc.dial, timeout=100 * HANG) as address:
        with socket.create_connection(address, HANG) as sock:
            sock.sendall(GREETING + connect(DB))
            wait_until(lambda: vpc.dialled, "the dial")
        wait_until(lambda: threads() == ["emissary-forward"], "its thread ends")
    assert "a connection to db.internal:5432 was given up: the program has hung up" in caplog.text


def test_a_busy_port_fails_at_once() -> None:
    with socket.create_server(ANY) as taken:
        server = SocksServer(taken.getsockname(), Vpc().dial)
        with pytest.raises(OSError, match="in use"):
            server.__enter__()
    server.close()


def test_a_dialers_server_leads_through_the_bridge(caplog: pytest.LogCaptureFixture, kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge, kind.dialer(bridge.url, KEY) as dialer:
        with dialer.socks(timeout=HANG) as address:
            sock, reply = ask(address, TARGET)
            with sock:
                assert reply == SUCCEEDED
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            other, reply = ask(address, "not-listed.internal:5432")
            with other:
                assert reply[1] == 2
            bridge.behaviour.dial_code = Code.TARGET_REFUSED
            third, reply = ask(address, TARGET)
            with third:
                assert reply[1] == 5
            assert isinstance(address.last_error, TargetRefusedError)


def test_a_tunnel_that_is_cut_off_is_logged_with_its_target(
    caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    with Bridge() as bridge, kind.dialer(bridge.url, KEY) as dialer, dialer.socks(timeout=HANG) as address:
        sock, _reply = ask(address, TARGET)
        with sock:
            bridge.relay().reset(Code.TARGET_RESET)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        wait_until(lambda: address.last_error, "the cause is kept")
    assert f"the tunnel to {TARGET} was cut off" in caplog.text


def test_a_dial_that_is_given_up_is_told_by_its_target(caplog: pytest.LogCaptureFixture) -> None:
    vpc = Vpc()
    vpc.gate.clear()
    with SocksServer(ANY, vpc.dial, timeout=HANG) as address:
        with socket.create_connection(address, HANG) as sock:
            sock.sendall(GREETING + connect(DB))
            wait_until(lambda: vpc.dialled, "the dial")
            address.forward.give_up_dialling()
            vpc.gate.set()
            read_exactly(sock, 100)
    assert "whatever was written to a connection to db.internal:5432" in caplog.text


def test_a_closed_dialer_and_a_wrong_timeout_are_told_at_once() -> None:
    dialer = Dialer("ws://127.0.0.1:1/s", KEY)
    with pytest.raises(ConfigError, match="is no number of seconds"):
        dialer.socks(timeout=1e9)
    dialer.close()
    with pytest.raises(ClosedError):
        dialer.socks()
