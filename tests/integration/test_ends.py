"""A process that dies takes its session with it: at once or within its deadline, and never as a clean end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib import Dialer, TunnelResetError
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.tunnel.suspend import LATE, LOOK
from emissary_local import LocalCloud
from tests.helpers.cuts import edited_template
from tests.helpers.kinds import Kind
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    ROOT,
    audit_record,
    dialer_of,
    only_connection_ended,
    relay_returned,
)
from tests.helpers.patience import HANG, wait_until
from tests.helpers.servers import Server, echo

pytestmark = LINUX_ONLY

#: How long a side that is gone is waited for, in seconds.
GRACE = 4.0

#: The relay's times, in seconds, where it has to find out by itself that its dialer is gone: long enough for
#: a busy machine to answer in time, or to come back if it did not.
WATCHFUL = {"ping": 1.0, "pong": 3.0, "probe": 1.0, "grace": 10.0}

#: A program that dials, shows that it is through, and then waits for a word that never comes; with one more
#: argument, behind as many bytes as the tunnel takes.
PROGRAM = """
import sys, time
from emissary_lib import Dialer
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.client.config import ClientConfig
import os
config = ClientConfig.from_env(os.environ)
times = KeepaliveTimes(interval=240.0, when_unacked=240.0, deadline=2.0, repeat=0.5)
sock = Dialer(config.url, config.key, keepalive=times).dial(sys.argv[1], 60)
sock.sendall(b"hello")
print(sock.session.id, sock.recv(5).decode(), flush=True)
if sys.argv[2:]:
    sock.setblocking(False)
    written = time.monotonic()
    while time.monotonic() < written + 1.0:
        try:
            sock.send(bytes(65536))
            written = time.monotonic()
        except BlockingIOError:
            pass
    print("nothing more fits", flush=True)
