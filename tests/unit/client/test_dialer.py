"""The dialer itself: its life, its settings, many dials at once, and what failures leave behind."""

from __future__ import annotations

import errno
import functools
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from emissary_lib.client import dialer as module
from emissary_lib.client import drain
from emissary_lib.client.dialer import MAX_IN_FLIGHT, Dialer
from emissary_lib.exceptions import (
    ClosedError,
    ConfigError,
    DialError,
    DialTimeoutError,
    LocalResourceError,
    TunnelResetError,
)
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.driver import Tunnel
from tests.helpers.bridge import KEY, LIFE, TARGET, Behaviour, Bridge, echo
from tests.helpers.kinds import OWN, Kind
from tests.helpers.patience import HANG, repeat_until_it_raises, wait_until
from tests.helpers.ws_server import noise


@pytest.mark.parametrize("target", [TARGET, ("db.internal", 5432)])
def test_a_target_is_text_or_a_pair(target: str | tuple[str, int], kind: Kind) -> None:
    began = time.time()
    with Bridge() as bridge, kind.dialer(bridge.url, KEY).dial(target, HANG) as sock:
        assert sock.session is not None
        assert str(sock.session.target) == TARGET
        assert began + LIFE - 1 <= sock.session.expires_at <= time.time() + LIFE + 1
        assert sock.session.counters.messages_sent >= 1


@pytest.mark.parametrize("target", ["", "db", "db:", "db:0", "db:65536", "db:x", ":1", ("db", 0), "a b:1"])
def test_a_bad_target_is_refused_before_anything_is_sent(target: str | tuple[str, int]) -> None:
    with Bridge() as bridge:
        with pytest.raises(ConfigError):
            OWN.dialer(bridge.url, KEY).dial(target)
        with pytest.raises(ConfigError):
            OWN.dialer(bridge.url, KEY).forward(target)
        assert bridge.server.requests == []


@pytest.mark.parametrize("target", [None, ["db", 1], b"db:1", ("db",), ("db", True)], ids=repr)
def test_a_target_of_another_type_is_a_config_error(target: Any) -> None:
    dialer = Dialer("ws://127.0.0.1:1/s", KEY)
    for use in (dialer.dial, dialer.forward):
        with pytest.raises(ConfigError):
            use(target)


@pytest.mark.parametrize("timeout", ["5", b"5", float("nan"), float("inf"), 1e12, True, []], ids=repr)
def test_a_timeout_that_is_none_is_a_config_error(timeout: Any) -> None:
    dialer = Dialer("ws://127.0.0.1:1/s", KEY)
    for use in (
        lambda: dialer.dial(TARGET, timeout),
        lambda: dialer.create_connection(("db", 1), timeout),
        lambda: dialer.forward(TARGET, timeout=timeout),
        lambda: dialer.health(timeout),
    ):
        with pytest.raises(ConfigError, match="no number of seconds up to 2000000; None is no limit"):
            use()


