"""Standard input and output to a target: all bytes, each end told to the other side, and nothing left."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from emissary_lib.cli.copying import copy
from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exceptions import EmissaryError, LocalResourceError, OutputError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import tcp_pair
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.patience import HANG, read_until_it_raises, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]
SOME = random.Random(7).randbytes(300_000)


class Copying:
    """A copy in a thread, between pipes and a target that the test plays; a context manager.

    Args:
        source: As of :func:`copy`; by default the reading end of a pipe.
        sink: As of :func:`copy`; by default the writing end of one.
    """

    def __init__(self, source: int | None = -1, sink: int = -1) -> None:
        self._in, self._out = os.pipe(), os.pipe()
        near, self.target = tcp_pair()
        self.target.settimeout(HANG)
        self._sock = TunnelSocket(fileno=near.detach())
        self._source = self._in[0] if source == -1 else source
        self._sink = self._out[1] if sink == -1 else sink
        self._closed = set[int]()
        self.ended: bool | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def __enter__(self) -> Copying:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end_input()
        self._thread.join(HANG)
        self.close_output()
        self.target.close()
        wait_until(lambda: not [t for t in threading.enumerate() if t.name == "emissary-connect"], "threads")
        for descriptor in (self._in[0], self._out[1]):
            self._close(descriptor)

    def _copy(self) -> None:
        try:
            self.ended = copy(self._sock, self._source, self._sink)
        except BaseException as exc:
            self.error = exc

    def _close(self, descriptor: int) -> None:
        if descriptor not in self._closed:
            self._closed.add(descriptor)
            os.close(descriptor)

    def write(self, data: bytes) -> None:
        assert os.write(self._in[1], data) == len(data)

    def end_input(self) -> None:
        self._close(self._in[1])

    def read(self, size: int = 65_536) -> bytes:
        return os.read(self._out[0], size)

    def close_output(self) -> None:
        self._close(self._out[0])

    def wait(self) -> None:
        self._thread.join(HANG)
        assert not self._thread.is_alive()


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while more := sock.recv(65_536):
        data += more
    return bytes(data)


def assert_reset(sock: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        read_until_it_raises(lambda: sock.recv(1000), bytearray())


def test_the_end_of_the_input_ends_the_stream_and_the_answer_is_still_passed_on() -> None:
    with Copying() as copying:
        copying.write(b"question\x00\xff")
        copying.end_input()
        assert read_all(copying.target) == b"question\x00\xff"
        copying.target.sendall(b"answer\r\n\x1a")
        assert copying.read() == b"answer\r\n\x1a"
        copying.target.sendall(b"more")
        copying.target.shutdown(socket.SHUT_WR)
        copying.wait()
        assert (copying.read(), copying.ended, copying.error) == (b"more", True, None)


def test_the_end_of_the_target_is_the_end_though_the_input_is_idle() -> None:
    with Copying() as copying:
        copying.target.shutdown(socket.SHUT_WR)
        copying.wait()
        assert (copying.ended, copying.error) == (True, None)
        assert copying.target.recv(1) == b"", "an end, no reset"


def test_it_ends_when_nobody_is_left_to_read_though_nothing_is_written() -> None:
    with Copying() as copying:
        copying.close_output()
        copying.wait()
        assert (copying.ended, copying.error) == (False, None)
        assert_reset(copying.target)


def test_it_ends_when_the_reader_goes_away_in_the_middle_of_a_write() -> None:
    with Copying() as copying:
        sent = threading.Thread(target=lambda: suppressed(lambda: copying.target.sendall(SOME * 10)))
        sent.start()
        assert copying.read(1)
        copying.close_output()
        copying.wait()
        sent.join(HANG)
        assert (copying.ended, copying.error) == (False, None)


def suppressed(act: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):
        act()


def test_a_file_is_sent_to_its_end_though_the_target_has_ended_first(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(SOME * 10)
    with path.open("rb") as file, Copying(source=file.fileno()) as copying:
        copying.target.shutdown(socket.SHUT_WR)
        assert read_all(copying.target) == SOME * 10
        copying.wait()
        assert copying.ended


@pytest.mark.parametrize("kind", ["closed", "null"])
def test_no_input_is_the_end_at_once(kind: str) -> None:
    with open(os.devnull, "rb") as null:
        with Copying(source=None if kind == "closed" else null.fileno()) as copying:
            assert read_all(copying.target) == b""
            copying.target.sendall(b"spoken to")
            copying.target.shutdown(socket.SHUT_WR)
            copying.wait()
            assert (copying.read(), copying.ended) == (b"spoken to", True)


def test_an_input_that_cannot_be_read_is_told_and_looks_like_no_end(tmp_path: pathlib.Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with Copying(source=directory) as copying:
            copying.wait()
            assert_reset(copying.target)
            assert isinstance(copying.error, EmissaryError)
            assert "cannot read standard input: Is a directory" in str(copying.error)
    finally:
        os.close(directory)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_an_output_that_is_full_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as full, Copying(sink=full.fileno()) as copying:
        copying.target.sendall(b"x")
        copying.wait()
        assert isinstance(copying.error, OutputError)
        assert "No space left on device; make room" in str(copying.error)
        assert_reset(copying.target)


def test_the_output_may_be_a_file(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "output").open("wb") as file, Copying(sink=file.fileno()) as copying:
        copying.target.sendall(SOME)
        copying.target.shutdown(socket.SHUT_WR)
        copying.wait()
        assert copying.ended
    assert (tmp_path / "output").read_bytes() == SOME


@pytest.mark.parametrize("blocking", [True, False])
def test_both_may_be_one_socket(blocking: bool) -> None:
    """As under inetd and socat; whoever has the other end may have made it non-blocking."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(blocking)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full
        theirs.settimeout(HANG)
        with Copying(source=ours.fileno(), sink=ours.fileno()) as copying:
            writing = threading.Thread(target=theirs.sendall, args=(SOME,))
            writing.start()
            got = bytearray()
            while len(got) < len(SOME):
                got += copying.target.recv(65_536)
            writing.join(HANG)
            assert got == SOME
            answering = threading.Thread(target=copying.target.sendall, args=(SOME,))
            answering.start()
            back = bytearray()
            while len(back) < len(SOME):
                back += theirs.recv(65_536)
            answering.join(HANG)
            assert back == SOME
            theirs.shutdown(socket.SHUT_WR)
            assert copying.target.recv(1) == b""
            copying.target.shutdown(socket.SHUT_WR)
            copying.wait()
            assert copying.ended


