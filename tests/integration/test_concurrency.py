"""Many sessions: at once from cold, one after the other, and in an account with almost no room."""

from __future__ import annotations

import os

import pytest

from emissary_lib import Dialer
from emissary_local import LocalCloud
from tests.helpers.crowds import FROM_COLD, exchange, run_at_once
from tests.helpers.kinds import OWN, Kind
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


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 30])
def test_connections_made_at_once_from_cold_each_get_their_own_bytes(count: int) -> None:
    sessions: list[str] = []
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS) as cloud,
        dialer_of(cloud, **OWN.options) as dialer,
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


def test_many_dials_in_a_row(either_dialer: Dialer) -> None:
    with Server(echo) as target:
        for number in range(10):
            data = b"dial %d" % number
            with either_dialer.dial(target, DIAL) as sock:
                sock.settimeout(HANG)
                sock.sendall(data)
                assert sock.recv(100) == data


@pytest.mark.slow
def test_account_with_ten_executions_in_all_is_slower_but_breaks_nothing(kind: Kind) -> None:
    # What new AWS accounts have. Relays take four of them, or one; the others copy messages for everybody.
    sessions: list[str] = []
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS, account_concurrency=10) as cloud,
        dialer_of(cloud, **kind.options) as dialer,
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
