"""A COPY of fifty megabytes each way, by psycopg, while WebSockets are cut twenty times in each."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import psycopg
import pytest

from emissary_lib import Dialer
from emissary_local import LocalCloud
from tests.helpers.cuts import CUT_WAYS, cut
from tests.helpers.local_cloud import DIAL, LINUX_ONLY
from tools.demo.bulk import Transfer, copy_in, copy_out, create_tables
from tools.demo.postgres import embedded_postgres

pytestmark = [LINUX_ONLY, pytest.mark.slow]

SIZE = 50_000_000
CUTS = 20


def cutting(cloud: LocalCloud) -> Callable[[float], None]:
    """A COPY's progress that cuts a connection each time another part of it is done."""
    ways = itertools.islice(itertools.cycle(CUT_WAYS), CUTS)
    done = itertools.count(1)
    due = next(done) / (CUTS + 1)

    def progress(share: float) -> None:
        nonlocal due
        if share >= due and (way := next(ways, None)) is not None:
            cut(cloud, *way)
            due = next(done) / (CUTS + 1)

    return progress


def test_twenty_cuts_during_a_copy_each_way_are_seen_by_neither_driver_nor_database(
    cloud: LocalCloud, dialer: Dialer, capsys: pytest.CaptureFixture[str]
) -> None:
    with embedded_postgres() as postgres:
        with psycopg.connect(**postgres.direct, autocommit=True) as direct:
            create_tables(direct, SIZE)
            there = copy_out(direct, "bulk_out", SIZE)
            with dialer.forward((postgres.host, postgres.port), timeout=DIAL) as (host, port):
                with psycopg.connect(**postgres.through(host, port), autocommit=True) as connection:
                    sent = copy_in(connection, SIZE, cutting(cloud))
                    fetched = copy_out(connection, "bulk_out", SIZE, cutting(cloud))
            arrived = copy_out(direct, "bulk_in", SIZE)
    with capsys.disabled():
        sys.stdout.write(f"\nwith {CUTS} cuts: in {told(sent)}, out {told(fetched)}\n")
    assert (arrived.size, arrived.sha256) == (sent.size, sent.sha256)
    assert (fetched.size, fetched.sha256) == (there.size, there.sha256)
    assert sum(n for name, n in cloud.fault_counts.items() if name.startswith("cut_")) >= 2 * CUTS


def told(transfer: Transfer) -> str:
    return f"{transfer.size / 1e6:.0f} MB in {transfer.seconds:.1f} s"
