"""A forwarded port in a process of its own: the same contract, and nothing of it outlives its parent."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import (
    ConfigError,
    LocalResourceError,
    TargetRefusedError,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers import processes
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.patience import HANG, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]

#: The key of the tests, as it must stand nowhere.
SECRETS = [KEY.secret, KEY.secret.hex().encode()]


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, HANG)


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """Those that the test has started: a database of the session's is another."""
    before = processes.children()
    return lambda: sorted(processes.children() - before)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")


def test_it_serves_reports_and_ends_as_one_in_this_process_does(
    caplog: pytest.LogCaptureFixture, children: Callable[[], list[int]]
) -> None:
    failures: list[Exception] = []
    with Bridge(Behaviour(script=echo)) as bridge, Dialer(bridge.url, KEY) as dialer:
        forward = dialer.forward(TARGET, process=True)
        forward.on_failure = failures.append
        with forward as address:
            (child,) = children()
            for place in ("cmdline", "environ"):
                told = pathlib.Path(f"/proc/{child}/{place}").read_bytes()
                assert not [secret for secret in SECRETS if secret in told]
            with connect(address) as good:
                good.sendall(b"x")
                assert good.recv(1) == b"x"
                bridge.behaviour.dial_code = Code.TARGET_REFUSED
                with pytest.raises(ConnectionResetError), connect(address) as bad:
                    bad.recv(1)
                wait_until(lambda: failures, "the failure")
                good.sendall(b"y")
                assert good.recv(1) == b"y"
        with pytest.raises(ConnectionRefusedError):
            connect(address)
    assert isinstance(address.last_error, TargetRefusedError)
    assert (failures, address.last_error.code) == ([address.last_error], Code.TARGET_REFUSED)
    assert address.last_error.target == Target.parse(TARGET)
    assert [each.getMessage() for each in caplog.records] == [
        f"a forwarded connection failed: {address.last_error}"
    ]
    wait_until(lambda: not children(), "the process ends with its last connection")


def test_its_end_waits_for_what_was_written_and_lets_open_connections_live(
    children: Callable[[], list[int]],
) -> None:
    gate = threading.Event()

    def script(relay: Relay) -> None:
        relay.end_with_dialer()
        assert gate.wait(HANG)

    with Bridge(Behaviour(script=script)) as bridge:
        dialer = Dialer(bridge.url, KEY)
        forward = dialer.forward(TARGET, timeout=HANG, process=True)
        address = forward.__enter__()
        with connect(address) as sock:
            sock.sendall(b"hello")
        closing = threading.Thread(target=forward.close)
        closing.start()
        wait_until(lambda: bridge.server.requests, "the dial")
        assert closing.is_alive()
        gate.set()
        closing.join(HANG)
        assert bridge.relay().arrived == b"hello"

        forward = dialer.forward(TARGET, timeout=HANG, process=True)
        bridge.behaviour.script = echo
        with forward as address:
            sock = connect(address)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        with sock:
            sock.sendall(b"still")
            assert sock.recv(5) == b"still"
        wait_until(lambda: not children(), "the process ends with its last connection")
        forward.close()
        dialer.close()


def test_an_address_that_is_busy_is_told_as_it_is(children: Callable[[], list[int]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Dialer("ws://127.0.0.1:1/s", KEY) as dialer:
        forward = dialer.forward(TARGET, taken.getsockname(), process=True)
        with pytest.raises(OSError, match="in use"):
            forward.__enter__()
        forward.close()
    assert children() == []


def test_what_cannot_be_handed_over_is_refused() -> None:
    dialer = Dialer("wss://127.0.0.1:1/s", KEY, ssl_context=ssl.create_default_context())
    with pytest.raises(ConfigError, match="ssl_context"):
        dialer.forward(TARGET, process=True)


def test_an_interpreter_that_does_not_start_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    dialer = Dialer("ws://127.0.0.1:1/s", KEY)
    for executable, said in (("/bin/false", "ended with status 1"), ("/no/such/python", "No such file")):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(LocalResourceError, match=said):
            dialer.forward(TARGET, process=True).__enter__()


def test_a_process_that_dies_is_told_and_does_not_hold_its_parent(
    caplog: pytest.LogCaptureFixture, children: Callable[[], list[int]]
) -> None:
    with Bridge(Behaviour(script=echo)) as bridge, Dialer(bridge.url, KEY) as dialer:
        with dialer.forward(TARGET, process=True) as address:
            (child,) = children()
            os.kill(child, signal.SIGKILL)
            wait_until(lambda: "ended with status -9" in caplog.text, "it is told")
            assert address.last_error is not None
    assert children() == []


#: Starts a forward in a process of its own, tells its address, and does as it is told.
PROGRAM = f"""
import ctypes, os, signal, socket, sys, threading
from emissary_lib import Dialer, Key
dialer = Dialer(sys.argv[1], Key(7, bytes(range(32))))
address = dialer.forward({TARGET!r}, process=True, timeout=60).__enter__()
sock = socket.create_connection(address)
sock.sendall(b"x")
"""


def run(url: str, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + program, url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def test_a_driver_that_keeps_the_interpreter_s_lock_gets_its_answer() -> None:
    """Symptom: it waited for threads which it kept from running, for ever."""
    program = """
buffer = ctypes.create_string_buffer(1)
assert ctypes.PyDLL(None).recv(sock.fileno(), buffer, 1, 0) == 1
print(buffer.raw)
"""
    with Bridge(Behaviour(script=echo)) as bridge:
        done = run(bridge.url, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'x'\n", "")


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_it_ends_with_its_parent_however_that_ends_and_what_was_written_arrives(end: str) -> None:
    """Its standard error is the process's too: as long as that lives, nobody sees the end of it."""
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        run(bridge.url, f"sock.sendall(b'y' * 100_000); {end}")
        assert bridge.relay().read_to_end() == b"x" + b"y" * 100_000


def test_a_forked_child_of_the_program_does_not_keep_it() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what this is about
assert sock.recv(1) == b"x"
if not os.fork():
    os.close(1)
    os.close(2)
    os.read(0, 1)  # lives on until the test ends it
    os._exit(0)
"""
    with Bridge(Behaviour(script=echo)) as bridge:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM + program, bridge.url],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            assert running.stderr is not None
            assert running.stderr.read() == b""  # nobody has it any more: the process has ended
            assert running.wait(HANG) == 0