def test_a_closed_dialer_refuses_to_dial_and_its_sockets_live_on(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with kind.dialer(bridge.url, KEY) as dialer:
            sock = dialer.dial(TARGET, HANG)
        dialer.close()
        with pytest.raises(ClosedError, match="make a new one"):
            dialer.dial(TARGET)
        with sock:
            sock.settimeout(HANG)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert len(bridge.server.requests) == 1


def test_closing_a_dialer_waits_until_what_was_written_has_arrived(kind: Kind) -> None:
    data = noise(1_000_000)
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        with kind.dialer(bridge.url, KEY) as dialer:
            with dialer.dial(TARGET, HANG) as sock:
                sock.sendall(data)
        relay = bridge.relay()
        assert relay.arrived == data
        assert relay.read_to_end() == data


def test_closing_a_dialer_waits_a_while_but_not_for_ever_for_a_target_that_does_not_end() -> None:
    with Bridge() as bridge, OWN.dialer(bridge.url, KEY) as dialer:
        dialer.dial(TARGET, HANG).close()
        began = time.monotonic()
        dialer.close()
        assert time.monotonic() - began > 1.5


def test_the_dials_timeout_is_not_the_sockets() -> None:
    with Bridge() as bridge, OWN.dialer(bridge.url, KEY).dial(TARGET, HANG) as sock:
        assert sock.gettimeout() is None


def test_create_connection_leaves_its_timeout_on_the_socket() -> None:
    with Bridge() as bridge:
        with OWN.dialer(bridge.url, KEY).create_connection(("db.internal", 5432), 7.0) as sock:
            assert sock.gettimeout() == 7.0


def test_settings_come_from_the_environment() -> None:
    with Bridge() as bridge:
        environ = {"EMISSARY_URL": bridge.url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}
        Dialer.from_env(environ).dial(TARGET, HANG).close()
        times = {"EMISSARY_PING_SECONDS": "30", "EMISSARY_PONG_SECONDS": "10"}
        with Dialer.from_env({**environ, **times}) as dialer:
            assert (dialer._keepalive.interval, dialer._keepalive.deadline) == (30.0, 10.0)


def test_many_dials_at_once_each_get_their_own_tunnel(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        dialer = kind.dialer(bridge.url, KEY)
        wrong: list[int] = []

        def one(number: int) -> None:
            data = str(number).encode() * 5000
            with dialer.dial(TARGET, HANG) as sock:
                sock.settimeout(HANG)
                sock.sendall(data)
                got = b""
                while len(got) < len(data):
                    got += sock.recv(65_536)
                if got != data:
                    wrong.append(number)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
        assert wrong == []
        assert len(bridge.server.requests) == 20 or kind.shared


def test_tunnels_that_share_one_place_all_get_through(kind: Kind) -> None:
    data = noise(400_000)
    with Bridge(Behaviour(script=echo)) as bridge, kind.dialer(bridge.url, KEY, max_in_flight=1) as dialer:
        done: list[bool] = []

        def one() -> None:
            with dialer.dial(TARGET, HANG) as sock:
                sock.settimeout(HANG)
                sender = threading.Thread(target=sock.sendall, args=(data,))
                sender.start()
                got = bytearray()
                while len(got) < len(data):
                    got += sock.recv(65_536)
                sender.join(HANG)
                done.append(got == data)

        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
        assert done == [True] * 3


def test_places_come_back_after_resets_failed_dials_and_timeouts() -> None:
    with Bridge() as bridge:
        dialer = OWN.dialer(bridge.url, KEY, max_in_flight=2)
        for code in (Code.TARGET_REFUSED, Code.NAME_NOT_FOUND):
            bridge.behaviour.dial_code = code
            with pytest.raises(DialError):
                dialer.dial(TARGET, HANG)
        bridge.behaviour.dial_code = Code.OK
        bridge.behaviour.silent = True
        with pytest.raises(DialTimeoutError):
            dialer.dial(TARGET, 0.2)
        bridge.behaviour.silent = False
        for index in range(2, 4):
            with dialer.dial(TARGET, HANG) as sock:
                bridge.relay(index).reads = False
                bridge.relay(index).reset()
                with pytest.raises(TunnelResetError):
                    repeat_until_it_raises(functools.partial(sock.sendall, b"x" * 1000))
        bridge.behaviour.script = echo
        with dialer.dial(TARGET, HANG) as sock:
            sock.settimeout(HANG)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert wait_for_free(dialer) == 2


def wait_for_free(dialer: Dialer) -> int:
    """Places that are free once every tunnel of the dialer is gone."""
    wait_until(lambda: all(each.name != "emissary-driver" for each in threading.enumerate()), "their ends")
    return dialer._in_flight.free


def test_a_dial_without_descriptors_fails_at_once_and_opens_nothing() -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    with Bridge() as bridge:
        dialer = OWN.dialer(bridge.url, KEY)
        gc.collect()  # nothing may close later and make room
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as last:
            highest = last.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with pytest.raises(LocalResourceError, match=r"Too many open files.*ulimit -n") as caught:
                dialer.dial(TARGET, HANG)
            assert caught.value.errno == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert bridge.server.requests == []


DIALS_WITH_FEW_DESCRIPTORS = """
import os, resource, sys, threading
from emissary_lib import Dialer, Key
from emissary_lib.exceptions import LocalResourceError
from emissary_lib.protocol.auth.keys import parse_keys

key, shared = parse_keys(sys.argv[2])[0], int(sys.argv[3])
dialer = Dialer(sys.argv[1], key, connections_per_relay=shared, relay_idle_seconds=0)
dial = lambda: dialer.dial("db.internal:5432", 60).close()

def idle():
    for each in threading.enumerate():
        if each is not threading.current_thread():
            each.join(60)
    return sorted(map(int, os.listdir("/proc/self/fd")))

dial()
before, hard = idle(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
outcomes = []
for more in range(1, 16):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[-1] + more, hard))
    try:
        dial()
    except LocalResourceError as exc:
        assert "ulimit -n" in str(exc)
        outcomes.append("refused")
    else:
        outcomes.append("dialled")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert idle() == before, (more, idle(), before)
print(*outcomes)
"""


def test_whichever_descriptor_is_missing_the_error_is_declared_and_nothing_is_left_open(kind: Kind) -> None:
    pytest.importorskip("resource", reason="Windows has no such limit")
    command = [sys.executable, "-W", "error", "-c", DIALS_WITH_FEW_DESCRIPTORS]
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        done = subprocess.run(
            [*command, bridge.url, format_keys([KEY]), str(kind.connections)],
            capture_output=True,
            text=True,
            timeout=HANG,
        )
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = done.stdout.split()
    assert outcomes == sorted(outcomes, reverse=True), "with more of them it goes no worse"
    assert {"refused", "dialled"} == set(outcomes)


def without(patch: pytest.MonkeyPatch, name: str) -> None:
    """From now on, no thread of that name can be started."""

    def start(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        real(thread)

    real = threading.Thread.start
    patch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("name", ["emissary-upgrade", "emissary-reader", "emissary-driver"])
def test_a_dial_without_a_thread_fails_with_a_declared_error_and_ends_its_session(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: Kind
) -> None:
    """Symptom: the session was registered, nobody drove it, and its relay ran on for minutes."""
    ends = Behaviour(script=lambda relay: relay.end_with_dialer())
    with Bridge(ends) as bridge, kind.dialer(bridge.url, KEY) as dialer:
        dialer.dial(TARGET, HANG).close()
        wait_for_free(dialer)
        gc.collect()
        before = descriptors()
        without(monkeypatch, name)
        with pytest.raises(LocalResourceError, match="can't start new thread"):
            dialer.dial(TARGET, HANG)
        monkeypatch.undo()
        assert dialer._in_flight.free == MAX_IN_FLIGHT
        if name != "emissary-upgrade":  # there is a session, and the bridge hears of its end
            assert bridge.relay(1).wait_aborted().code is Code.DIALER_RESET
        wait_until(lambda: descriptors() == before, "the descriptors of bridge and dialer")
        dialer.dial(TARGET, HANG).close()


def read_one(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, HANG) as sock:
        return sock.recv(1)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", ["emissary-upgrade", "emissary-reader", "emissary-forwarded"])
def test_a_forwarded_connection_without_a_thread_is_reset_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Bridge(Behaviour(script=echo)) as bridge, OWN.dialer(bridge.url, KEY) as dialer:
        with dialer.forward(TARGET) as address:
            without(monkeypatch, name)
            with pytest.raises(ConnectionResetError):
                read_one(address)  # reset perhaps before it knows that it was accepted
            monkeypatch.undo()
            wait_until(lambda: address.last_error, "the failure")
            assert "can't start new thread" in str(address.last_error)
            with socket.create_connection(address, HANG) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"


def test_a_forward_without_a_thread_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    dialer = Dialer("ws://127.0.0.1:1/x", KEY)
    forward = dialer.forward(TARGET)
    gc.collect()
    before = descriptors()
    without(monkeypatch, "emissary-forward")
    with pytest.raises(LocalResourceError, match="can't start new thread"):
        forward.__enter__()
    assert descriptors() == before
    monkeypatch.undo()
    dialer.close()
    forward.close()


def test_a_lost_connection_is_replaced_once_there_are_threads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lack of threads is no fault of the peer's, which would end the session."""
    with Bridge(Behaviour(script=echo)) as bridge, OWN.dialer(bridge.url, KEY) as dialer:
        with dialer.dial(TARGET, HANG) as sock:
            (tunnel,) = (each._tunnel for each in drain._open if dialer in each.owners)
            assert isinstance(tunnel, Tunnel)
            tried = threading.Event()

            def start(thread: threading.Thread) -> None:
                if thread.name == "emissary-upgrade" and not tried.is_set():
                    tried.set()
                    raise RuntimeError("can't start new thread")
                real(thread)

            real = threading.Thread.start
            monkeypatch.setattr(threading.Thread, "start", start)
            bridge.behaviour = Behaviour(upgrade_statuses=(410,))  # it lets nobody come back, and says so
            tunnel._link.drop()
            wait_until(lambda: len(bridge.server.requests) > 1, "another attempt")
            assert tried.is_set()
            assert sock.session is not None
            assert sock.session.error is None or sock.session.error.code is not Code.PROTOCOL_ERROR


def test_a_dial_that_cannot_even_reach_itself_keeps_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    def crowded(deadline: Deadline) -> None:
        assert deadline.timeout == 7.0
        raise TimeoutError

    monkeypatch.setattr(module, "tcp_pair", crowded)
    with Bridge() as bridge:
        with pytest.raises(DialTimeoutError, match=r"longer than 7 s; .* loopback connection") as caught:
            OWN.dialer(bridge.url, KEY).dial(TARGET, 7.0)
        assert caught.value.step == "a loopback connection on this machine"
        assert bridge.server.requests == []


def test_silence_is_asked_about_and_an_answer_keeps_the_tunnel() -> None:
    with Bridge() as bridge:
        dialer = OWN.dialer(bridge.url, KEY, keepalive=KeepaliveTimes(interval=0.1, deadline=HANG))

        def pings() -> int:
            return sum(decode(text).type is FrameType.PING for text in list(bridge.messages))

        with dialer.dial(TARGET, HANG) as sock:
            wait_until(lambda: pings() > 1, "a PING, and another after its answer")
            assert sock.session is not None
            assert sock.session.error is None


@pytest.mark.parametrize(
    "url", ["", "https://host/stage", "wss://", "host/stage", "wss://host:x/", "wss://[::1"]
)
def test_a_url_of_no_gateway_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="wss://host/stage"):
        OWN.dialer(url, KEY)
