"""A dialer in several processes: pickled, forked, and in multiprocessing's workers of every kind."""

from __future__ import annotations

import errno
import pickle
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import (
    AnswerLostError,
    ClockSkewError,
    ConfigError,
    DialTimeoutError,
    EmissaryError,
    GatewayRefusedError,
    TargetRefusedError,
    dial_error,
    local_resource_error,
    reset_error,
)
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.kinds import OWN, SHARED, Kind
from tests.helpers.patience import HANG

SECRET = b"hunter2-hunter2-hunter2"


def test_a_pickled_dialer_has_its_settings() -> None:
    times = KeepaliveTimes(interval=30.0, deadline=10.0)
    dialer = Dialer(
        "wss://host/s",
        Key(7, SECRET),
        max_in_flight=3,
        capacity=100_000,
        keepalive=times,
        connections_per_relay=5,
        relay_idle_seconds=7,
    )
    copy = pickle.loads(pickle.dumps(dialer))
    assert isinstance(copy, Dialer)
    assert repr(copy) == "<Dialer to wss://host/s with key 7>"
    assert copy._key == Key(7, SECRET)
    assert (copy._streams.capacity, copy._keepalive.interval) == (100_000, 30.0)
    assert (copy._in_flight.places, copy._in_flight.free) == (3, 3)
    assert (copy._connections_per_relay, copy._relay_idle_seconds) == (5, 7)


def test_a_pickled_dialer_has_relays_of_its_own() -> None:
    with Bridge(Behaviour(script=echo)) as bridge, SHARED.dialer(bridge.url, KEY) as dialer:
        with dialer.dial(TARGET, HANG):
            with pickle.loads(pickle.dumps(dialer)) as copy:
                assert copy.relays == ()
                with copy.dial(TARGET, HANG) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
                    assert {each.id for each in copy.relays}.isdisjoint(each.id for each in dialer.relays)


