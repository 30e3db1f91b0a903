"""A forwarded port: at once or not at all, each connection on its own, and nothing left."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.client.forward import Forward, Forwarded
from emissary_lib.exceptions import (
    ConfigError,
    DialError,
    LocalResourceError,
    TargetRefusedError,
    TunnelResetError,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.kinds import Kind
from tests.helpers.marks import with_unix_sockets
from tests.helpers.patience import HANG, repeat_until_it_raises, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]

#: More than all buffers on the way hold.
BULK = bytes(range(256)) * 16_384


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, HANG)


def test_connections_through_it_reach_the_target(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET) as address:
            assert address[0] == "127.0.0.1"
            assert address[1] > 0
            socks = [connect(address) for _ in range(10)]
            for number, sock in enumerate(socks):
                sock.sendall(str(number).encode())
            for number, sock in enumerate(socks):
                with sock:
                    assert sock.recv(10) == str(number).encode()
        assert len(bridge.server.requests) <= 10 if kind.shared else len(bridge.server.requests) == 10


def test_a_busy_port_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        forward = Forward(taken.getsockname(), lambda sock, connection: None)
        with pytest.raises(OSError, match="in use"):
            forward.__enter__()
    forward.close()


def test_a_failed_dial_resets_that_connection_alone_and_is_kept(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        forward = kind.dialer(bridge.url, KEY).forward(TARGET, timeout=HANG)
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


def test_a_tunnel_that_is_cut_off_is_logged_with_its_cause(
    caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    with Bridge() as bridge:
        forward = kind.dialer(bridge.url, KEY).forward(TARGET)
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


def connect_or_be_reset(address: tuple[str, int]) -> None:
    """Connect to who may be about to stop listening, and then resets whom it has not accepted yet."""
    with contextlib.suppress(ConnectionResetError):
        connect(address).close()


@pytest.mark.parametrize("close", ["forward", "dialer"])
def test_closing_waits_for_connections_whose_dial_is_under_way(close: str, kind: Kind) -> None:
    """Symptom: what a program wrote and closed before its dial was through was thrown away at exit."""
    gate = threading.Event()
    with Bridge(held(gate)) as bridge:
        dialer = kind.dialer(bridge.url, KEY)
        forward = dialer.forward(TARGET, timeout=HANG)
        address = forward.__enter__()
        write_and_close(address, b"hello")
        closing = threading.Thread(target=forward.close if close == "forward" else dialer.close)
        closing.start()
        wait_until(lambda: bridge.server.requests, "the dial")
        with pytest.raises(ConnectionRefusedError):
            repeat_until_it_raises(lambda: connect_or_be_reset(address))
        assert closing.is_alive()
        gate.set()
        closing.join(HANG)
        assert bridge.relay().arrived == b"hello"
        dialer.close()


def test_a_connection_that_nobody_had_accepted_yet_counts_as_well(kind: Kind) -> None:
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, timeout=HANG) as address:
            for number in range(8):
                write_and_close(address, bytes([number]))
        assert {bridge.relay(number).arrived for number in range(8)} == {bytes([n]) for n in range(8)}


def test_a_dial_that_is_given_up_is_a_warning(caplog: pytest.LogCaptureFixture, kind: Kind) -> None:
    gate = threading.Event()
    with Bridge(held(gate)) as bridge:
        forward = kind.dialer(bridge.url, KEY).forward(TARGET, timeout=HANG)
        with forward as address:
            write_and_close(address, b"hello")
            wait_until(lambda: bridge.server.requests, "the dial")
            forward.give_up_dialling()
        assert "whatever was written to a connection to db.internal:5432" in caplog.text
        gate.set()
        assert bridge.relay().read_to_end() == b"hello"


def test_a_reset_behind_a_whole_session_is_no_warning(caplog: pytest.LogCaptureFixture, kind: Kind) -> None:
    """Symptom: a database that closes with a farewell unread alarmed after a good session."""

    def script(relay: Relay) -> None:
        relay.resets_at_end = True

    caplog.set_level("INFO", "emissary_lib")
    with Bridge(Behaviour(script=script)) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, timeout=HANG) as address:
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
def test_a_reset_with_anything_missing_is_one(
    missing: str, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    with Bridge() as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, timeout=HANG) as address:
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


def test_a_program_that_resets_its_own_socket_is_no_failure(
    caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    with Bridge() as bridge:
        forward = kind.dialer(bridge.url, KEY).forward(TARGET)
        with forward as address:
            sock = connect(address)
            relay = bridge.relay()
            reset(sock)
            assert relay.wait_aborted().code is Code.DIALER_RESET
            named = "emissary-forwarded"
            wait_until(lambda: not any(t.name == named for t in threading.enumerate()), "its thread ends")
    assert (forward.last_error, caplog.text) == (None, "")


def test_closing_leaves_no_thread_and_lets_open_connections_live(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        forward = kind.dialer(bridge.url, KEY).forward(TARGET)
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
    def fail(sock: socket.socket, accepted: Forwarded) -> None:
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


def test_a_lack_of_descriptors_refuses_each_connection_and_does_not_end_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Symptom: connections hung until there were some, and each tenth of a second had its warning."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    served = threading.Event()

    def serve(sock: socket.socket, accepted: Forwarded) -> None:
        sock.close()
        served.set()

    forward = Forward(("127.0.0.1", 0), serve)
    with forward as address:
        gc.collect()  # nothing may close later and make room
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # More than one, because an accept that waits may have its descriptor already.
        socks = [socket.socket() for _ in range(4)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in socks) + 1, hard))
        try:
            refused = [_is_reset(sock, address) for sock in socks]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in socks:
                sock.close()
        assert refused.count(True) >= 3
        assert isinstance(forward.last_error, LocalResourceError)
        assert [record.message.count("ulimit -n") for record in caplog.records] == [1] * refused.count(True)
        served.clear()
        with connect(address):
            assert served.wait(HANG)


def _is_reset(sock: socket.socket, address: tuple[str, int]) -> bool:
    """Whether a connection is reset, and not closed."""
    sock.settimeout(HANG)
    try:
        sock.connect(address)
        return bool(sock.recv(1))
    except ConnectionResetError:
        return True


#: Listens with ever more descriptors, until it can; then has none, then some again.
STARVES = """
import contextlib, os, resource, socket, sys, threading
from emissary_lib import Dialer, Key
from emissary_lib.exceptions import LocalResourceError

