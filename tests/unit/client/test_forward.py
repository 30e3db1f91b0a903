"""A forwarded port: at once or not at all, each connection on its own, and nothing left."""

from __future__ import annotations

import gc
import resource
import socket
import threading

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.client.forward import Forward
from emissary_lib.exceptions import DialError, TargetRefusedError, TunnelResetError
from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.patience import HANG, wait_until


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
        forward = Forward(taken.getsockname(), lambda sock: None)
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
    def fail(sock: socket.socket) -> None:
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
    held: list[socket.socket] = []
    both = threading.Event()

    def serve(sock: socket.socket) -> None:
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
