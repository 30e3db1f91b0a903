"""A host that slept is noticed, by the clock and by the driver of a tunnel (docs/protocol.md section 4.7)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.tunnel.driver import Tunnel
from emissary_lib.tunnel.loopback import tcp_pair
from emissary_lib.tunnel.suspend import LATE, LOOK, SuspendDetector
from tests.helpers.clock import Clock
from tests.helpers.patience import HANG, wait_until
from tests.helpers.tunnels import FakeLink

NIGHT = 8 * 3600.0


class Host(SuspendDetector):
    """A host that can sleep: its sleepless clock goes on, while timers and ``select`` stand still.

    Args:
        look: Seconds between two looks, so that no test has to wait for the usual ones.
    """

    def __init__(self, look: float = LOOK) -> None:
        self._time = Clock()
        self._every = look
        super().__init__(lambda: self._time.now)

    def sleep(self, seconds: float) -> None:
        self._time.advance(seconds)

    def cap(self, timeout: float | None) -> float:
        return min(super().cap(timeout), self._every)


class Waiting:
    """A tunnel that has nothing to do for minutes.

    Attributes:
        link: What it says goes there.
    """

    def __init__(self, host: Host, role: Role, keepalive: KeepaliveTimes) -> None:
        config = SessionConfig(
            peer_epoch=1,
            keepalive=keepalive if role is Role.DIALER else None,
            probing=ProbeTimes() if role is Role.RELAY else None,
        )
        session = Session(role, config, now=time.monotonic())
        session.finish_opening()
        ours, self.user = tcp_pair()
        self.link = FakeLink()
        self._on_idle = threading.Event()
        self.tunnel = Tunnel(session, self.link, ours, on_idle=self._on_idle.set, suspend_detector=host)
        self._thread = threading.Thread(target=self.tunnel.run)
        self._thread.start()
        assert self._on_idle.wait(HANG)

    @property
    def pings(self) -> int:
        return sum(frame.type is FrameType.PING for frame in self.link.sent)

    def turn(self) -> None:
        """Let the driver's ``select`` return, and see it through what it does then."""
        self._on_idle.clear()
        self.tunnel.wake()
        assert self._on_idle.wait(HANG)

    def end(self) -> None:
        self.user.close()
        self.tunnel.abort(Code.DIALER_RESET, "the test is over")
        self._thread.join(HANG)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def tunnel_on(host: Host, role: Role = Role.DIALER, **times: float) -> Iterator[Waiting]:
    tunnel = Waiting(host, role, KeepaliveTimes(**times))
    try:
        yield tunnel
    finally:
        tunnel.end()


@pytest.mark.parametrize(("timeout", "capped"), [(None, LOOK), (239.9, LOOK), (0.2, 0.2), (0.0, 0.0)])
def test_no_wait_is_longer_than_until_the_next_look(timeout: float | None, capped: float) -> None:
    assert SuspendDetector().cap(timeout) == capped


def test_every_standstill_longer_than_a_look_may_be_late_is_noticed_once() -> None:
    clock = Clock()
    suspend_detector = SuspendDetector(lambda: clock.now)
    for seconds, suspended in ((LOOK, False), (LOOK + LATE, False), (LOOK + LATE + 0.1, True), (NIGHT, True)):
        clock.advance(seconds)
        assert (suspend_detector.look(), suspend_detector.look()) == (suspended, False)


def test_a_select_that_returned_late_is_followed_by_a_ping_at_once() -> None:
    host = Host()
    with tunnel_on(host) as tunnel:
        host.sleep(NIGHT)
        tunnel.turn()
        assert tunnel.pings == 1
        tunnel.turn()
        assert tunnel.pings == 1  # once


def test_a_wait_that_was_not_longer_than_usual_costs_no_ping() -> None:
    host = Host()
    with tunnel_on(host) as tunnel:
        for _turn in range(3):
            host.sleep(LOOK)
            tunnel.turn()
        assert tunnel.pings == 0


def test_a_sleep_is_noticed_though_nothing_happens_on_waking() -> None:
    """Symptom: timers stood still with the host, so a tunnel asked only when its four minutes were over."""
    host = Host(look=0.01)
    with tunnel_on(host) as tunnel:
        host.sleep(60.0)
        wait_until(lambda: tunnel.pings == 1, "the PING")


def test_a_connection_that_died_asleep_is_replaced_within_the_pings_deadline() -> None:
    host = Host()
    with tunnel_on(host, deadline=0.2, repeat=0.1) as tunnel:
        host.sleep(NIGHT)
        began = time.monotonic()
        tunnel.tunnel.wake()
        wait_until(lambda: tunnel.link.dropped, "the dead connection is given up")
        assert time.monotonic() - began >= 0.2


def test_a_relay_that_stood_still_says_nothing() -> None:
    host = Host()
    with tunnel_on(host, Role.RELAY) as tunnel:
        said = len(tunnel.link.sent)
        host.sleep(NIGHT)
        tunnel.turn()
        assert len(tunnel.link.sent) == said