def test_a_terminal_that_hangs_up_is_the_end() -> None:
    ours, theirs = pty.openpty()
    try:
        with Copying(source=theirs, sink=theirs) as copying:
            os.write(ours, b"typed\n")
            assert copying.target.recv(100) == b"typed\n"
            os.close(ours)
            copying.wait()
            assert (copying.ended, copying.error) == (False, None)
    finally:
        os.close(theirs)


def test_it_looks_only_when_something_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    real = select.poll

    class Counting:
        def __init__(self) -> None:
            self._poll = real()
            self.register, self.unregister = self._poll.register, self._poll.unregister

        def poll(self, *timeout: object) -> list[tuple[int, int]]:
            looks.append(timeout)
            return self._poll.poll()

    copying = Copying()
    monkeypatch.setattr(select, "poll", Counting)
    with copying:
        for _ in range(5):
            copying.target.sendall(b"x")
            assert copying.read(1) == b"x"
        copying.target.shutdown(socket.SHUT_WR)
        copying.wait()
    assert looks == [()] * 6, "one for each event, and none has an end of its own"


def test_without_poll_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    copying = Copying()
    monkeypatch.delattr(select, "poll")
    with copying:
        copying.target.sendall(b"x")
        assert copying.read(1) == b"x"
        copying.target.shutdown(socket.SHUT_WR)
        copying.wait()
        assert copying.ended


def test_a_lack_of_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    near, target = tcp_pair()
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with target, pytest.raises(LocalResourceError):
        copy(TunnelSocket(fileno=near.detach()), None, 1)


