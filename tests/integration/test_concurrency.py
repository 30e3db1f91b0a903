"""Many sessions: at once from cold, one after the other, and in an account with almost no room."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from emissary_lib import Dialer
from emissary_local import LocalCloud
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    audit_records,
    dialer_of,
)
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, echo

pytestmark = LINUX_ONLY


#: Longest dial among dozens at once, in seconds: each starts several processes, and there may be two cores.
FROM_COLD = 4 * HANG


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send everything and the end; gives everything that comes back."""

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, name="sender")
    sender.start()
    got = bytearray()
    while chunk := sock.recv(65_536):
        got += chunk
    sender.join(HANG)
    return bytes(got)


def run_at_once(count: int, work: Callable[[int], bool]) -> list[bool]:
    together = threading.Barrier(count)

    def one(number: int) -> bool:
        together.wait(HANG)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 30])
def test_connections_made_at_once_from_cold_each_get_their_own_bytes(count: int) -> None:
    sessions: list[str] = []
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS) as cloud,
        dialer_of(cloud) as dialer,
        Server(echo) as target,
    ):

        def work(number: int) -> bool:
            data = b"%02d " % number + os.urandom(20_000 + number)
            with dialer.dial(target, FROM_COLD) as sock:
                sock.settimeout(HANG)
                assert sock.session is not None
                sessions.append(sock.session.id)
                return exchange(sock, data) == data

        assert run_at_once(count, work) == [True] * count
        assert len(set(sessions)) == count
        for session in sessions:
            assert audit_record(cloud, session)["code"] == "OK"
            assert len(audit_records(cloud, session)) == 1


def test_many_dials_in_a_row(dialer: Dialer) -> None:
    with Server(echo) as target:
        for number in range(10):
            data = b"dial %d" % number
            with dialer.dial(target, DIAL) as sock:
                sock.settimeout(HANG)
                sock.sendall(data)
                assert sock.recv(100) == data


@pytest.mark.slow
def test_account_with_ten_executions_in_all_is_slower_but_breaks_nothing() -> None:
    # What new AWS accounts have. Four relays take four; the other six copy messages for everybody.
    sessions: list[str] = []
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS, account_concurrency=10) as cloud,
        dialer_of(cloud) as dialer,
        Server(echo) as target,
    ):

        def work(number: int) -> bool:
            data = os.urandom(1_000_000)
            with dialer.dial(target, FROM_COLD) as sock:
                sock.settimeout(HANG)
                assert sock.session is not None
                sessions.append(sock.session.id)
                return exchange(sock, data) == data

        assert run_at_once(4, work) == [True] * 4
        assert [audit_record(cloud, session)["code"] for session in sessions] == ["OK"] * 4
