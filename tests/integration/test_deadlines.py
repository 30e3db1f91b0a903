"""Everything that can be silent has a deadline: connections that die without a word, and the relay."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib import Dialer, LocalCloud, RelayDeadlineError
from emissary_lib.client.socket import SessionInfo, TunnelSocket
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import GoAway, Reset
from emissary_local import Faults
from tests.helpers.cloudside import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    SOON,
    audit_record,
    eventually,
    relay_returned,
)
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import Server, echo
from tests.helpers.trouble import edited_template

pytestmark = LINUX_ONLY

#: The dialer's watch, in seconds: it asks after one second of silence, and waits one more for the answer.
TIMES = KeepaliveTimes(interval=1.0, when_unacked=0.5, deadline=1.0, repeat=0.3)

#: The relay's: silence of 2 s (PING and PONG), or 1 s with data unacknowledged; then half a second.
RELAY = {"ping": 1.0, "pong": 1.0, "probe": 1.0, "grace": 10.0}

#: What a busy machine may add to a deadline, and coming back takes, in seconds.
MARGIN = 5.0

#: The relay's time limit where it is to be met.
LIMIT = 6


@pytest.fixture(scope="module")
def watchful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A cloud whose relays ask early."""
    template = edited_template(tmp_path_factory.mktemp("watchful"), **RELAY)
    with LocalCloud(template, parameters=PARAMETERS) as running:
        yield running


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A cloud whose relays run for :data:`LIMIT` seconds."""
    template = edited_template(tmp_path_factory.mktemp("short"), timeout=LIMIT)
    with LocalCloud(template, parameters=PARAMETERS) as running:
        yield running


@contextlib.contextmanager
def echoed(cloud: LocalCloud) -> Iterator[tuple[TunnelSocket, SessionInfo]]:
    """A dialer's socket to a target that echoes, watched as :data:`TIMES` says; and its session."""
    with (
        Server(echo) as target,
        Dialer(cloud.url, cloud.key, keepalive=TIMES) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(SOON)
        info = sock.session
        assert info is not None
        yield sock, info


# -- connections that die without a word ------------------------------------------------------


@pytest.mark.parametrize("side", ["dialer", "relay", "both"])
def test_silent_death_under_a_transfer_is_noticed_and_costs_no_byte(watchful: LocalCloud, side: str) -> None:
    data = random.Random(side).randbytes(6_000_000)
    received = bytearray()
    with echoed(watchful) as (sock, info):

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, name="user's sender")
        sender.start()
        while len(received) < 1_000_000:
            received += sock.recv(65_536)
        assert watchful.cut(side, "silent", -1) == (2 if side == "both" else 1)
        began = longest = time.monotonic()
        longest = 0.0
        while piece := sock.recv(65_536):
            now = time.monotonic()
            longest, began = max(longest, now - began), now
            received += piece
        sender.join(SOON)
    assert received == data
    assert info.error is None
    if side != "relay":
        assert info.counters.resumes == 1
    # At worst both: the relay's own notice comes after the dialer's question has gone unanswered.
    assert longest < TIMES.interval + TIMES.deadline + RELAY["ping"] + RELAY["pong"] + MARGIN
    assert audit_record(watchful, info.id)["code"] == "OK"


def test_silent_death_of_an_idle_connection_is_noticed_within_interval_and_deadline(
    watchful: LocalCloud,
) -> None:
    with echoed(watchful) as (sock, info):
        assert watchful.cut("dialer", "silent", -1) == 1
        began = time.monotonic()
        eventually(lambda: info.counters.link_losses or None, "the dialer's notice")
        assert time.monotonic() - began < TIMES.interval + TIMES.deadline + 1.0
        sock.sendall(b"still there?")
        assert sock.recv(100) == b"still there?"


def test_watch_alone_keeps_a_healthy_connection(watchful: LocalCloud) -> None:
    with echoed(watchful) as (sock, info):
        before = info.counters.messages_sent
        eventually(lambda: info.counters.messages_sent > before + 2 or None, "three questions")
        assert info.counters.link_losses == 0
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


# -- the relay's end --------------------------------------------------------------------------


def test_end_of_the_relay_is_announced_and_then_told(short: LocalCloud) -> None:
    with Server(echo) as target, RawDialer(short.url, short.key) as raw:
        opening = raw.opening(target)
        raw.send(FrameType.OPENING, opening)
        parameters, data = raw.opened()
        began = time.monotonic()
        raw.send(FrameType.ACK, offset=len(opening), ack=len(data), generation=2)
        assert 0 < parameters.remaining <= LIMIT * 1000
        # Due from the start here, so that it may have overtaken OPENED.
        early = [decode(text) for text in raw.others if not text.startswith("{")]
        aways = [frame for frame in early if frame.type is FrameType.GOAWAY]
        away = GoAway.decode((aways or [raw.receive(FrameType.GOAWAY)])[0].payload)
        assert away.code == Code.RELAY_DEADLINE
        assert 0 < away.remaining <= 10_000
        reset = Reset.decode(raw.receive(FrameType.RESET).payload)
        assert reset.code == Code.RELAY_DEADLINE
        assert time.monotonic() - began == pytest.approx(parameters.remaining / 1000, abs=2.0)
        relay_returned(short, raw.session)


def test_old_tunnel_meets_its_deadline_while_a_new_dial_gets_all_its_time(short: LocalCloud) -> None:
    with Server(echo) as target, Dialer(short.url, short.key) as dialer, dialer.dial(target, DIAL) as old:
        old.settimeout(SOON)
        dialled = time.time()
        first = old.session
        assert first is not None
        assert LIMIT - 3 < first.expires_at - dialled <= LIMIT
        old.sendall(b"x")
        assert old.recv(1) == b"x"
        old.settimeout(max(0.1, first.expires_at - time.time() - 2.0))
        with pytest.raises(TimeoutError):
            old.recv(1)  # nothing comes before the deadline, not even the end
        old.settimeout(SOON)
        with dialer.dial(target, DIAL) as new:
            new.settimeout(SOON)
            second = new.session
            assert second is not None
            assert second.expires_at > first.expires_at + 2.0
            with pytest.raises(RelayDeadlineError, match="relay reached its limit of") as caught:
                old.recv(1)
            named = re.search(r"its limit of (\d+) s ", str(caught.value))
            assert named is not None and LIMIT - 5 < int(named[1]) <= LIMIT
            assert isinstance(caught.value, ConnectionResetError)
            assert first.going_away
            assert abs(time.time() - first.expires_at) < 3.0
            new.sendall(b"unaffected")
            assert new.recv(100) == b"unaffected"
            assert second.error is None


@pytest.mark.parametrize("trouble", ["nobody confirms", "silent"])
def test_relay_lets_go_of_its_target_and_returns_in_time_though_nobody_hears_of_its_end(
    short: LocalCloud, trouble: str
) -> None:
    """Else Lambda kills it at the limit: no line in the log, and nothing, or a clean end, for the target."""
    failures: list[OSError] = []
    ended = threading.Event()

    def told(connection: socket.socket) -> None:
        try:
            echo(connection)
        except OSError as exc:
            failures.append(exc)
        ended.set()

    with Server(told) as target, Dialer(short.url, short.key) as dialer, dialer.dial(target, DIAL) as sock:
        info = sock.session
        assert info is not None
        sock.settimeout(max(0.1, info.expires_at - time.time() - 0.5))
        with pytest.raises(TimeoutError):
            sock.recv(1)
        if trouble == "silent":
            assert short.cut("relay", "silent", -1) == 1
        else:
            short.set_faults(Faults(seed=1, message_500=1.0))
        try:
            assert ended.wait(SOON)
            assert relay_returned(short, info.id) == "RELAY_DEADLINE"
        finally:
            short.set_faults(Faults(seed=1))
        sock.settimeout(SOON)
        with pytest.raises(RelayDeadlineError):
            sock.recv(1)
    assert [type(failure) for failure in failures] == [ConnectionResetError]


def test_dialer_cut_off_just_before_the_relays_end_hears_of_it(short: LocalCloud) -> None:
    with Server(echo) as target, Dialer(short.url, short.key) as dialer, dialer.dial(target, DIAL) as sock:
        sock.settimeout(SOON)
        info = sock.session
        assert info is not None
        sock.settimeout(max(0.1, info.expires_at - time.time() - 1.0))
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(SOON)
        assert short.cut("dialer", "reset", -1) == 1
        with pytest.raises(RelayDeadlineError):
            sock.recv(1)
