"""Connections that share relays, through the whole stack: what they save, what they share, and what not."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pathlib
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from emissary_lib import Dialer, RelayDeadlineError, TunnelResetError
from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.cli import main as cli
from emissary_lib.client import relays
from emissary_lib.client.socket import SessionInfo, TunnelSocket
from emissary_lib.exceptions import (
    NameNotFoundError,
    SessionLimitError,
    TargetNotAllowedError,
    TargetRefusedError,
    TargetTimedOutError,
)
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET
from emissary_lib.protocol.wire.health import Usage
from emissary_local import LocalCloud
from tests.helpers.crowds import FROM_COLD, exchange, run_at_once
from tests.helpers.cuts import CUT_WAYS, Stream, cut
from tests.helpers.kinds import SHARED
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    connection_records,
    dialer_of,
    eventually,
    json_lines,
    log_lines,
    relay_returned,
)
from tests.helpers.patience import HANG, wait_until
from tests.helpers.real_servers import postgres_program
from tests.helpers.servers import BlackHole, Server, echo, resetter, unused_port
from tools.demo.bulk import rows
from tools.demo.postgres import Postgres

pytestmark = LINUX_ONLY

Address = tuple[str, int]

#: Two relays may run, and nobody is waited for for long.
SMALL = {**PARAMETERS, "MaxSessions": "2", "RelayGraceSeconds": "5"}

#: A relay's life, in seconds, of which the last half minute is for those that are connected.
LIFE = 45


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, no relay is taken to be dead, and replaced, for being slow to answer."""
    monkeypatch.setattr(relays, "UNHEARD", HANG)


@pytest.fixture(scope="module")
def small_cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, parameters=SMALL) as running:
        yield running


@pytest.fixture
def small(small_cloud: LocalCloud) -> LocalCloud:
    """A cloud of few places, all of which are free."""
    with dialer_of(small_cloud, connections_per_relay=32) as dialer:
        wait_until(lambda: dialer.health(DIAL).usage == Usage(0, 2), "the end of the sessions before")
    return small_cloud


def launched(cloud: LocalCloud) -> set[str]:
    """The sessions for which a relay was launched so far."""
    lines = json_lines(cloud)  # of $connect, or of $default where it was made up for
    return {line["session"] for line in lines if line.get("message") == "relay launched"}


def info_of(sock: TunnelSocket) -> SessionInfo:
    assert sock.session is not None
    return sock.session


def sessions_of(socks: list[TunnelSocket]) -> list[str]:
    return [info_of(sock).id for sock in socks]


def answers(sock: socket.socket) -> bool:
    sock.settimeout(HANG)
    sock.sendall(b"ping")
    return sock.recv(4) == b"ping"


# -- what they save ---------------------------------------------------------------------------


def test_a_further_dial_to_any_target_launches_nothing(
    cloud: LocalCloud, dialer: Dialer, target: Address
) -> None:
    before = launched(cloud)
    with Server(echo) as other, ExitStack() as stack:
        socks = [stack.enter_context(dialer.dial(each, DIAL)) for each in (target, other, target)]
        assert all(map(answers, socks))
        (session,) = set(sessions_of(socks))
        assert launched(cloud) - before == {session}
        assert [(each.id, each.connections) for each in dialer.relays] == [(session, 3)]
    with dialer.dial(target, DIAL) as again:  # it was kept
        assert answers(again)
        assert sessions_of([again]) == [session]
    assert launched(cloud) - before == {session}


def test_sixty_four_connections_at_once_share_two_relays(
    cloud: LocalCloud, dialer: Dialer, target: Address
) -> None:
    before, sessions, all_open = launched(cloud), list[str](), threading.Barrier(64)

    def work(number: int) -> bool:
        data = b"%02d " % number + os.urandom(5_000)
        with dialer.dial(target, FROM_COLD) as sock:
            sock.settimeout(HANG)
            sessions.append(info_of(sock).id)
            all_open.wait(HANG)
            return exchange(sock, data) == data

    assert run_at_once(64, work) == [True] * 64
    assert list(Counter(sessions).values()) == [32, 32]
    assert launched(cloud) - before == set(sessions)


@pytest.mark.slow
def test_hundreds_of_dials_eight_at_a_time_launch_one_relay(
    cloud: LocalCloud, dialer: Dialer, target: Address
) -> None:
    before = launched(cloud)

    def dial(number: int) -> str:
        data = b"%d" % number
        with dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            assert exchange(sock, data) == data
            return info_of(sock).id

    with ThreadPoolExecutor(8) as pool:
        (session,) = set(pool.map(dial, range(300)))
    assert launched(cloud) - before == {session}
    wait_until(lambda: len(connection_records(cloud, session)) == 300, "the record of each")
    assert {record["code"] for record in connection_records(cloud, session)} == {"OK"}


