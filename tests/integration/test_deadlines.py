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

from emissary_lib import RelayDeadlineError
from emissary_lib.bridge.session import LONGEST_RELAY_TIME
from emissary_lib.client.socket import SessionInfo, TunnelSocket
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import GoAway, Reset
from emissary_local import Faults, LocalCloud
from tests.helpers.cuts import edited_template
from tests.helpers.kinds import OWN, Kind
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    dialer_of,
    relay_returned,
)
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import Server, echo

pytestmark = LINUX_ONLY

#: The dialer's watch, in seconds: it asks after one second of silence, and waits some more for the answer. An
#: answer that a busy machine gives too late costs a connection, and nothing else.
TIMES = KeepaliveTimes(interval=1.0, when_unacked=0.5, deadline=2.0, repeat=0.3)

#: The relay's. Nobody is given up on here.
RELAY = {"ping": 1.0, "pong": 2.0, "probe": 1.0, "grace": 2 * HANG}

#: The relay's time limit where it is to be met, in seconds: it runs from the start of a warm relay. One that
#: can be shared takes no connections in its last half minute: its end is met in test_shared_relays.py.
LIMIT = 8

#: And where it is not: longer than any test.
LONG = 10 * HANG


@pytest.fixture(scope="module")
def watchful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A cloud whose relays ask early."""
    template = edited_template(tmp_path_factory.mktemp("watchful"), **RELAY)
    with LocalCloud(template, parameters=PARAMETERS) as running:
        yield running


@pytest.fixture(scope="module")
def short(cloud: LocalCloud) -> Iterator[LocalCloud]:
    """A cloud whose relays run for :data:`LIMIT` seconds, and whose functions are warm."""
    cloud.set_timeout("RelayFunction", LIMIT)
    try:
        with Server(echo) as target, dialer_of(cloud, **OWN.options) as dialer:
            dialer.dial(target, DIAL).close()
        yield cloud
    finally:
        cloud.set_timeout("RelayFunction", LONG)


@contextlib.contextmanager
def echoed(
    cloud: LocalCloud, kind: Kind, times: KeepaliveTimes = TIMES
) -> Iterator[tuple[TunnelSocket, SessionInfo]]:
    """A dialer's socket to a target that echoes, watched as ``times`` says; and its session."""
    with (
        Server(echo) as target,
        dialer_of(cloud, keepalive=times, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        info = sock.session
        assert info is not None
        yield sock, info


# -- connections that die without a word ------------------------------------------------------


@pytest.mark.parametrize(
    "side", ["both", *(pytest.param(side, marks=pytest.mark.slow) for side in ("dialer", "relay"))]
)
def test_silent_death_under_a_transfer_is_noticed_and_costs_no_byte(
    watchful: LocalCloud, kind: Kind, side: str
) -> None:
    data = random.Random(side).randbytes(6_000_000)
    received = bytearray()
    with echoed(watchful, kind) as (sock, info):

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, name="user's sender")
        sender.start()
        while len(received) < 1_000_000:
            received += sock.recv(65_536)
        assert watchful.cut(side, "silent", -1) == (2 if side == "both" else 1)
        while piece := sock.recv(65_536):
            received += piece
        sender.join(HANG)
    assert received == data
    assert info.error is None
    if side != "relay":
        assert info.counters.resumes >= 1
    assert audit_record(watchful, info.id)["code"] == "OK"


def test_silent_death_of_an_idle_connection_is_noticed(watchful: LocalCloud, kind: Kind) -> None:
    with echoed(watchful, kind) as (sock, info):
        assert watchful.cut("dialer", "silent", -1) == 1
        wait_until(lambda: info.counters.link_losses, "the dialer's notice")
        sock.sendall(b"still there?")
        assert sock.recv(100) == b"still there?"


def test_watch_alone_keeps_a_healthy_connection(watchful: LocalCloud, kind: Kind) -> None:
    patient = KeepaliveTimes(interval=0.5, when_unacked=0.5, deadline=HANG, repeat=HANG)
    with echoed(watchful, kind, patient) as (sock, info):
        before = info.counters.pongs
        wait_until(lambda: info.counters.pongs > before + 2, "three answers")
        assert info.counters.link_losses == 0
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


# -- the relay's end --------------------------------------------------------------------------


def test_end_of_the_relay_is_announced_and_then_told(short: LocalCloud) -> None:
    with Server(echo) as target, RawDialer(short.url, short.key) as raw:
        opening = raw.opening(target)
        began = time.monotonic()
        raw.send(FrameType.OPENING, opening)
        parameters, data = raw.opened()
        raw.send(FrameType.ACK, offset=len(opening), ack=len(data), generation=2)
        assert 0 < parameters.remaining <= LIMIT * 1000
        # Due from the start here, so that it may have overtaken OPENED.
        early = [decode(text) for text in raw.others if not text.startswith(b"{")]
        aways = [frame for frame in early if frame.type is FrameType.GOAWAY]
        away = GoAway.decode((aways or [raw.receive(FrameType.GOAWAY)])[0].payload)
        assert away.code == Code.RELAY_DEADLINE
        assert 0 < away.remaining <= 10_000
        reset = Reset.decode(raw.receive(FrameType.RESET).payload)
        assert reset.code == Code.RELAY_DEADLINE
        assert time.monotonic() - began > parameters.remaining / 1000 - 0.1  # and not before
        relay_returned(short, raw.session)


@pytest.mark.slow
def test_old_tunnel_meets_its_deadline_while_a_new_dial_gets_all_its_time(short: LocalCloud) -> None:
    least = LIMIT * 0.8  # after which a relay says that it is about to end
    began = time.time()
    with (
        Server(echo) as target,
        dialer_of(short, **OWN.options) as dialer,
        dialer.dial(target, DIAL) as old,
    ):
        old.settimeout(HANG)
        first = old.session
        assert first is not None
        assert began + least < first.expires_at <= time.time() + LIMIT
        old.sendall(b"x")
        assert old.recv(1) == b"x"
        # On a busy machine the test itself may take as long as the relay may: the new one may take longer.
        short.set_timeout("RelayFunction", LONG)
        dialled = time.time()
        with dialer.dial(target, DIAL) as new:
            short.set_timeout("RelayFunction", LIMIT)
            new.settimeout(HANG)
            second = new.session
            assert second is not None
            assert dialled + LONG - LIMIT < second.expires_at <= time.time() + LONG
            with pytest.raises(RelayDeadlineError, match="relay reached its limit of") as caught:
                old.recv(1)
            assert isinstance(first.error, RelayDeadlineError)
            assert "outcome of a statement that was running is unknown" in str(caught.value)
            named = re.search(r"its limit of (\d+) s ", str(caught.value))
            assert named is not None
            assert int(named[1]) <= LIMIT
            assert isinstance(caught.value, ConnectionResetError)
            assert first.going_away
            assert time.time() > began + least
            new.sendall(b"unaffected")
            assert new.recv(100) == b"unaffected"
            assert second.error is None
    assert relay_returned(short, first.id) == "RELAY_DEADLINE"
    assert audit_record(short, first.id)["code"] == "RELAY_DEADLINE"
    assert "Task timed out" not in short.logs("RelayFunction")  # it ended by itself, in good order


def test_a_session_gets_as_much_time_as_the_template_says() -> None:
    parameters = {**PARAMETERS, "RelayTimeout": f"{LONGEST_RELAY_TIME:g}"}
    with LocalCloud(TEMPLATE, parameters=parameters) as cloud, Server(echo) as target:
        dialled = time.time()
        with dialer_of(cloud, **OWN.options) as dialer, dialer.dial(target, DIAL) as sock:
            assert sock.session is not None
            least = dialled + LONGEST_RELAY_TIME - HANG
            assert least < sock.session.expires_at <= time.time() + LONGEST_RELAY_TIME


@pytest.mark.slow
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

    with (
        Server(told) as target,
        dialer_of(short, **OWN.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        info = sock.session
        assert info is not None
        if trouble == "silent":
            assert short.cut("relay", "silent", -1) == 1
        else:
            short.set_faults(Faults(seed=1, message_500=1.0))
        try:
            assert ended.wait(HANG)
            assert relay_returned(short, info.id) == "RELAY_DEADLINE"
        finally:
            short.set_faults(Faults(seed=1))
        sock.settimeout(HANG)
        with pytest.raises(RelayDeadlineError):
            sock.recv(1)
    assert [type(failure) for failure in failures] == [ConnectionResetError]


@pytest.mark.slow
def test_dialer_that_is_cut_off_at_the_relays_end_hears_of_it(short: LocalCloud) -> None:
    with (
        Server(echo) as target,
        dialer_of(short, **OWN.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        info = sock.session
        assert info is not None
        short.set_faults(Faults(seed=1, connect_500=1.0))
        try:
            assert short.cut("dialer", "reset", -1) == 1
            assert relay_returned(short, info.id) == "RELAY_DEADLINE"
        finally:
            short.set_faults(Faults(seed=1))
        with pytest.raises(RelayDeadlineError):
            sock.recv(1)
