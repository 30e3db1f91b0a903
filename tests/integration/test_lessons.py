"""What users of other tunnels reported as bugs, asked of this one.

Each row is a lesson; the test that holds it is either here or where it belongs, and
:func:`test_every_lesson_is_held_by_a_test_that_exists` looks it up.

==  ====================================================  =====================================================
 1  a query longer than the idle limit, and long silence  test_silence::test_query_longer_than_the_idle_limit_returns
 2  the WebSocket dies in the middle of a COPY            test_lessons::test_copy_is_byte_identical_over_cuts
 3  one acknowledgement is lost                           test_lessons::test_lost_acknowledgement_is_given_again
 4  a single newline stays a newline                      test_echo::test_single_newlines_arrive_as_they_were_sent
 5  several connections, one of them to cancel            test_databases::test_running_query_is_cancelled_over_a_second_connection
 6  the local port is busy                                test_forward::test_a_busy_port_fails_and_says_what_to_do
 7  a program's exit status, and its closed pipe          test_lessons::test_program_run_by_exec_has_its_own_exit_status_and_ends_with_its_pipe
 8  the handshake is refused, or is none                  test_handshake::test_something_else_than_a_gateway_is_an_unreachable_gateway
 9  no thread keeps the program                           test_drain::test_an_open_tunnel_does_not_hold_the_program
10  a reader that stops bounds the memory of both sides   test_memory::test_readers_that_stop_bound_the_memory_of_both_sides
11  a short dial timeout is not the tunnel's life         test_dialer::test_the_dials_timeout_is_not_the_sockets
12  the host sleeps                                       test_ends::test_dialer_that_slept_while_its_connection_died_wakes_and_goes_on
13  four ways to miss a target, four errors               test_handshake::test_each_way_to_miss_the_target_has_its_error
14  many short dials, several at once                     test_lessons::test_hundreds_of_dials_eight_at_a_time
15  a half-close, and a megabyte back                     test_half_close::test_target_answers_a_megabyte_after_the_client_has_ended_its_side
16  nothing too large leaves the client                   test_websocket::test_a_message_goes_out_in_masked_text_fragments_that_the_gateway_takes
17  bytes sent before the target is connected             test_opening_on_cloud::test_early_bytes_behind_the_opening_reach_the_target
==  ====================================================  =====================================================

Number 13 asks for exit statuses too: test_exit_status::test_the_status_tells_the_kind_of_failure.
"""  # noqa: E501  (a table)

from __future__ import annotations

import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from emissary_lib import Dialer
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.wire.frames import FrameType
from emissary_local import LocalCloud
from tests.helpers import cuts
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, ROOT, eventually, json_lines, relay_returned
from tests.helpers.patience import HANG
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import Server, echo, greeter
from tools.demo.postgres import Postgres

pytestmark = LINUX_ONLY


def test_every_lesson_is_held_by_a_test_that_exists() -> None:
    rows = re.findall(r"^ *(\d+)  .*  (test_\w+)::(test_\w+)$", __doc__ or "", re.MULTILINE)
    assert [int(number) for number, _file, _test in rows] == list(range(1, 18))
    for number, file, test in rows:
        paths = list((ROOT / "tests").rglob(f"{file}.py"))
        assert any(f"\ndef {test}(" in path.read_text(encoding="utf-8") for path in paths), number


