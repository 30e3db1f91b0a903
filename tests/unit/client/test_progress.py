"""What a dial says while it lasts, and of how long each part of it took."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import threading

import pytest

from emissary_lib.client import handshake
from emissary_lib.client.dialer import Dialer
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import OpenedSession, Upgrade, connect_with_retry, open_session
from emissary_lib.client.progress import Progress
from emissary_lib.exceptions import AnswerLostError, DialTimeoutError, LinkClosedError
from emissary_lib.protocol.session.session import SessionConfig
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.watch import Step, Watch
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge
from tests.helpers.clock import Clock
from tests.helpers.kinds import OWN
from tests.helpers.patience import HANG
from tests.helpers.ws_server import WsServer

LOGGER = "emissary_lib.dial"


class SilentTransport:
    """Takes messages and never has one; waiting for it lets the test's time pass."""

    def __init__(self, clock: Clock, *, says: bytes | None = None) -> None:
        self._clock = clock
        self._says = says

    def send(self, message: bytes, timeout: float | None = None) -> None: ...

    def recv(self, timeout: float | None) -> bytes:
        assert timeout is not None, "nothing would ever end this wait"
        self._clock.advance(timeout)
        if self._says is not None:
            return self._says
        raise TimeoutError

    def close(self) -> None: ...

    release = abort = close


class SlowGateway:
    """Every part of a dial takes as long as a test says, on the test's clock.

    Args:
        attempts: What comes of each attempt in turn: seconds by step, and an error behind them if it fails;
            after the last of them the relay is silent.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        *attempts: tuple[dict[Step, float], Exception | None],
        says: bytes | None = None,
    ) -> None:
        self.clock = Clock()
        self._attempts = list(attempts)
        self._says = says
        patch.setattr(handshake, "connect_once", self._connect)
        patch.setattr(handshake, "back_off", lambda: iter([0.5, 1.0]))

    def dial(self, timeout: float) -> OpenedSession:
        progress = Progress(Target.parse(TARGET), clock=lambda: self.clock.now, sleep=self._sleep)
        deadline = Deadline(timeout, lambda: self.clock.now)
        endpoint = Endpoint("ws://127.0.0.1:1/s")
        return open_session(endpoint, KEY, progress.target, SessionConfig(), deadline, progress)

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _connect(
        self,
        _endpoint: Endpoint,
        _key: object,
        _deadline: Deadline,
        watch: Watch,
        _opening: object,
        *,
        original: bool,
    ) -> Upgrade:
        steps, failure = self._attempts.pop(0)
        for step, seconds in steps.items():
            watch.enter(step)
            self.clock.advance(seconds)
            watch.look(None)
        if failure is not None:
            raise failure
        transport = SilentTransport(self.clock, says=self._says)
        return Upgrade(bytes(32), "Sun, 22 Nov 2026 12:00:00 GMT", transport)  # type: ignore[arg-type]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_a_dial_says_what_it_waits_for_after_two_seconds_and_ever_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    gateway = SlowGateway(monkeypatch, ({"name": 0.1, "TCP": 0.2, "TLS": 0.0, "upgrade": 0.5}, None))
    with pytest.raises(DialTimeoutError):
        gateway.dial(20.0)
    for text, seconds in zip(said(caplog), ("2.0", "4.0", "8.0", "16.0"), strict=False):
        relay = float(seconds) - 0.8
        assert text == (
            f"still dialling db.internal:5432 after {seconds} s: waiting for the relay to start and to reach "
            f"the target (name 0.1 s, TCP 0.2 s, upgrade 0.5 s, relay {relay:.1f} s)"
        )
    assert len(said(caplog)) == 5
    assert said(caplog)[-1].startswith(
        "failed (DialTimeoutError) to dial db.internal:5432 after 20.0 s (name"
    )
    assert {record.levelname for record in caplog.records if record.name == LOGGER} == {"INFO"}


def test_each_step_is_said_by_its_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    for step, words in {
        "name": "the gateway's name to be looked up",
        "TCP": "a TCP connection to the gateway",
        "TLS": "the TLS handshake with the gateway",
        "upgrade": "the gateway's answer to the connection",
    }.items():
        caplog.clear()
        steps: dict[Step, float] = {step: 3.0}  # type: ignore[dict-item]
        with pytest.raises(DialTimeoutError) as caught:
            SlowGateway(monkeypatch, (steps, TimeoutError())).dial(3.0)
        assert f"after 3.0 s: waiting for {words} ({step} 3.0 s)" in said(caplog)[0]
        assert (caught.value.step, caught.value.timings[step]) == (words, 3.0)
        assert f"it was waiting for {words} ({step} 3.0 s). " in str(caught.value)


def test_a_dial_that_ran_out_of_time_says_which_part_took_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: dict[Step, float] = {"upgrade": 0.25}
    gateway = SlowGateway(
        monkeypatch,
        (cut, AnswerLostError("cut")),
        (cut, LinkClosedError("cut")),
        ({"name": 0.25, "upgrade": 0.25}, None),
    )
    with pytest.raises(DialTimeoutError) as caught:
        gateway.dial(20.0)
    assert caught.value.attempts == 3
    assert caught.value.timings == pytest.approx({"name": 0.25, "upgrade": 0.75, "relay": 18.0, "pause": 1.0})
    assert sum(caught.value.timings.values()) == pytest.approx(20.0)
    assert (
        "dialling db.internal:5432 took longer than 20 s; it was waiting for the relay to start and to reach "
        "the target (name 0.2 s, upgrade 0.8 s, relay 18.0 s, pause 1.0 s, 3rd attempt). A first dial starts"
    ) in str(caught.value)


def test_messages_that_the_gateway_did_not_pass_on_are_named_instead_of_the_relay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bridge that fails at every message, and no relay at all, look alike to who waits."""
    gateway = SlowGateway(monkeypatch, ({"upgrade": 0.5}, None), says=b'{"message": "Internal server error"}')
    with pytest.raises(
        DialTimeoutError, match=r"did not pass on \d+ of its messages: see the log of \$default"
    ):
        gateway.dial(20.0)


