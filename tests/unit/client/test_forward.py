"""A forwarded port: at once or not at all, each connection on its own, and nothing left."""

from __future__ import annotations

import gc
import socket
import threading

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.client.drain import Connection
from emissary_lib.client.forward import Forward
from emissary_lib.exceptions import DialError, TargetRefusedError, TunnelResetError
from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.patience import HANG, repeat_until_it_raises, wait_until


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, HANG)


def test_connections_through_it_reach_the_target() -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with Dialer(bridge.url, KEY).forward(TARGET) as address:
            assert address[0] == "127.0.0.1"
            assert address[1] > 0
            socks = [connect(address) for _ in range(10)]
            for number, sock in enumerate(socks):
                sock.sendall(str(number).encode())
            for number, sock in enumerate(socks):
                with sock:
                    assert sock.recv(10) == str(number).encode()
        assert len(bridge.server.requests) == 10


def test_a_busy_port_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        forward = Forward(taken.getsockname(), lambda sock, connection: None)
        with pytest.raises(OSError, match="in use"):
            forward.__enter__()
    forward.close()


def test_a_failed_dial_resets_that_connection_alone_and_is_kept() -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        forward = Dialer(bridge.url, KEY).forward(TARGET, timeout=HANG)
        with forward as address:
            assert getattr(forward, "last_error", "absent") is None
            with connect(address) as good:
                good.sendall(b"x")
                assert good.recv(1) == b"x"
                bridge.behaviour.dial_code = Code.TARGET_REFUSED
                with pytest.raises(ConnectionResetError), connect(address) as bad:
                    bad.recv(1)
                assert isinstance(forward.last_error, TargetRefusedError)
                good.sendall(b"y")
                assert good.recv(1) == b"y"
            bridge.behaviour.dial_code = Code.OK
            with connect(address) as again:
                again.sendall(b"z")
                assert again.recv(1) == b"z"


def test_a_tunnel_that_is_cut_off_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with Bridge() as bridge:
        forward = Dialer(bridge.url, KEY).forward(TARGET)
        with forward as address, connect(address) as sock:
            bridge.relay().reset(Code.TARGET_RESET)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            said = "the tunnel to db.internal:5432 was cut off"
            wait_until(lambda: said in caplog.text, "the cause in the log")
    assert isinstance(forward.last_error, TunnelResetError)


def write_and_close(address: tuple[str, int], data: bytes) -> None:
    with connect(address) as sock:
        sock.sendall(data)


def held(gate: threading.Event) -> Behaviour:
    """A dial that is through only once the gate is open."""

    def script(relay: Relay) -> None:
        relay.end_with_dialer()
        assert gate.wait(HANG)

    return Behaviour(script=script)


@pytest.mark.parametrize("close", ["forward", "dialer"])
def test_closing_waits_for_connections_whose_dial_is_under_way(close: str) -> None:
    """Symptom: what a program wrote and closed before its dial was through was thrown away at exit."""
    gate = threading.Event()
    with Bridge(held(gate)) as bridge:
        dialer = Dialer(bridge.url, KEY)
        forward = dialer.forward(TARGET, timeout=HANG)
        address = forward.__enter__()
        write_and_close(address, b"hello")
        closing = threading.Thread(target=forward.close if close == "forward" else dialer.close)
        closing.start()
        wait_until(lambda: bridge.server.requests, "the dial")
        with pytest.raises(ConnectionRefusedError):
            repeat_until_it_raises(lambda: connect(address).close())
        assert closing.is_alive()
        gate.set()
        closing.join(HANG)
        assert bridge.relay().arrived == b"hello"
        dialer.close()


def test_a_connection_that_nobody_had_accepted_yet_counts_as_well() -> None:
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        with Dialer(bridge.url, KEY).forward(TARGET, timeout=HANG) as address:
            for number in range(8):
                write_and_close(address, bytes([number]))
        assert {bridge.relay(number).arrived for number in range(8)} == {bytes([n]) for n in range(8)}


def test_a_dial_that_is_given_up_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    with Bridge(held(gate)) as bridge:
        forward = Dialer(bridge.url, KEY).forward(TARGET, timeout=HANG)
        with forward as address:
            write_and_close(address, b"hello")
            wait_until(lambda: bridge.server.requests, "the dial")
            forward.give_up_dialling()
        assert "whatever was written to a connection to db.internal:5432" in caplog.text
        gate.set()
        assert bridge.relay().read_to_end() == b"hello"


