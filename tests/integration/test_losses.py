"""What goes wrong on AWS between two ends, each thing often: the bytes arrive whole, the end is clean."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from collections.abc import Callable, Mapping

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import AnswerLostError
from emissary_local import Faults, LocalCloud
from emissary_local.faults import FaultEngine, Site
from tests.helpers.kinds import KINDS, Kind
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS, TEMPLATE, audit_record, dialer_of
from tests.helpers.patience import HANG, wait_until
from tests.helpers.servers import Server, echo

pytestmark = [LINUX_ONLY, pytest.mark.slow]

SIZE = 1_000_000

#: Longest dial, and longest silence of the user's socket, in seconds: retransmissions back off, and posts
#: hang for 3 s each.
PATIENCE = 3 * HANG


def exchange(sock: socket.socket, seed: int, size: int = SIZE) -> bool:
    """Send ``size`` bytes while they come back; whether those that came are those that were sent."""
    data = random.Random(seed).randbytes(size)
    sender = threading.Thread(target=sock.sendall, args=(data,), name="user's sender", daemon=True)
    sender.start()
    back = bytearray()
    while len(back) < size and (piece := sock.recv(1 << 20)):
        back += piece
    sender.join(PATIENCE)
    return back == data


def session_id_of(sock: object) -> str:
    info = getattr(sock, "session", None)
    assert info is not None
    assert info.error is None
    return str(info.id)


def happened(cloud: LocalCloud, kinds: list[str], before: Mapping[str, int]) -> bool:
    """Whether each kind of fault has been met since ``fault_counts`` was ``before``."""
    return all(cloud.fault_counts.get(kind, 0) > before.get(kind, 0) for kind in kinds)


def each_with_a_kind(names: Mapping[str, object]) -> list[tuple[str, Kind]]:
    """Every other with a relay that can be shared: what goes wrong is below that."""
    return list(zip(names, itertools.cycle(KINDS)))


def lives_through(
    cloud: LocalCloud,
    kind: Kind,
    faults: Faults,
    kinds: list[str],
    *,
    least: int,
    one_round: Callable[[socket.socket, int], None],
) -> None:
    """Open a session, have it live through rounds in which ``faults`` happen, and end it clean.

    Args:
        cloud: Where; rid of its faults afterwards.
        kind: Of the dialer.
        faults: What happens once the session is open.
        kinds: Each of them has to happen.
        least: There are no fewer rounds, and as many more as it takes until all kinds have happened.
        one_round: Given the user's socket and the round's number, from 0 on.
    """
    before = cloud.fault_counts
    with Server(echo) as target, dialer_of(cloud, **kind.options) as dialer:
        with dialer.dial(target, PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            cloud.set_faults(faults)
            try:
                rounds = 0
                while rounds < least or not happened(cloud, kinds, before):
                    one_round(sock, rounds)
                    rounds += 1
                    assert rounds < 20, f"{kinds} did not happen"
            finally:
                cloud.set_faults(Faults())
            session = session_id_of(sock)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert audit_record(cloud, session)["code"] == "OK"


#: What happens to an open session's messages; each name has to happen for the test to mean something.
IN_FLIGHT = {
    "default-throttled": (Faults(message_429=0.1), ["message_429"]),
    "gateway-fails": (Faults(message_500=0.2), ["message_500"]),
    "default-crashes": (Faults(crash=0.15, functions=("DefaultFunction",)), ["crash"]),
    "default-times-out": (Faults(invoke_hang=0.15, functions=("DefaultFunction",)), ["invoke_hang"]),
    "posts-untruly-gone": (Faults(post_410=0.2), ["post_410"]),
    "posts-throttled": (Faults(post_429=0.2), ["post_429"]),
    "posts-fail": (Faults(post_500=0.2), ["post_500"]),
    "posts-hang": (Faults(post_hang=0.1), ["post_hang"]),
    "messages-vanish": (Faults(drop=0.08), ["drop"]),
    "out-of-order": (Faults(reorder=0.4, duplicate=0.3, delay=0.3), ["reorder", "duplicate", "delay"]),
    "kept-connections-die": (Faults(kept_dead=0.4), ["kept_dead"]),
    "cold-starts": (Faults(cold_start=0.3, cold_start_seconds=0.5), ["cold_start"]),
}


@pytest.mark.parametrize(("name", "kind"), each_with_a_kind(IN_FLIGHT), ids=str)
def test_open_session_carries_every_byte_though(sick: LocalCloud, name: str, kind: Kind) -> None:
    def one_round(sock: socket.socket, number: int) -> None:
        assert exchange(sock, number)

    lives_through(sick, kind, *IN_FLIGHT[name], least=2, one_round=one_round)


#: What happens while a session is opened, launched and claimed.
WHILE_DIALLING = {
    "connect-answer-lost": (Faults(connect_lost=0.4), ["connect_lost"]),
    "connect-throttled": (Faults(connect_429=0.4), ["connect_429"]),
    "connect-fails": (Faults(connect_500=0.4), ["connect_500"]),
    "launched-twice": (Faults(duplicate_invoke=1.0, functions=("RelayFunction",)), ["duplicate_invoke"]),
    "launched-late": (
        Faults(cold_start=1.0, cold_start_seconds=8.0, functions=("RelayFunction",)),
        ["cold_start"],
    ),
    "launch-refused": (Faults(invoke_429=0.3, invoke_500=0.3), ["invoke_429", "invoke_500"]),
    "writes-answered-to-nobody": (Faults(lost_write=0.5), ["lost_write"]),
    "reads-out-of-date": (Faults(stale_read=1.0, stale_seconds=30.0, drop=0.1), ["drop"]),
    "database-fails": (Faults(database_500=0.2), ["database_500"]),
    "opening-vanishes": (Faults(drop=0.1), ["drop"]),
}


@pytest.mark.parametrize("name", list(WHILE_DIALLING))
def test_dial_and_first_bytes_work_though(sick: LocalCloud, name: str, kind: Kind) -> None:
    faults, kinds = WHILE_DIALLING[name]
    before = sick.fault_counts
    sick.set_faults(faults)
    outcomes: list[BaseException | bool] = []

    def dial_and_talk(dialer: Dialer, seed: int) -> None:
        try:
            with dialer.dial(target, PATIENCE) as sock:
                sock.settimeout(PATIENCE)
                outcomes.append(exchange(sock, seed, 1000))
        except OSError as exc:
            outcomes.append(exc)

    try:
        with Server(echo) as target:
            for _round in range(40 if kind.shared else 10):  # one launch in each, or four
                with dialer_of(sick, **kind.options) as dialer:
                    crowd = [threading.Thread(target=dial_and_talk, args=(dialer, seed)) for seed in range(4)]
                    for thread in crowd:
                        thread.start()
                    for thread in crowd:
                        thread.join()
                if happened(sick, kinds, before):
                    break
            else:
                pytest.fail(f"{kinds} did not happen")
    finally:
        sick.set_faults(Faults())
    assert outcomes == [True] * len(outcomes)


def test_door_whose_answer_is_lost_each_time_is_a_clear_error_when_the_time_is_up(sick: LocalCloud) -> None:
    before = sick.fault_counts.get("connect_lost", 0)
    sick.set_faults(Faults(connect_lost=1.0))
    try:
        with dialer_of(sick) as dialer, pytest.raises(AnswerLostError, match="check the URL"):
            dialer.dial(("127.0.0.1", 5432), 8.0)
        assert sick.fault_counts["connect_lost"] - before > 1
    finally:
        sick.set_faults(Faults())


#: What happens while a session comes back from cuts.
WHILE_COMING_BACK = {
    "connect-answer-lost": (Faults(connect_lost=0.4), ["connect_lost"]),
    "connect-throttled": (Faults(connect_429=0.4), ["connect_429"]),
    "connect-fails": (Faults(connect_500=0.4), ["connect_500"]),
    "no-word-of-the-disconnect": (Faults(disconnect_missing=1.0), ["disconnect_missing"]),
    "late-word-of-the-disconnect": (
        Faults(disconnect_late=1.0, disconnect_seconds=1.0),
        ["disconnect_late"],
    ),
    "writes-answered-to-nobody": (Faults(lost_write=0.4), ["lost_write"]),
    "database-fails": (Faults(database_500=0.2), ["database_500"]),
    "resumes-vanish": (Faults(drop=0.1), ["drop"]),
}


@pytest.mark.parametrize(("name", "kind"), each_with_a_kind(WHILE_COMING_BACK), ids=str)
def test_session_comes_back_though(sick: LocalCloud, name: str, kind: Kind) -> None:
    def one_round(sock: socket.socket, number: int) -> None:
        side = ("dialer", "relay", "both")[number % 3]
        wait_until(lambda: sick.cut(side, "reset"), "a cut")
        assert exchange(sock, number, 200_000)

    lives_through(sick, kind, *WHILE_COMING_BACK[name], least=3, one_round=one_round)


def forbidding(number: int) -> Faults:
    """The gateway's own 403 for this connection alone, of the first dozen of a cloud, from 0 on."""
    wanted = [each == number for each in range(12)]
    for seed in itertools.count():
        faults = Faults(seed=seed, connect_403=0.2)
        engine = FaultEngine(faults)
        if [engine.rng(Site.GATEWAY, each).draw("connect_403") for each in range(12)] == wanted:
            return faults
    raise AssertionError("there is always another seed")