def test_a_pool_of_forty_works_where_a_third_session_is_refused(small: LocalCloud, target: Address) -> None:
    with dialer_of(small, connections_per_relay=20) as dialer, ExitStack() as stack:
        with ThreadPoolExecutor(8) as pool:
            socks = list(pool.map(lambda _number: dialer.dial(target, FROM_COLD), range(40)))
        for sock in socks:
            stack.enter_context(sock)
        assert all(map(answers, socks))
        assert dialer.health(DIAL).usage == Usage(2, 2)
        with pytest.raises(SessionLimitError, match="limit of 2 sessions reached"):
            dialer.dial(target, DIAL)
        before = launched(small)
        socks[7].close()
        wait_until(lambda: any(each.room for each in dialer.relays), "room for one more")
        with dialer.dial(target, DIAL) as further:
            assert answers(further)
        assert launched(small) == before


def test_a_relay_without_a_connection_ends_when_it_was_kept_for_long_enough(
    cloud: LocalCloud, target: Address
) -> None:
    with dialer_of(cloud, connections_per_relay=32, relay_idle_seconds=0.2) as dialer:
        with dialer.dial(target, DIAL) as sock:
            assert answers(sock)
        (session,) = sessions_of([sock])
        assert relay_returned(cloud, session) == "OK"
        assert audit_record(cloud, session)["code"] == "OK"
        wait_until(lambda: not dialer.relays, "its end here")
        with dialer.dial(target, DIAL) as further:
            assert answers(further)
            assert sessions_of([further]) != [session]


# -- bytes --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_twenty_cuts_during_transfers_on_eight_connections_lose_no_byte(cloud: LocalCloud) -> None:
    streams = [Stream(seed) for seed in range(8)]
    users: list[threading.Thread] = []
    with ExitStack() as stack:
        dialer = stack.enter_context(dialer_of(cloud, **SHARED.options))
        socks: list[TunnelSocket] = []
        for number, stream in enumerate(streams):
            up = number % 2
            target = stack.enter_context(Server(stream.receive if up else stream.send))
            sock = stack.enter_context(dialer.dial(target, DIAL))
            sock.settimeout(HANG)
            socks.append(sock)
            users.append(threading.Thread(target=stream.send if up else stream.receive, args=(sock,)))
        (session,) = set(sessions_of(socks))
        for user in users:
            user.start()

        def wait_for_more() -> None:
            for stream in streams:
                stream.wait_for_more(100_000)

        try:
            wait_for_more()
            for side, how in itertools.islice(itertools.cycle(CUT_WAYS), 20):
                cut(cloud, side, how)
                wait_for_more()
        finally:
            for stream in streams:
                stream.end()
            for user in users:
                user.join(HANG)
        assert all(stream.done.wait(HANG) for stream in streams)
        infos = [info_of(sock) for sock in socks]
    record = audit_record(cloud, session)
    assert [stream.failure for stream in streams] == [None] * 8
    assert [stream.identical for stream in streams] == [True] * 8
    assert [info.error for info in infos] == [None] * 8
    assert infos[0].counters.resumes >= 20 // 3  # those of the dialer's own connection
    assert (record["code"], record["connections"]) == ("OK", 8)


def test_a_copy_beside_small_queries(dialer: Dialer, postgres: Postgres) -> None:
    size, back = 10_000_000, bytearray()
    sent = b"".join(rows(size))

    def copy() -> None:
        with psycopg.connect(**postgres.through(*address)) as connection:
            connection.execute("create temporary table beside (id bigint, body text)")
            with connection.cursor() as cursor:
                with cursor.copy("copy beside from stdin") as into:
                    into.write(sent)
                with cursor.copy("copy (select * from beside order by id) to stdout") as out:
                    for piece in out:
                        back.extend(piece)

    with dialer.forward((postgres.host, postgres.port), timeout=DIAL) as address:
        with psycopg.connect(**postgres.through(*address), autocommit=True) as connection:
            copying = threading.Thread(target=copy, name="copy")
            copying.start()
            for number in itertools.count():
                found = connection.execute("select %s::int, md5(%s::text)", [number, number]).fetchone()
                assert found is not None
                assert found[0] == number
                if not copying.is_alive():
                    break
            copying.join()
    assert bytes(back) == sent


