"""What is asked of the operating system, on one that has it and on one that has not."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

import pytest

from emissary_lib import system
from emissary_lib.tunnel.loopback import reset, tcp_pair
from tests.helpers.foreign_os import FOLDER, hidden_from
from tests.helpers.patience import HANG, repeat_until_it_raises

#: What is on the way of whoever dials, forwards, or runs the command.
IMPORTS_EVERYTHING = """
import importlib, pkgutil, sys
assert "fcntl" in sys.modules and sys.modules["fcntl"] is None, "nothing is hidden"
import emissary_lib
for each in pkgutil.walk_packages(emissary_lib.__path__, "emissary_lib."):
    if each.name != "emissary_lib.__main__" and not each.name.startswith("emissary_lib.operate"):
        importlib.import_module(each.name)
"""


def test_everything_is_imported_where_all_is_missing_that_windows_lacks() -> None:
    """Symptom: ImportError, of fcntl; no poll, no register_at_fork, no SIGHUP either."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_EVERYTHING],
        env=hidden_from(os.environ),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_whoever_says_that_it_is_hidden_hides_it() -> None:
    """Python goes on if ``sitecustomize`` fails, and all tests would pass."""
    said = str(FOLDER) in os.environ.get("PYTHONPATH", "")
    assert [hasattr(selectors, "PollSelector"), hasattr(os, "fork")] == [not said, not said]


@pytest.fixture(params=["told", "untold"])
def queues(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel tells how much it holds."""
    if request.param == "untold":
        monkeypatch.setattr(system, "TELLS_UNSENT", False)
        monkeypatch.setattr(system, "_UNREAD", None)
    return bool(system.TELLS_UNSENT)


def test_what_was_not_read_is_counted_and_a_closed_socket_has_nothing(queues: bool) -> None:
    near, far = tcp_pair()
    with near, far:
        assert system.recv_queue_bytes(near) == 0  # a blocking socket, and it does not block
        far.sendall(b"12345")
        assert near.recv(1) == b"1"
        assert system.recv_queue_bytes(near) == 4
    assert system.recv_queue_bytes(near) == 0


def test_what_was_not_passed_on_is_counted_or_nothing_is_said(queues: bool) -> None:
    near, far = tcp_pair()
    with near, far:
        assert system.send_queue_bytes(near) == (0 if queues else None)
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            repeat_until_it_raises(lambda: near.send(bytes(65_536)))
        assert bool(system.send_queue_bytes(near)) is queues


@pytest.mark.parametrize("selector", ["PollSelector", "SelectSelector"])
def test_a_wait_ends_when_a_socket_is_ready_or_broken_or_the_time_is_up(
    selector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = getattr(selectors, selector, None)
    if made is None:
        pytest.skip("this system has no poll")
    monkeypatch.setattr(system, "ShortSelector", made)
    near, far = tcp_pair()
    with near, far:
        assert system.wait_for(near, selectors.EVENT_WRITE, None)
        began = time.monotonic()
        assert not system.wait_for(near, selectors.EVENT_READ, 0.05)
        assert time.monotonic() - began >= 0.05
        assert not system.wait_for(near, selectors.EVENT_READ, 0.0)
        far.sendall(b"x")
        assert system.wait_for(near.fileno(), selectors.EVENT_READ, HANG)
        near.recv(1)
        reset(far)
        assert system.wait_for(near, selectors.EVENT_READ, HANG)


def test_what_broke_a_connection_is_told_and_one_that_works_has_nothing_to_tell() -> None:
    near, far = tcp_pair()
    with near, far:
        near.setblocking(False)
        assert system.pending_error(near) is None
        far.sendall(b"x")
        assert system.wait_for(near, selectors.EVENT_READ, HANG)
        assert system.pending_error(near) is None
        assert near.recv(2) == b"x"
        reset(far)
        assert isinstance(system.pending_error(near), ConnectionResetError)


class Untold(socket.socket):
    """A socket of a system that keeps nothing for SO_ERROR: the next read fails."""

    def getsockopt(self, *_: object) -> int:  # type: ignore[override]
        return 0

    def recv(self, *_: object) -> bytes:
        raise system.socket_error(errno.ECONNRESET)


def test_a_reset_that_the_next_read_would_tell_of_is_found_by_it() -> None:
    with Untold() as sock:
        assert isinstance(system.pending_error(sock), ConnectionResetError)


def test_an_error_has_the_words_that_the_system_has_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(system.socket_error(errno.ECONNREFUSED)) == f"[Errno {errno.ECONNREFUSED}] Connection refused"
    monkeypatch.setattr(socket, "errorTab", {errno.ECONNREFUSED: "The peer said no."}, raising=False)
    error = system.socket_error(errno.ECONNREFUSED)
    assert isinstance(error, ConnectionRefusedError)
    assert error.strerror == "The peer said no."


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="such clocks are Linux's")
def test_the_clock_is_the_one_that_counts_the_time_asleep() -> None:
    for platform, number in (("linux", time.CLOCK_BOOTTIME), ("darwin", time.CLOCK_MONOTONIC_RAW)):
        before = time.clock_gettime(number)
        assert before <= system.sleepless_clock(platform)() <= time.clock_gettime(number)
    assert system.sleepless_clock("another") is time.monotonic


def test_of_signals_there_are_those_that_the_system_has() -> None:
    assert system.signals("SIGINT", "SIGNOTHING", "SIGTERM") == (signal.SIGINT, signal.SIGTERM)


def test_a_port_is_claimed_where_others_could_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        system.claim_port(listener)  # on Linux nobody can
        monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        system.claim_port(listener)
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_gateway_is_waited_for_with_the_patience_that_the_system_can_have() -> None:
    options = system.patience_options(silence=120.0, unanswered=30.0)
    with socket.socket() as sock:
        for option in options:
            sock.setsockopt(*option)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


#: A Ctrl-C comes just before the program is there; then nothing but its end can be told it.
INTERRUPTED_EARLY = """
import os, signal, subprocess, sys
from emissary_lib.cli.program import run_program
start = subprocess.Popen
def late(*given, **named):
    signal.raise_signal(signal.SIGINT)
    return start(*given, **named)
subprocess.Popen = late
sys.exit(run_program([sys.executable, "-c", "import time; time.sleep(600)"], os.environ))
"""


def test_a_ctrl_c_before_the_program_was_there_ends_it_where_it_cannot_be_passed_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_EARLY], env=hidden_from(os.environ), timeout=HANG, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM
