"""Whatever stands at the URL sends, at whatever pace: each call ends in its time, with a declared error."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary_lib.client import handshake, health
from emissary_lib.client.dialer import Dialer
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import GIVE_UP_WAIT, Upgrade, open_session
from emissary_lib.client.progress import Progress
from emissary_lib.client.resume import ResumeUpgrade
from emissary_lib.client.settings import SettingsReader
from emissary_lib.doctor import long_messages
from emissary_lib.doctor import probe as doctor_probe
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.probe import SessionProbe
from emissary_lib.doctor.run import Dependencies, examine
from emissary_lib.exceptions import EmissaryError, LinkClosedError, TransportError
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.session.session import SessionConfig
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.transport.websocket import WebSocketTransport
from tests.helpers.clock import Clock
from tests.helpers.hostile import FLOODS, HEADS, LATE, Script, Torrent, play
from tests.helpers.memory_transport import linked_pair
from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, WsServer, frame_bytes, refusal

KEY: Final = Key(7, bytes(range(32)))
TARGET: Final = Target("db.internal", 5432)
ENDPOINT: Final = Endpoint("ws://127.0.0.1:1/x")

#: What each call is given, in seconds of the test's clock.
TIMEOUT: Final = 1.0

#: The same on real sockets, where it passes.
SHORT: Final = 0.2

FRAMES: Final = st.builds(
    frame_bytes,
    st.sampled_from([0, 1, 2, 8, 9, 10, 11]),
    st.binary(max_size=200) | st.sampled_from([b"{{{{", b"AAAA"]),
    fin=st.booleans(),
)
BYTES: Final = st.lists(FRAMES | st.binary(max_size=20), max_size=4).map(b"".join)
SCRIPTS: Final = st.builds(
    Script,
    start=BYTES,
    again=BYTES,
    pace=st.sampled_from([0.001, 0.01, 0.3]),
    ends=st.booleans(),
    takes=st.sampled_from([None, 0, 1000]),
)


# -- in memory: all time is the test's ------------------------------------------------------------


class HostileGateway:
    """Lets everybody in, and follows its script with each; nothing takes time but what the clock says."""

    def __init__(self, script: Script, patch: pytest.MonkeyPatch) -> None:
        self.script = script
        self.clock = Clock()
        self.began = self.clock.now
        patch.setattr(handshake, "connect_once", self._connect)
        patch.setattr(health, "connect_with_retry", self._connect)
        patch.setattr(long_messages, "connect_with_retry", self._connect)
        patch.setattr(doctor_probe, "connect_once", self._connect)
        patch.setattr(doctor_probe, "Deadline", self.deadline)

    def deadline(self, seconds: float) -> Deadline:
        return Deadline(seconds, self._now)

    def progress(self) -> Progress:
        return Progress(TARGET, clock=self._now, sleep=self._sleep)

    def _now(self) -> float:
        return self.clock.now

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _connect(self, *_args: object, original: bool = False) -> Upgrade:
        stream = cast(ByteStream, Torrent(self.script, self.clock))
        transport = WebSocketTransport(stream, "ws://hostile", self._now)
        return Upgrade(secrets.token_bytes(32), "Sun, 22 Nov 2026 12:00:00 GMT", transport)

    def assert_in_time(self, seconds: float) -> None:
        late = self.clock.now - self.began - seconds
        assert late <= LATE * self.script.pace + 1e-6, f"{late} s too late"


def walk_virtually(script: Script) -> None:
    with pytest.MonkeyPatch.context() as patch:
        gateway = HostileGateway(script, patch)
        with pytest.raises(EmissaryError):
            open_session(
                ENDPOINT, KEY, TARGET, SessionConfig(), gateway.deadline(TIMEOUT), gateway.progress()
            )
        gateway.assert_in_time(TIMEOUT)

        gateway = HostileGateway(script, patch)
        with pytest.raises((EmissaryError, TimeoutError)):
            health.check_health(ENDPOINT, KEY, gateway.deadline(TIMEOUT))
        gateway.assert_in_time(TIMEOUT)

        gateway = HostileGateway(script, patch)
        with pytest.raises((EmissaryError, TimeoutError)):
            long_messages.send_longest(ENDPOINT, KEY, gateway.deadline(TIMEOUT))
        gateway.assert_in_time(TIMEOUT)

        gateway = HostileGateway(script, patch)
        probe = SessionProbe(ENDPOINT, KEY, time.monotonic)
        probe.connect_once(TIMEOUT)
        steps: list[Callable[[], object]] = [
            lambda: probe.prove(TIMEOUT),
            lambda: probe.dial(TARGET, TIMEOUT),
            lambda: probe.ping(TIMEOUT),
            lambda: probe.request(b"?", lambda data, ended: None, TIMEOUT),
        ]
        for step in steps:
            with contextlib.suppress(EmissaryError, TimeoutError):
                step()
        probe.close()
        gateway.assert_in_time(len(steps) * TIMEOUT + 2 * GIVE_UP_WAIT)


@pytest.mark.parametrize("script", FLOODS.values(), ids=FLOODS)
def test_each_call_ends_in_its_time_with_each_flood(script: Script) -> None:
    walk_virtually(script)


@given(SCRIPTS)
def test_each_call_ends_in_its_time_whatever_comes(script: Script) -> None:
    walk_virtually(script)


# -- on real sockets: a few of each ---------------------------------------------------------------


@contextlib.contextmanager
def hostile_server(script: Script, *, upgrades: bool) -> Iterator[WsServer]:
    closing = threading.Event()

    def closed() -> Iterator[bool]:
        return (closing.is_set() for _ in itertools.count())

    def serve(peer: Peer) -> None:
        play(script, peer.sock, closed())

    def instead(sock: socket.socket) -> None:
        play(script, sock, closed())

    def answer(request: object) -> bytes | None:
        return None if "sec-websocket-key" in getattr(request, "headers", {}) else refusal(403)

    made = WsServer(serve, answer=answer) if upgrades else WsServer(raw=instead)
    with made as server:
        try:
            yield server
        finally:
            closing.set()


def error_of(call: Callable[[], object]) -> BaseException | None:
    """What a call raises, which must be over before it would count as a hang."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as exc:
            outcome.append(exc)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG)
    assert outcome, "it never returned"
    return outcome[0]


def resume(url: str) -> None:
    attempt = ResumeUpgrade(Endpoint(url), KEY, "ab" * 32, bytes(32))
    transport = ReconnectingTransport(linked_pair()[0], attempt.connect)
    try:
        transport.reconnect(2, Deadline(SHORT))
        transport.recv(SHORT)
    finally:
        transport.close()
        transport.release()


def examine_all(url: str) -> None:
    environ = {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}
    made = Settings(SettingsReader(environ, default_file=None), lambda url: None, SHORT)
    report = examine(made, TARGET, None, dependencies=Dependencies(sleep=lambda seconds: None))
    assert report.failed_check is not None


def walk_really(script: Script, *, upgrades: bool) -> None:
    with hostile_server(script, upgrades=upgrades) as server, Dialer(server.url, KEY) as dialer:
        assert isinstance(error_of(lambda: dialer.dial("db.internal:5432", SHORT)), EmissaryError)
        assert isinstance(error_of(lambda: dialer.health(SHORT)), EmissaryError | TimeoutError)
        assert isinstance(error_of(lambda: resume(server.url)), TransportError | TimeoutError | None)
        assert error_of(lambda: examine_all(server.url)) is None


@pytest.mark.parametrize("script", FLOODS.values(), ids=FLOODS)
def test_each_call_ends_behind_a_101_with_each_flood(script: Script) -> None:
    walk_really(script, upgrades=True)


@pytest.mark.parametrize("script", HEADS.values(), ids=HEADS)
def test_each_call_ends_without_a_101_with_each_head(script: Script) -> None:
    walk_really(script, upgrades=False)


@settings(max_examples=5)
@given(SCRIPTS.map(lambda script: dataclasses.replace(script, takes=None)), st.booleans())
def test_each_call_ends_whatever_comes(script: Script, upgrades: bool) -> None:
    walk_really(script, upgrades=upgrades)


def test_a_link_that_is_closed_reads_no_more_of_a_flood() -> None:
    """The kernel hands out what it has first, before it tells of the end: megabytes of pongs."""
    with hostile_server(FLOODS["pongs"], upgrades=True) as server:
        attempt = ResumeUpgrade(Endpoint(server.url), KEY, "ab" * 32, bytes(32))
        transport = attempt.connect(2, Deadline(HANG))
        reader = threading.Thread(target=lambda: error_of(lambda: transport.recv(None)))
        reader.start()
        transport.close()
        assert isinstance(error_of(lambda: transport.recv(None)), LinkClosedError)
        reader.join(HANG)
        assert not reader.is_alive()
        transport.release()