def test_pg_dump_with_eight_jobs_reads_what_it_reads_without_a_tunnel(
    cloud: LocalCloud, dialer: Dialer, postgres: Postgres, tmp_path: pathlib.Path
) -> None:
    with psycopg.connect(**postgres.direct, autocommit=True) as direct:
        direct.execute("create schema shared")
        for number in range(8):
            of = "select n, repeat(md5(n::text), 10) t from generate_series(1, 2000) n"
            direct.execute(f"create table shared.dumped_{number} as {of}")

    def dumped(parameters: dict[str, Any], name: str) -> list[str]:
        place = " ".join(f"{key}={value}" for key, value in parameters.items() if key != "password")
        environ = {**os.environ, "PGPASSWORD": postgres.password}
        folder = str(tmp_path / name)
        dump = [str(postgres_program("pg_dump")), "-Fd", "-j", "8", "-n", "shared", "-f", folder, "-d", place]
        subprocess.run(dump, env=environ, timeout=HANG, check=True)
        restore = [str(postgres_program("pg_restore")), "-f", "-", folder]
        text = subprocess.run(restore, stdout=subprocess.PIPE, text=True, timeout=HANG, check=True).stdout
        return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]

    before = launched(cloud)
    with dialer.forward((postgres.host, postgres.port), timeout=DIAL) as (host, port):
        through = dumped(postgres.through(host, port), "through")
    (session,) = launched(cloud) - before
    assert through == dumped(postgres.direct, "directly")
    assert len([line for line in through if line.startswith("COPY ")]) == 8
    wait_until(
        lambda: len(connection_records(cloud, session)) == 9, "the records of all jobs and their leader"
    )


# -- what they do not share -----------------------------------------------------------------------


def test_each_connection_has_an_end_and_a_record_of_its_own(cloud: LocalCloud, target: Address) -> None:
    with dialer_of(cloud, connections_per_relay=32, relay_idle_seconds=0) as dialer, ExitStack() as stack:
        sock = stack.enter_context(dialer.dial(target, DIAL))
        assert answers(sock)
        (session,) = sessions_of([sock])
        resets, refuses = stack.enter_context(Server(resetter(3))), stack.enter_context(unused_port())
        silent = stack.enter_context(BlackHole())
        with dialer.dial(resets, DIAL) as broken:
            broken.settimeout(HANG)
            broken.sendall(b"123")
            with pytest.raises(TunnelResetError) as caught:
                broken.recv(1)
            assert caught.value.code is Code.TARGET_RESET
        failures = {
            refuses: TargetRefusedError,
            ("db.internal", 5432): TargetNotAllowedError,
            ("no-such-name.invalid", 5432): NameNotFoundError,
            silent: TargetTimedOutError,
        }
        for address, failure in failures.items():
            with pytest.raises(failure) as failed:
                dialer.dial(address, DIAL)
            assert failed.value.__notes__ == [f"session {session}"]
        assert answers(sock)
    record = audit_record(cloud, session)
    assert (record["code"], record["connections"]) == ("OK", 2)
    assert record["target"] == str(SHARED_TARGET)
    ends = {line["target"]: line for line in connection_records(cloud, session)}
    assert {
        name: (line["code"], line["dialer_bytes"], line["relay_bytes"]) for name, line in ends.items()
    } == {
        name_of(target): ("OK", 8, 8),
        name_of(resets): ("TARGET_RESET", 3, 0),
    }
    assert all(0 <= line["duration_s"] <= record["duration_s"] + 1 for line in ends.values())
    begins = [line for line in log_lines(cloud, session) if line["message"].endswith("connected")]
    assert {line["target"]: line["code"] for line in begins} == {
        name_of(target): "OK",
        name_of(resets): "OK",
        name_of(refuses): "TARGET_REFUSED",
        "db.internal:5432": "TARGET_NOT_ALLOWED",
        "no-such-name.invalid:5432": "NAME_NOT_FOUND",
        name_of(silent): "TARGET_TIMED_OUT",
    }
    assert {line["key_id"] for line in [*ends.values(), *begins]} == {cloud.key.key_id}


def name_of(target: Address) -> str:
    return f"{target[0]}:{target[1]}"


def test_a_dial_that_is_cancelled_while_the_relay_connects_ends_nothing_else(
    cloud: LocalCloud, dialer: Dialer, target: Address
) -> None:
    async def main() -> None:
        before = meter()
        dial = asyncio.ensure_future(dialer.open_connection(silent, None))
        await asyncio.to_thread(wait_until, lambda: meter() > before, "the request")
        dial.cancel()
        await asyncio.wait([dial])
        assert dial.cancelled()

    with dialer.dial(target, DIAL) as sock, BlackHole() as silent:
        assert answers(sock)
        (session,) = sessions_of([sock])

        def meter() -> int:
            return sum(each.connections for each in dialer.relays)

        def given_up() -> list[dict[str, Any]] | None:
            said = {"message": "not connected", "target": name_of(silent), "code": "GIVEN_UP"}
            return [line for line in log_lines(cloud, session) if said.items() <= line.items()] or None

        asyncio.run(main())
        assert len(eventually(given_up, "the relay's record")) == 1
        assert answers(sock)