@contextlib.contextmanager
def command(url: str, *before: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """``emissary connect``; with ``before``, run by that."""
    words = [*before, sys.executable, "-m", "emissary_lib", "connect", TARGET]
    environ = {**os.environ, "EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(words, cwd=ROOT, env=environ, **pipes) as running:  # type: ignore[call-overload]
        yield running


def test_the_command_carries_any_bytes_both_ways() -> None:
    with Bridge(Behaviour(script=echo)) as bridge, command(bridge.url) as running:
        out, err = running.communicate(SOME, timeout=HANG)
        assert (out == SOME, err, running.returncode) == (True, b"", Exit.OK)


@pytest.mark.parametrize(
    ("code", "status"),
    [(Code.TARGET_NOT_ALLOWED, Exit.NOT_ALLOWED), (Code.TARGET_TIMED_OUT, Exit.TIMED_OUT)],
)
def test_a_failed_dial_has_its_status(code: Code, status: Exit) -> None:
    with Bridge(Behaviour(dial_code=code)) as bridge, command(bridge.url) as running:
        out, err = running.communicate(timeout=HANG)
        assert (out, running.returncode) == (b"", status)
        assert err.startswith(b"emissary: cannot reach db.internal:5432: ")


def test_a_tunnel_that_is_cut_off_has_its_status_and_what_came_before_is_passed_on() -> None:
    with Bridge() as bridge, command(bridge.url) as running:
        relay = bridge.relay()
        relay.write(b"half an ans")
        relay.flush()
        assert running.stdout
        assert running.stdout.read(11) == b"half an ans"
        relay.reset(Code.RELAY_DEADLINE)
        _out, err = running.communicate(timeout=HANG)
        assert running.returncode == Exit.CUT_OFF
        assert err.startswith(b"emissary: the tunnel to db.internal:5432 ended: ")


def test_a_reset_behind_a_whole_session_is_a_good_end() -> None:
    def script(relay: Relay) -> None:
        relay.resets_at_end = True

    with Bridge(Behaviour(script=script)) as bridge, command(bridge.url) as running:
        bridge.relay().write(b"answer")
        assert running.stdout
        assert running.stdin
        assert running.stdout.read(6) == b"answer"
        out, err = running.communicate(b"farewell", timeout=HANG)
        assert (out, err, running.returncode) == (b"", b"", Exit.OK)
        assert bridge.relay().arrived == b"farewell"


def test_a_closed_input_is_no_descriptor_of_our_own() -> None:
    """Symptom of the kind: the first socket that is opened gets the number, and is read as input."""
    shell = ("sh", "-c", 'exec "$@" <&-', "sh")
    with Bridge() as bridge, command(bridge.url, *shell) as running:
        bridge.relay().write(b"spoken to")
        bridge.relay().end_with_dialer()
        out, err = running.communicate(timeout=HANG)
        assert (out, err, running.returncode) == (b"spoken to", b"", Exit.OK)
        assert bridge.relay().arrived == b""


def test_a_closed_output_is_told_before_anything_is_dialled() -> None:
    with Bridge() as bridge, command(bridge.url, "sh", "-c", 'exec "$@" >&-', "sh") as running:
        _out, err = running.communicate(timeout=HANG)
        assert (running.returncode, bridge.server.requests) == (Exit.OUTPUT, [])
        assert err == b"emissary: cannot write to standard output: it is closed; give the command one\n"


def test_a_reader_that_goes_away_ends_it_without_a_word() -> None:
    with Bridge() as bridge, command(bridge.url) as running:
        relay = bridge.relay()
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.wait(HANG) == Exit.READER_GONE
        assert running.stderr.read() == b""
        assert relay.wait_aborted().code is Code.DIALER_RESET


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGHUP),
        (signal.SIGINT, Exit.INTERRUPTED),
    ],
)
def test_a_signal_ends_it_and_its_session_at_once(number: signal.Signals, status: int) -> None:
    """As ssh ends its ProxyCommand by SIGHUP: no session may be left in the VPC for a minute."""
    with Bridge(Behaviour(script=echo)) as bridge, command(bridge.url) as running:
        assert_echoes(running)
        running.send_signal(number)
        assert running.wait(HANG) == status  # before the end of its input, which would be a good one
        assert running.stderr
        assert b"Traceback" not in running.stderr.read()
        assert bridge.relay().wait_aborted().code is Code.DIALER_RESET


def assert_echoes(running: subprocess.Popen[bytes]) -> None:
    assert running.stdin
    assert running.stdout
    running.stdin.write(b"x")
    running.stdin.flush()
    assert running.stdout.read(1) == b"x"


def test_a_signal_that_was_ignored_stays_so() -> None:
    """As under nohup."""
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with Bridge(Behaviour(script=echo)) as bridge, command(bridge.url, *ignoring) as running:
        assert_echoes(running)
        running.send_signal(signal.SIGHUP)
        assert_echoes(running)
        _out, err = running.communicate(timeout=HANG)
        assert (running.returncode, err) == (Exit.OK, b"")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh is installed")
def test_ssh_speaks_through_it_as_its_proxy_command() -> None:
    """Up to the server's key exchange, for which ssh says what it can do; there is no sshd."""
    environ = {"EMISSARY_AUTH_KEYS": format_keys([KEY]), "PYTHONPATH": str(ROOT)}
    with Bridge() as bridge:
        proxy = f"ProxyCommand={sys.executable} -m emissary_lib connect %h:%p"
        options = ["-F", "none", "-o", proxy, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
        with subprocess.Popen(
            ["ssh", *options, "-p", "5432", "somebody@db.internal", "true"],
            env={**os.environ, **environ, "EMISSARY_URL": bridge.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            relay = bridge.relay()
            relay.write(b"SSH-2.0-Fake_1.0\r\n")
            wait_until(lambda: b"curve25519-sha256" in relay.arrived, "ssh's offer")
            assert relay.arrived.startswith(b"SSH-2.0-")
            relay.write_eof()
            _out, err = running.communicate(timeout=HANG)
            assert running.returncode == 255
            assert b"Connection closed by" in err
        relay.wait_over()