def fill(free):
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for each in held[len(held) - free:]:
        os.close(each)
    return held[:len(held) - free]

resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
dialer = Dialer(sys.argv[1], Key(*eval(sys.argv[2])), connections_per_relay=1)
for free in range(20):
    held = fill(free)
    try:
        address = dialer.forward("db.internal:5432", timeout=20).__enter__()
        break
    except LocalResourceError as exc:
        problem = exc
    finally:
        for each in held:
            os.close(each)
print("ulimit -n" in str(problem), free)
print(*address, flush=True)
for free in map(int, sys.stdin):
    for thread in threading.enumerate():
        if thread.name not in ("MainThread", "emissary-forward"):
            thread.join()  # the tunnel before has given its descriptors back
    held = fill(free)
    print(flush=True)
    sys.stdin.readline()
    for each in held:
        os.close(each)
    print(flush=True)
address.forward.close()
"""


def test_whatever_number_of_descriptors_is_left_a_connection_is_refused_and_the_next_is_served() -> None:
    """Symptoms: a traceback of the thread that accepts; a module that could not be read was the cause."""
    pytest.importorskip("resource", reason="Windows has no such limit")
    with Bridge(Behaviour(script=echo)) as bridge:
        running = subprocess.Popen(
            [sys.executable, "-c", STARVES, bridge.url, repr((KEY.key_id, KEY.secret))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with running:
            assert running.stdin
            assert running.stdout
            told, least = running.stdout.readline().split()
            assert (told, int(least) > 1) == ("True", True)
            host, port = running.stdout.readline().split()
            for free in range(4):  # at each of them something else is not to be had
                _tell(running, str(free))
                with socket.socket() as sock:
                    assert _is_reset(sock, (host, int(port)))
                _tell(running, "")
                with connect((host, int(port))) as sock:
                    sock.sendall(b"hello")
                    assert sock.recv(5) == b"hello"
            _out, err = running.communicate(timeout=HANG)
    assert running.returncode == 0
    assert [line.count("ulimit -n") for line in err.splitlines()] == [1] * 4


def _tell(running: subprocess.Popen[str], word: str) -> None:
    """Say a word, and wait until it was done."""
    assert running.stdin
    assert running.stdout
    running.stdin.write(f"{word}\n")
    running.stdin.flush()
    running.stdout.readline()


def test_an_error_of_the_dial_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture, kind: Kind) -> None:
    with Bridge(Behaviour(dial_code=Code.NAME_NOT_FOUND)) as bridge:
        forward = kind.dialer(bridge.url, KEY).forward(TARGET)
        with forward as address, pytest.raises(ConnectionResetError), connect(address) as sock:
            sock.recv(1)
    assert isinstance(forward.last_error, DialError)
    assert "does not resolve" in caplog.text


def test_sixty_four_connections_at_once_are_all_served(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, timeout=10 * HANG) as address:
            socks = [connect(address) for _ in range(64)]
            for number, sock in enumerate(socks):
                sock.sendall(bytes([number]) * 1000)
            for number, sock in enumerate(socks):
                with sock, sock.makefile("rb") as stream:
                    assert stream.read(1000) == bytes([number]) * 1000
        assert address.last_error is None


def test_a_default_timeout_of_sockets_is_not_its_business(
    caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    """Symptom: under socket.setdefaulttimeout(3) it warned every three seconds that nobody connected."""
    gate = threading.Event()

    def script(relay: Relay) -> None:
        assert gate.wait(HANG)
        relay.echo = True

    caplog.set_level("DEBUG", "emissary_lib")
    default = 0.02
    with Bridge(Behaviour(script=script)) as bridge:
        dialer = kind.dialer(bridge.url, KEY)
        socket.setdefaulttimeout(default)
        try:
            with dialer.forward(TARGET, timeout=HANG) as address:
                gate.wait(10 * default)  # nobody connects
                with connect(address) as sock:
                    gate.wait(10 * default)  # nothing comes of it, and nothing is written
                    gate.set()
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
                    threading.Event().wait(10 * default)  # and nothing more
        finally:
            socket.setdefaulttimeout(None)
    assert (address.last_error, caplog.records) == (None, [])


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a Unix socket: relative, since pytest's own folders make a long one."""
    monkeypatch.chdir(tmp_path)
    return "./socket"