def test_a_reset_behind_a_whole_session_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Symptom: a database that closes with a farewell unread alarmed after a good session."""

    def script(relay: Relay) -> None:
        relay.resets_at_end = True

    caplog.set_level("INFO", "emissary_lib")
    with Bridge(Behaviour(script=script)) as bridge:
        with Dialer(bridge.url, KEY).forward(TARGET, timeout=HANG) as address:
            with connect(address) as sock:
                bridge.relay().write(b"answer")
                assert sock.recv(100) == b"answer"
                sock.sendall(b"farewell")
                sock.shutdown(socket.SHUT_WR)
            wait_until(lambda: address.last_error, "the reset is kept")
        assert bridge.relay().arrived == b"farewell"
    assert isinstance(address.last_error, TunnelResetError)
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("missing", ["of the program's", "of the target's", "the program's end"])
def test_a_reset_with_anything_missing_is_one(missing: str, caplog: pytest.LogCaptureFixture) -> None:
    with Bridge() as bridge:
        with Dialer(bridge.url, KEY).forward(TARGET, timeout=HANG) as address:
            with connect(address) as sock:
                relay = bridge.relay()
                relay.reads = missing != "of the program's"
                sock.sendall(b"question")
                if missing != "the program's end":
                    sock.shutdown(socket.SHUT_WR)
                end = missing == "of the target's"  # it is acknowledged once the target has all
                wait_until(lambda: relay.acknowledges == 8 + end, "all has come to the relay")
                wait_until(lambda: len(relay.arrived) == 8 * relay.reads, "and to the target, if it reads")
                if missing == "of the target's":
                    relay.swallow(b"answer")
                relay.reset(Code.TARGET_RESET)
                wait_until(lambda: address.last_error, "the reset is kept")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ("8 bytes that the program had written did not arrive" in caplog.text) == (
        missing == "of the program's"
    )


def test_a_program_that_resets_its_own_socket_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with Bridge() as bridge:
        forward = Dialer(bridge.url, KEY).forward(TARGET)
        with forward as address:
            sock = connect(address)
            relay = bridge.relay()
            reset(sock)
            assert relay.wait_aborted().code is Code.DIALER_RESET
            named = "emissary-forwarded"
            wait_until(lambda: not any(t.name == named for t in threading.enumerate()), "its thread ends")
    assert (forward.last_error, caplog.text) == (None, "")


def test_closing_leaves_no_thread_and_lets_open_connections_live() -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        forward = Dialer(bridge.url, KEY).forward(TARGET)
        with forward as address:
            sock = connect(address)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        forward.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "emissary-forward"]
        with pytest.raises(ConnectionRefusedError):
            connect(address)
        with sock:
            sock.sendall(b"still")
            assert sock.recv(5) == b"still"


def test_a_service_that_fails_unforeseen_resets_its_connection() -> None:
    def fail(sock: socket.socket, connection: Connection) -> None:
        raise ZeroDivisionError("a bug")

    reported = threading.Event()
    hook, threading.excepthook = threading.excepthook, lambda args: reported.set()
    try:
        with Forward(("127.0.0.1", 0), fail) as address:
            with pytest.raises(ConnectionResetError), connect(address) as sock:
                sock.recv(1)
            assert reported.wait(HANG)
    finally:
        threading.excepthook = hook


def test_a_lack_of_descriptors_does_not_end_it() -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    held: list[socket.socket] = []
    both = threading.Event()

    def serve(sock: socket.socket, connection: Connection) -> None:
        held.append(sock)
        if len(held) == 2:
            both.set()

    with Forward(("127.0.0.1", 0), serve) as address:
        gc.collect()  # nothing may close later and make room
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Two, because an accept that waits has its descriptor already.
        with socket.socket() as one, socket.socket() as other:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(one.fileno(), other.fileno()) + 1, hard))
            try:
                for sock in (one, other):
                    sock.settimeout(HANG)
                    sock.connect(address)  # the kernel takes it; accept fails
                assert not both.wait(0.25)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert both.wait(HANG)
    for sock in held:
        sock.close()


def test_an_error_of_the_dial_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with Bridge(Behaviour(dial_code=Code.NAME_NOT_FOUND)) as bridge:
        forward = Dialer(bridge.url, KEY).forward(TARGET)
        with forward as address, pytest.raises(ConnectionResetError), connect(address) as sock:
            sock.recv(1)
    assert isinstance(forward.last_error, DialError)
    assert "does not resolve" in caplog.text