def test_they_are_named_while_the_dial_lasts_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    gateway = SlowGateway(monkeypatch, ({"upgrade": 0.5}, None), says=b'{"message": "Internal server error"}')
    with pytest.raises(DialTimeoutError):
        gateway.dial(20.0)
    words = r"the relay to .*; the gateway did not pass on \d+ of its messages: see the log of \$default \("
    assert re.search(words, said(caplog)[0])


def test_a_dial_counts_what_goes_wrong_with_another_that_it_waits_for() -> None:
    counters, clock = Counters(), Clock()
    starts, waits, later = (Progress(Target("db", 1), clock=lambda: clock.now) for _ in range(3))
    starts.follow(counters)
    counters.gateway_errors = 2
    for _ in range(2):
        waits.follow(starts)
        later.follow(counters, since_now=True)
    assert (starts.gateway_errors, waits.gateway_errors, later.gateway_errors) == (2, 2, 0)
    counters.gateway_errors = 3
    assert (starts.gateway_errors, waits.gateway_errors, later.gateway_errors) == (3, 3, 1)
    said = str(waits.timeout_error(Deadline(5.0, lambda: clock.now)))
    assert said.endswith("The gateway did not pass on 3 of its messages: see the log of $default")


def test_a_pause_between_attempts_is_talked_over_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    clock = Clock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    Progress(Target("db", 1), clock=lambda: clock.now, sleep=sleep).pause(5.0, Deadline(None))
    assert slept == [2.0, 2.0, 1.0]
    assert [text.partition(": ")[2] for text in said(caplog)] == [
        "waiting for the next attempt (pause 2.0 s)",
        "waiting for the next attempt (pause 4.0 s)",
    ]


def test_a_pause_ends_with_its_deadline() -> None:
    """Which passes sooner than it was to, for one, when the program that waits has hung up."""
    clock = Clock()
    progress = Progress(Target("db", 1), clock=lambda: clock.now, sleep=clock.advance)
    progress.pause(5.0, Deadline(1.0, lambda: clock.now))
    assert clock.now == 1001.0


def test_a_dial_that_is_quick_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    with Bridge() as bridge:
        OWN.dialer(bridge.url, KEY).dial(TARGET, HANG).close()
    assert [text for text in said(caplog) if "still" not in text and "after" not in text] == []
    quick = Progress(Target("db", 1))
    quick.end()
    assert "db:1" not in caplog.text


def test_whoever_has_configured_no_logging_hears_nothing() -> None:
    program = """
from emissary_lib.client.progress import Progress
from emissary_lib.protocol.targets.allow_list import Target
now = 0.0
progress = Progress(Target("db", 1), clock=lambda: now)
now = 10.0
progress.look(None)
progress.end(TimeoutError())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Steps(Watch):
    """Notes the steps, and lets a test know of one."""

    def __init__(self) -> None:
        self.seen: list[Step] = []

    def enter(self, step: Step) -> None:
        self.seen.append(step)


def test_the_steps_of_a_connection_come_in_order() -> None:
    steps = Steps()
    with Bridge() as bridge:
        upgrade = connect_with_retry(Endpoint(bridge.url), KEY, Deadline(HANG), steps)
        upgrade.transport.close()
        upgrade.transport.release()
    assert steps.seen == ["name", "TCP", "upgrade"]


def test_a_server_that_is_silent_in_tls_is_named_as_such() -> None:
    with WsServer(raw=lambda sock: server.wait_closing()) as server:
        with pytest.raises(DialTimeoutError) as caught:
            Dialer(server.url.replace("ws://", "wss://"), KEY).dial(TARGET, 1.0)
    assert caught.value.step == "the TLS handshake with the gateway"
    assert caught.value.attempts == 1
    assert "firewall" in str(caught.value)


def test_an_attempt_that_was_given_up_is_not_heard_of_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread may come back from the name server when the dial is elsewhere."""
    answered, over = threading.Event(), threading.Event()

    def getaddrinfo(*_args: object, **_options: object) -> list[object]:
        assert answered.wait(HANG)
        return []

    def shutdown(_self: object) -> None:
        over.set()

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("websocket.WebSocket.shutdown", shutdown)
    steps = Steps()
    with pytest.raises(TimeoutError):
        connect_with_retry(Endpoint("wss://gateway.invalid/s"), KEY, Deadline(0.2), steps)
    answered.set()
    assert over.wait(HANG)
    assert steps.seen == ["name"]


def test_who_waits_for_the_upgrade_is_told_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    clock = Clock()

    class Virtual(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            clock.advance(timeout)
            if clock.now >= 1009.0:
                self.set()
            return self.is_set()

    progress = Progress(Target("db", 1), clock=lambda: clock.now)
    event = Virtual()
    progress.wait(event, Deadline(None, lambda: clock.now))
    assert event.is_set()
    assert len(said(caplog)) == 3
    progress.wait(Virtual(), Deadline(1.0, lambda: clock.now))  # ends with its deadline


def test_a_timed_out_dial_over_a_real_connection_has_its_timings() -> None:
    with Bridge(Behaviour(silent=True)) as bridge, pytest.raises(DialTimeoutError) as caught:
        OWN.dialer(bridge.url, KEY).dial(TARGET, 2.0)
    assert list(caught.value.timings)[-1] in ("upgrade", "relay")
    assert sum(caught.value.timings.values()) >= 1.9