def test_a_pickled_dialer_that_was_closed_stays_so_and_one_that_was_not_dials() -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        dialer = OWN.dialer(bridge.url, KEY)
        with pickle.loads(pickle.dumps(dialer)).dial(TARGET, HANG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        dialer.close()
        with pytest.raises(EmissaryError, match="was closed"):
            pickle.loads(pickle.dumps(dialer)).dial(TARGET)


@pytest.mark.parametrize("name", ["ssl_context", "clock"])
def test_what_cannot_be_pickled_is_named_with_the_remedy(name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialer = Dialer("wss://host/s", KEY, **{name: context if name == "ssl_context" else time.monotonic})  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=f"with a {name} of its own cannot be pickled: make it in the process"
    ):
        pickle.dumps(dialer)


def test_no_repr_has_the_key() -> None:
    dialer = Dialer("wss://host/s", Key(7, SECRET))
    for shown in (repr(dialer), str(dialer), repr(vars(dialer)), repr(dialer.__getstate__())):
        assert "hunter2" not in shown


TIMED_OUT = DialTimeoutError(
    "no", target=Target("db", 1), timeout=1.0, step="the relay", timings={"relay": 1.0}, attempts=2
)


@pytest.mark.parametrize(
    "error",
    [
        TIMED_OUT,
        dial_error(Target("db", 1), Code.TARGET_REFUSED),
        reset_error(Target("db", 1), Code.TARGET_RESET, "reset", whole=True),
        local_resource_error(OSError(errno.EMFILE, "no")),
        local_resource_error(RuntimeError("can't start new thread")),
        GatewayRefusedError("no", http_status=429, date="today"),
        ClockSkewError(700.0),
        ConfigError("one", "two"),
        AnswerLostError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_out_of_a_worker_as_it_was(error: EmissaryError) -> None:
    """Symptom: the pool of whoever dialled in a worker broke, because the error could not be unpickled."""
    error.add_note("session 0123")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)


def test_an_error_is_still_caught_as_what_it_was() -> None:
    copy = pickle.loads(pickle.dumps(dial_error(Target("db", 1), Code.TARGET_REFUSED)))
    assert isinstance(copy, TargetRefusedError)
    assert isinstance(copy, ConnectionRefusedError)
    assert (copy.code, copy.target) == (Code.TARGET_REFUSED, Target("db", 1))


WORKERS = f"""
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from emissary_lib import Dialer
from emissary_lib.exceptions import TargetNotAllowedError
from emissary_lib.protocol.auth.keys import parse_keys

def work(dialer, last):
    sock = dialer.dial({TARGET!r}, {HANG})
    sock.sendall(last)
    global kept
    kept = sock  # nobody closes it: the worker just ends

def fail(dialer):
    dialer.dial("other.internal:1", {HANG})

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    dialer = Dialer(sys.argv[2], parse_keys(sys.argv[3])[0], connections_per_relay=int(sys.argv[4]))
    with dialer.dial({TARGET!r}, {HANG}) as sock:
        worker = context.Process(target=work, args=(dialer, b"from a worker"))
        worker.start()
        worker.join({HANG})
        assert worker.exitcode == 0, worker.exitcode
        sock.sendall(b"from the parent")
    with ProcessPoolExecutor(1, context) as pool:
        try:
            pool.submit(fail, dialer).result({HANG})
        except TargetNotAllowedError as exc:
            print(exc.target)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_dials_with_a_dialer_that_it_was_given(method: str, tmp_path: Path, kind: Kind) -> None:
    """What it wrote arrives too, though a worker ends without the interpreter's exit."""
    program = tmp_path / "workers.py"
    program.write_text(WORKERS)
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        done = subprocess.run(
            [sys.executable, str(program), method, bridge.url, format_keys([KEY]), str(kind.connections)],
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert (done.returncode, done.stdout) == (0, "other.internal:1\n"), done.stderr
        assert done.stderr == ""
        assert bridge.relay(0).read_to_end() == b"from the parent"
        assert bridge.relay(1).read_to_end() == b"from a worker"
        assert len(bridge.wires) == (3 if kind.shared else 2), "each process has relays of its own"
        for wire in bridge.wires[: 3 if kind.shared else 0]:
            wire.wait_over()  # the bridge was told, though they might have been kept


#: What a program that forks begins with.
PREAMBLE = f"""
import os, select, signal, socket, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what this is about
from emissary_lib import Dialer
from emissary_lib.client import drain
from emissary_lib.protocol.auth.keys import parse_keys
key, shared = parse_keys(sys.argv[2])[0], int(sys.argv[3])
dialer = Dialer(sys.argv[1], key, max_in_flight=2, connections_per_relay=shared)

def dial():
    sock = dialer.dial({TARGET!r}, {HANG})
    sock.settimeout({HANG})
    return sock

def echoes(sock, data=b"hello"):
    sock.sendall(data)
    assert sock.recv(100) == data

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(kind: Kind, program: str, *, told: str = "") -> None:
    """Run a program that forks, to its end."""
    with Bridge(Behaviour(script=echo)) as bridge:
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + program, bridge.url, format_keys([KEY]), str(kind.connections)],
            capture_output=True,
            text=True,
            timeout=HANG,
        )
    assert (done.returncode, done.stdout.strip()) == (0, told), done.stderr
    assert done.stderr == ""


def test_a_child_that_is_forked_while_others_dial_can_dial(kind: Kind) -> None:
    run(
        kind,
        """
mine, stop = dial(), threading.Event()

def busy():
    while not stop.is_set():
        with dial() as sock:
            echoes(sock)

threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(5):
    pid = os.fork()
    if not pid:
        with dial() as sock:
            echoes(sock)
        os._exit(7)
    assert ended(pid) == 7
    echoes(mine)
stop.set()
for thread in threads:
    thread.join()
""",
    )


def test_a_child_that_is_forked_during_the_first_dial_can_dial(kind: Kind) -> None:
    """Symptom: it waited for ever for the thread that was loading a module then, or knew no codec idna."""
    run(
        kind,
        f"""
class Finders(list):
    def __iter__(self):
        if os.getpid() == parent and threading.current_thread() is not threading.main_thread():
            loads.set()
            threading.Event().wait()  # for ever, with the module's lock
        return super().__iter__()

def first():
    with dial() as sock:
        echoes(sock)
    loads.set()

parent, loads = os.getpid(), threading.Event()
sys.meta_path = Finders(sys.meta_path)
threading.Thread(target=first, daemon=True).start()
assert loads.wait({HANG})
pid = os.fork()
if not pid:
    with dial() as sock:
        echoes(sock)
    os._exit(7)
assert ended(pid) == 7
""",
    )


def test_a_child_has_the_places_and_the_lock_that_its_parents_tunnels_hold(kind: Kind) -> None:
    run(
        kind,
        """
limiter = dialer._in_flight
slots = [limiter.member(lambda: None) for _ in range(3)]
assert [each.acquire() for each in slots] == [True, True, False]
limiter._lock.acquire()
drain._lock.acquire()
pid = os.fork()
if not pid:
    with dial() as sock:
        echoes(sock)
    dialer.close()
    assert limiter.free == 2
    os._exit(7)
drain._lock.release()
limiter._lock.release()
assert ended(pid) == 7
assert limiter.free == 0
""",
    )


@pytest.mark.parametrize("leaves", ["sock.close()", "dialer.close()", "del sock", "sys.exit(7)"])
def test_a_child_that_lets_go_of_an_inherited_socket_leaves_the_parents_tunnel_alone(
    leaves: str, kind: Kind
) -> None:
    run(
        kind,
        f"""
sock = dial()
pid = os.fork()
if not pid:
    echoes(sock, b"from the child")  # the parent's threads carry it
    {leaves}
    sys.exit(7)
assert ended(pid) == 7
echoes(sock)
sock.shutdown(socket.SHUT_WR)
assert sock.recv(1) == b""
""",
    )


def test_an_inherited_socket_ends_with_the_parent(kind: Kind) -> None:
    """Symptom: the child had a copy of the parent's own end, and waited for ever for what nobody carries."""
    run(
        kind,
        """
sock = dial()
if os.fork():
    os._exit(0)
try:
    assert sock.recv(1) == b""
except ConnectionResetError:
    pass
print("ended", flush=True)
os._exit(0)
""",
        told="ended",
    )


def test_a_child_keeps_up_nothing_that_its_parent_closes(kind: Kind) -> None:
    """Neither the port of a forward, nor what is being dialled: both ends of it are the parent's alone."""
    run(
        kind,
        """
forward = dialer.forward("db.internal:5432")
address = forward.__enter__()
inside, go_on = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    os.write(inside[1], b"x")
    os.read(go_on[0], 1)
    os._exit(7)
os.read(inside[0], 1)
forward.close()
try:
    socket.create_connection(tuple(address))
except ConnectionRefusedError:
    pass
else:
    raise AssertionError("somebody listens")
os.write(go_on[1], b"x")
assert ended(pid) == 7
""",
    )


def test_a_child_that_leaves_the_block_of_a_forward_leaves_it_to_its_parent(kind: Kind) -> None:
    """Symptom: it woke the parent's thread, which then never slept again."""
    run(
        kind,
        """
try:
    with dialer.forward("db.internal:5432") as address:
        pid = os.fork()
        if not pid:
            sys.exit(7)  # through the end of the block
        assert ended(pid) == 7
        assert not select.select([address.forward._wakeup], [], [], 0)[0]
        with socket.create_connection(tuple(address)) as through:
            echoes(through)
finally:
    if not pid:
        dialer.close()
""",
    )


def test_a_child_does_not_wait_for_what_its_parent_was_waiting_for(kind: Kind) -> None:
    """Forked by a signal's handler, say, while the parent closes its dialer."""
    run(
        kind,
        """
sock, parent, sleep, pids = dial(), os.getpid(), time.sleep, []
connection, = drain._open
connection.settled = lambda goal: connection._over  # on its own it never is
drain.STANDSTILL = 600.0

def fork_once(seconds):
    if not pids:
        pids.append(os.fork())
        if pids[0]:
            assert ended(pids[0]) == 7
            connection.over()
    sleep(seconds)

drain.time.sleep = fork_once
dialer.close()
os._exit(0 if os.getpid() == parent else 7)
""",
    )