def test_copy_is_byte_identical_over_cuts(cloud: LocalCloud, own_dialer: Dialer, postgres: Postgres) -> None:
    rows = b"".join(
        b"%d\trow number %d, and some more text to make it longer\n" % (n, n) for n in range(80_000)
    )
    planned = iter([("dialer", "reset"), ("relay", "mid-frame"), ("both", "close"), ("both", "reset")])

    def cut() -> None:
        side, how = next(planned)
        cuts.cut(cloud, side, how)

    with own_dialer.forward((postgres.host, postgres.port), timeout=DIAL) as (host, port):
        with psycopg.connect(**postgres.through(host, port)) as connection:
            connection.execute("create table lesson (id int primary key, text text)")
            with connection.cursor() as cursor:
                with cursor.copy("copy lesson from stdin") as copy:
                    for start in range(0, len(rows), len(rows) // 3):
                        copy.write(rows[start : start + len(rows) // 3])
                        if start in (0, len(rows) // 3):
                            cut()
                back = bytearray()
                with cursor.copy("copy (select * from lesson order by id) to stdout") as copy:
                    for count, piece in enumerate(copy):
                        back += piece
                        if count in (100, 40_000):
                            cut()
            connection.commit()
    assert bytes(back) == rows
    assert next(planned, None) is None


def test_lost_acknowledgement_is_given_again(cloud: LocalCloud) -> None:
    with Server(greeter(b"welcome")) as target, RawDialer(cloud.url, cloud.key) as raw:
        opening = raw.opening(target)
        raw.send(FrameType.OPENING, opening)
        _parameters, data = raw.opened()

        def said_again() -> bytes:
            again = b""
            while b"welcome" not in again:
                again = raw.receive(FrameType.DATA, FrameType.OPENED).payload
            return again

        # Ours to them is lost: they say it again, and do not give up.
        if b"welcome" not in data:
            said_again()
        assert b"welcome" in said_again()

        # Theirs to us is lost: what comes twice is acknowledged twice, and delivered once.
        ack = len(data) + len(b"welcome") if b"welcome" not in data else len(data)
        for _time in range(2):
            raw.send(FrameType.DATA, b"once", offset=len(opening), ack=ack, generation=2)
            while raw.receive(FrameType.ACK, FrameType.DATA).ack < len(opening) + 4:
                pass
        raw.end()
        relay_returned(cloud, raw.session)


@pytest.mark.slow
def test_hundreds_of_dials_eight_at_a_time(cloud: LocalCloud, own_dialer: Dialer) -> None:
    """Each tunnel carries its own bytes, and no relay is left of any."""
    dials = 300

    def dial(number: int) -> str:
        with own_dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            text = str(number).encode()
            sock.sendall(text)
            sock.shutdown(socket.SHUT_WR)
            back = b""
            while piece := sock.recv(100):
                back += piece
            assert back == text
            assert sock.session is not None
            return sock.session.id

    with Server(echo) as target, ThreadPoolExecutor(8) as pool:
        sessions = set(pool.map(dial, range(dials)))
    assert len(sessions) == dials

    def all_returned() -> dict[str, str] | None:
        lines = json_lines(cloud, "RelayFunction")
        ended = {line["session"]: line["code"] for line in lines if line.get("message") == "session ended"}
        found = {session: ended[session] for session in sessions & set(ended)}
        return found if len(found) == dials else None

    assert set(eventually(all_returned, "the return of every relay").values()) == {"OK"}


def processor_time(pid: int) -> float:
    """Seconds of a process so far, its own and the kernel's for it."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_program_run_by_exec_has_its_own_exit_status_and_ends_with_its_pipe(cloud: LocalCloud) -> None:
    # It talks to the target until its standard input ends, and then has a status of its own.
    code = (
        "import socket, sys\n"
        "sock = socket.create_connection((sys.argv[1], sys.argv[2]))\n"
        "for line in sys.stdin.buffer:\n"
        "    sock.sendall(line)\n"
        "    sys.stdout.buffer.write(sock.makefile('rb').readline())\n"
        "    sys.stdout.flush()\n"
        "sys.exit(7)"
    )
    with Server(echo) as (host, port):
        command = [sys.executable, "-m", "emissary_lib", "exec", "--timeout", f"{DIAL:g}", f"{host}:{port}"]
        with subprocess.Popen(
            [*command, "--", sys.executable, "-c", code, "{host}", "{port}"],
            cwd=ROOT,
            env={
                **os.environ,
                "EMISSARY_URL": cloud.url,
                "EMISSARY_AUTH_KEYS": format_keys([cloud.key]),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            for line in (b"one\n", b"two\n"):
                running.stdin.write(line)
                running.stdin.flush()
                assert running.stdout.readline() == line
            before = processor_time(running.pid)
            threading.Event().wait(1.0)  # in which it has nothing to do
            assert processor_time(running.pid) - before < 0.5  # it waits, and does nothing else
            running.stdin.close()
            assert running.wait(HANG) == 7