def connect_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(HANG)
    sock.connect(path)
    return sock


def write_all(sock: socket.socket) -> None:
    sock.sendall(BULK)
    sock.shutdown(socket.SHUT_WR)


@with_unix_sockets
def test_a_unix_socket_leads_to_the_target_too(path: str, kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, path, timeout=HANG) as address:
            assert (address, address.path) == ((os.path.abspath(path), 0), os.path.abspath(path))
            with connect_unix(path) as sock, sock.makefile("rb") as stream:
                writer = threading.Thread(target=write_all, args=[sock])
                writer.start()
                assert stream.read() == BULK
                writer.join(HANG)
        assert not os.path.exists(path)


@with_unix_sockets
def test_what_was_written_to_a_unix_socket_just_before_it_was_closed_arrives(path: str, kind: Kind) -> None:
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, path, timeout=HANG):
            for number in range(8):
                with connect_unix(path) as sock:
                    sock.sendall(bytes([number]) * 100_000)
        assert {bridge.relay(n).arrived for n in range(8)} == {bytes([n]) * 100_000 for n in range(8)}


@with_unix_sockets
def test_an_unread_request_on_a_unix_socket_meets_a_reset_if_the_dial_fails(path: str, kind: Kind) -> None:
    with Bridge(Behaviour(dial_code=Code.TARGET_REFUSED)) as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, path, timeout=HANG) as address:
            with connect_unix(path) as sock:
                sock.sendall(b"startup")
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            assert isinstance(address.last_error, TargetRefusedError)


@with_unix_sockets
def test_a_cut_on_a_unix_socket_is_told_and_what_came_before_it_is_read(
    path: str, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    """A Unix socket has no reset: to the program it is an end of file, so somebody else has to be told."""
    with Bridge() as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, path, timeout=HANG) as address:
            with connect_unix(path) as sock, sock.makefile("rb") as stream:
                relay = bridge.relay()
                relay.write(b"x" * 100_000)
                relay.flush()
                relay.reset(Code.TARGET_RESET)
                if not kind.shared:  # such a connection goes with its last byte, so that it can wait
                    wait_until(lambda: address.last_error, "the cut is told")  # though nobody has read a byte
                assert stream.read() == b"x" * 100_000
                wait_until(lambda: address.last_error, "the cut is told")
    assert isinstance(address.last_error, TunnelResetError)
    assert "was cut off" in caplog.text


@with_unix_sockets
def test_a_program_that_leaves_answers_unread_on_a_unix_socket_has_reset_it(path: str, kind: Kind) -> None:
    with Bridge() as bridge:
        with kind.dialer(bridge.url, KEY).forward(TARGET, path, timeout=HANG):
            sock = connect_unix(path)
            relay = bridge.relay()
            relay.write(b"answer")
            wait_until(lambda: sock.recv(1, socket.MSG_PEEK), "it comes")
            sock.close()
            assert relay.wait_aborted().code is Code.DIALER_RESET


def test_the_last_error_reaches_whoever_has_configured_no_logging(tmp_path: pathlib.Path) -> None:
    """Symptom: "server closed the connection unexpectedly", and nothing else."""
    program = f"""
import socket, sys
from emissary_lib import Dialer, Key
with Dialer(sys.argv[1], Key(7, bytes(range(32)))) as dialer:
    with dialer.forward({TARGET!r}, sys.argv[2]) as address:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(sys.argv[2])
        sock.sendall(b"startup")
        try:
            sock.recv(1)
        except ConnectionResetError:
            print(type(address.last_error).__name__)
"""
    with Bridge(Behaviour(dial_code=Code.TARGET_REFUSED)) as bridge:
        done = subprocess.run(
            [sys.executable, "-c", program, bridge.url, "./socket"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=True,
        )
    assert done.stdout == "TargetRefusedError\n"
    assert done.stderr.startswith("a forwarded connection failed: cannot reach db.internal:5432: ")
    assert os.listdir(tmp_path) == []


def test_a_socket_s_file_is_gone_when_the_interpreter_exits_inside(tmp_path: pathlib.Path) -> None:
    program = f"""
from emissary_lib import Dialer, Key
Dialer("ws://127.0.0.1:1/s", Key(7, bytes(range(32)))).forward({TARGET!r}, "./socket").__enter__()
import os; print(os.path.exists("socket"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    assert (done.stdout, done.stderr, os.listdir(tmp_path)) == ("True\n", "", [])


def test_an_address_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="'5433' is no local address"):
        Dialer("ws://127.0.0.1:1/s", KEY).forward(TARGET, "5433")