# -- what they share ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_forward_outlives_its_relays_and_who_is_connected_at_an_end_is_told(
    cloud: LocalCloud, dialer: Dialer, target: Address
) -> None:
    seen = set[str]()
    cloud.set_timeout("RelayFunction", LIFE)
    with ExitStack() as stack:
        stack.callback(cloud.set_timeout, "RelayFunction", RELAY_TIME)
        old = [stack.enter_context(dialer.dial(target, DIAL)) for _ in range(2)]
        assert all(map(answers, old))
        with dialer.forward(target, timeout=DIAL) as forward:
            host, port = forward
            while len(seen) < 3 or not all(info_of(sock).error for sock in old):
                with socket.create_connection((host, port), HANG) as sock:
                    assert answers(sock)
                seen.update(each.id for each in dialer.relays)
            assert forward.last_error is None
        for sock in old:
            assert info_of(sock).going_away
            with pytest.raises(RelayDeadlineError, match="relay reached its"):
                sock.recv(1)
        (first,) = set(sessions_of(old))
        assert relay_returned(cloud, first) == "RELAY_DEADLINE"
        assert audit_record(cloud, first)["code"] == "RELAY_DEADLINE"
        codes = {relay_returned(cloud, each) for each in seen - {first, *(each.id for each in dialer.relays)}}
        assert codes == {"OK"}
        assert "Task timed out" not in cloud.logs("RelayFunction")


@pytest.fixture
def listed(
    small: LocalCloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What ``emissary sessions`` says."""
    for name, value in {**small.operator, "EMISSARY_URL": small.url}.items():
        monkeypatch.setenv(name, value)

    def sessions(*words: str) -> str:
        assert cli.main(["sessions", *words, "--table", small.tables["SessionTable"]]) == Exit.OK
        return capsys.readouterr().out

    return sessions


@pytest.mark.slow
def test_an_operator_sees_how_many_connections_a_relay_has_and_ends_them_all(
    small: LocalCloud, target: Address, listed: Callable[..., str]
) -> None:
    with dialer_of(small, connections_per_relay=3) as dialer, ExitStack() as stack:
        socks = [stack.enter_context(dialer.dial(target, DIAL)) for _ in range(4)]
        assert all(map(answers, socks))
        socks[0].close()
        doomed, other = sessions_of(socks[1:3]), sessions_of(socks[3:])
        assert len(set(doomed)) == 1
        wait_until(lambda: "shared: 3 connections, 2 open" in listed("list", "--alive"), "the count")
        assert "shared: 1 connection, 1 open" in listed("list", "--alive")
        alive = {each["session"]: each for each in json.loads(listed("list", "--alive", "--json"))}
        assert set(alive) == {*doomed, *other}
        shown = alive[doomed[0]]
        counts = [shown[f"connections{part}"] for part in ("", "_open", "_refused")]
        assert (shown["shared"], counts) == (True, [3, 2, 0])
        assert "with all its connections" in listed("kill", doomed[0][:16])
        for sock in socks[1:3]:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            error = info_of(sock).error
            assert error is not None
            assert error.code is Code.KILLED
        record = audit_record(small, doomed[0])
        assert (record["code"], record["connections"]) == ("KILLED", 3)
        assert relay_returned(small, doomed[0]) == "KILLED"
        assert answers(socks[3]), "another relay's is not touched"
    assert audit_record(small, other[0])["connections"] == 1


# The last: the place of the dead relay is taken for half a minute more.
def test_the_death_of_a_relay_is_told_to_each_of_its_connections(small: LocalCloud, target: Address) -> None:
    with dialer_of(small, connections_per_relay=32) as dialer:
        with ExitStack() as stack:
            socks = [stack.enter_context(dialer.dial(target, DIAL)) for _ in range(5)]
            assert all(map(answers, socks))
            (session,) = set(sessions_of(socks))
            assert small.crash("RelayFunction") == 1
            for sock in socks:
                with pytest.raises(TunnelResetError, match="outcome of a statement") as caught:
                    sock.recv(1)
                error = info_of(sock).error
                assert error is not None
                assert error.code is caught.value.code is Code.RELAY_GONE
        assert audit_record(small, session)["code"] == "RELAY_GONE"
        with dialer.dial(target, DIAL) as fresh:
            assert answers(fresh)
            assert sessions_of([fresh]) != [session]