@pytest.mark.parametrize("side", ["dialer", "relay"])
def test_session_whose_return_meets_one_403_of_the_gateway_s_own_goes_on(kind: Kind, side: str) -> None:
    # The first two connections are the session's: whoever comes back has the third, and then the fourth.
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=forbidding(2)) as cloud,
        Server(echo) as target,
        dialer_of(cloud, **kind.options) as dialer,
    ):
        with dialer.dial(target, PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            assert exchange(sock, 1, 1000)
            assert cloud.cut(side, "reset") == 1
            assert exchange(sock, 2)
            assert cloud.fault_counts["connect_403"] == 1
            session = session_id_of(sock)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert audit_record(cloud, session)["code"] == "OK"


def test_clocks_that_differ_by_minutes_change_nothing(kind: Kind) -> None:
    faults = Faults(skew_seconds=-240.0, skew_spread=100.0)
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=faults) as cloud:
        with (
            Server(echo) as target,
            dialer_of(cloud, **kind.options) as dialer,
            dialer.dial(target, PATIENCE) as sock,
        ):
            sock.settimeout(PATIENCE)
            assert exchange(sock, 1)
            assert cloud.cut("both", "reset") == 2
            assert exchange(sock, 2)
            session = session_id_of(sock)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert audit_record(cloud, session)["code"] == "OK"