sys.stdin.readline()
sock.sendall(b"after")
print(sock.recv(5).decode(), flush=True)
"""

#: A target that takes one connection and never reads it: what it has not read makes its death a reset.
DEAF = """
import socket
import threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _address = listener.accept()
connection.recv(1, socket.MSG_PEEK)
print("has bytes", flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A cloud whose relays wait for nobody for long."""
    template = edited_template(tmp_path_factory.mktemp("brisk"), grace=GRACE)
    with LocalCloud(template, parameters=PARAMETERS) as running:
        yield running


def run(program: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@contextlib.contextmanager
def dialling(cloud: LocalCloud, target: tuple[str, int], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """:data:`PROGRAM` at work on ``target``; killed at the end, if it still runs."""
    host, port = target
    environ = {"EMISSARY_URL": cloud.url, "EMISSARY_AUTH_KEYS": format_keys([cloud.key])}
    program = run(PROGRAM, f"{host}:{port}", *arguments, **environ)
    try:
        yield program
    finally:
        end(program)


def line_of(process: subprocess.Popen[str]) -> str:
    """What it says next; empty if it has nothing more to say, or hangs."""
    assert process.stdout is not None
    hang = threading.Timer(HANG, process.kill)
    hang.start()
    try:
        return process.stdout.readline().strip()
    finally:
        hang.cancel()
        hang.join()


class Ended:
    """A target that echoes, and knows when and how its connection ended."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.error: OSError | None = None

    def __call__(self, connection: socket.socket) -> None:
        try:
            echo(connection)
        except OSError as exc:
            self.error = exc
        self.event.set()


def test_relay_that_crashes_is_a_reset(brisk: LocalCloud, kind: Kind) -> None:
    ended = Ended()
    with (
        Server(ended) as target,
        dialer_of(brisk, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        info = sock.session
        assert info is not None
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert brisk.crash("RelayFunction") == 1
        with pytest.raises(TunnelResetError, match="outcome of a statement that was running is unknown"):
            sock.recv(1)
        assert ended.event.wait(HANG)
        assert audit_record(brisk, info.id)["code"] != "OK"
        with dialer.dial(target, DIAL) as fresh:  # the way in is as it was
            fresh.settimeout(HANG)
            fresh.sendall(b"y")
            assert fresh.recv(1) == b"y"


def test_dialer_that_is_killed_leaves_no_relay_and_no_connection_at_the_target(brisk: LocalCloud) -> None:
    ended = Ended()
    with Server(ended) as target, dialling(brisk, target) as program:
        session, heard = line_of(program).split()
        assert heard == "hello"
        program.send_signal(signal.SIGKILL)
        assert ended.event.wait(HANG)
        relay_returned(brisk, session)
        assert isinstance(ended.error, ConnectionResetError)  # a statement cut short is not committed
        assert audit_record(brisk, session)["code"] == "DIALER_GONE"


def test_dialer_that_is_killed_leaves_no_relay_behind_a_target_that_takes_nothing(brisk: LocalCloud) -> None:
    """As a COPY behind a lock: what had arrived for the target cannot be delivered."""
    ended = threading.Event()

    def deaf(connection: socket.socket) -> None:
        connection.sendall(connection.recv(5))
        poll = select.poll()
        poll.register(connection, 0)
        poll.poll()  # the reset
        ended.set()

    with (
        Server(deaf) as target,
        dialling(brisk, target, "full") as program,
    ):
        session, heard = line_of(program).split()
        assert heard == "hello"
        assert line_of(program) == "nothing more fits"
        program.send_signal(signal.SIGKILL)
        assert ended.wait(HANG)
        assert relay_returned(brisk, session) == "DIALER_GONE"


def test_dialer_that_slept_while_its_connection_died_wakes_and_goes_on(sick: LocalCloud, kind: Kind) -> None:
    """The host sleeps for half an hour: timers and ``select`` stand still, and the NAT forgets the flow.

    Nothing happens on waking, and the timers have minutes to go: a dialer that trusts them finds its dead
    connection after 260 s.
    """
    slept = 0.0
    usual = KeepaliveTimes(deadline=2.0, repeat=0.5)  # an interval of 240 s
    with (
        Server(echo) as target,
        dialer_of(sick, keepalive=usual, clock=lambda: time.monotonic() + slept, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        info = sock.session
        assert info is not None
        sock.sendall(b"before")
        assert sock.recv(6) == b"before"
        assert sick.cut("dialer", "silent", -1) == 1
        slept = 1800.0
        wait_until(lambda: info.counters.resumes, "the dead connection is noticed and replaced")
        sock.sendall(b"after")
        assert sock.recv(5) == b"after"
        assert info.error is None


@pytest.mark.slow
def test_dialer_that_was_stopped_while_its_connection_died_goes_on(sick: LocalCloud) -> None:
    """As a host that sleeps, but timers run on; the user's first word is sent at once."""
    with Server(echo) as target, dialling(sick, target) as program:
        line_of(program)
        program.send_signal(signal.SIGSTOP)
        assert sick.cut("dialer", "silent", -1) == 1
        threading.Event().wait(LOOK + LATE + 1)  # the stop itself
        program.send_signal(signal.SIGCONT)
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
        assert line_of(program) == "after"


def test_target_that_is_killed_is_a_reset_and_never_a_clean_end(
    cloud: LocalCloud, either_dialer: Dialer, kind: Kind
) -> None:
    target = run(DEAF)
    try:
        port = int(line_of(target))
        with either_dialer.dial(("127.0.0.1", port), DIAL) as sock:
            sock.settimeout(HANG)
            sock.sendall(bytes(100_000))
            assert line_of(target) == "has bytes"
            target.kill()
            with pytest.raises(TunnelResetError) as caught:
                sock.recv(1)
            assert isinstance(caught.value, ConnectionResetError)
            assert caught.value.code.name == "TARGET_RESET"
            info = sock.session
            assert info is not None
            assert only_connection_ended(cloud, info.id) == "TARGET_RESET"
        assert audit_record(cloud, info.id)["code"] == ("OK" if kind.shared else "TARGET_RESET")
    finally:
        end(target)


@pytest.mark.slow
def test_dialer_whose_death_nobody_reports_is_given_up_on(tmp_path: pathlib.Path) -> None:
    ended, template = Ended(), edited_template(tmp_path, **WATCHFUL)
    with (
        LocalCloud(template, parameters=PARAMETERS) as watchful,
        Server(ended) as target,
        dialling(watchful, target) as program,
    ):
        session, _heard = line_of(program).split()
        assert watchful.cut("dialer", "silent", -1) == 1  # posts to it are still answered 200
        program.send_signal(signal.SIGKILL)
        assert ended.event.wait(HANG)
        relay_returned(watchful, session)
        assert isinstance(ended.error, ConnectionResetError)
