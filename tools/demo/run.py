"""The demo from its beginning to its exit status."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Final, TextIO

import psycopg
import sqlalchemy.exc

from emissary_lib.client.dialer import Dialer
from emissary_local import LocalCloud
from emissary_local.billing.meter import MeterSnapshot
from tools.demo import bulk, migrate, verify
from tools.demo.errors import DemoError
from tools.demo.postgres import Postgres, embedded_postgres
from tools.demo.report import Progress, Report
from tools.demo.verify import Check

#: Bytes of each COPY, at least.
COPY_SIZE: Final = 20_000_000

#: Dials that do nothing but measure themselves.
_EXTRA_DIALS: Final = 5

#: ``SELECT 1`` statements, for the round trip.
_ROUND_TRIPS: Final = 50

#: Seconds for the relays to hear that their sessions are over, and for the last ``$disconnect``.
_SETTLE: Final = 5.0


def run_demo(template: str, *, out: TextIO, copy_size: int = COPY_SIZE) -> int:
    """Migrate and fill a database through the local cloud, then ask the database itself whether all is there.

    Args:
        template: Path of the SAM template; the functions' code is looked for beside it.
        out: Where to write progress and the table.
        copy_size: Bytes of each COPY, at least.

    Returns:
        0 if everything stands in the database as it should, and the functions were allowed all that they
        asked of AWS; else 1.

    Raises:
        DemoError: A step failed; the text names it.
        LocalCloudError: The local cloud did not start.

    Blocking: about ten seconds.

    Thread safety: call it from the main thread (see :func:`embedded_postgres`).
    """
    progress, report = Progress(out), Report()
    begun = time.monotonic()
    with _start_postgres(progress) as postgres:
        _through_the_tunnel(postgres, template, progress, report, copy_size, out)
        with progress.step("Asking the database itself, over its Unix socket"):
            with psycopg.connect(**postgres.direct, autocommit=True) as connection:
                report.checks += verify.check_history(connection)
                report.checks += _check_copies(connection, report)
    out.write(f"\n{report.table()}  {'took':<16}{time.monotonic() - begun:.1f} s\n")
    out.flush()
    return 0 if report.ok else 1


@contextlib.contextmanager
def _start_postgres(progress: Progress) -> Iterator[Postgres]:
    """The embedded PostgreSQL, with a line of progress for its start."""
    with contextlib.ExitStack() as stack:
        with progress.step("Starting PostgreSQL"):
            server = stack.enter_context(embedded_postgres())
        yield server


def _through_the_tunnel(
    postgres: Postgres, template: str, progress: Progress, report: Report, copy_size: int, out: TextIO
) -> None:
    """Everything that goes through the local cloud; what was measured is added to ``report``."""
    cloud = LocalCloud(template, targets=[(postgres.host, postgres.port)])
    with progress.step("Starting the local cloud: API Gateway, Lambda, DynamoDB"):
        cloud.start()
    try:
        with Dialer(cloud.url, cloud.key, ssl_context=cloud.ssl_context) as dialer:
            _work(postgres, dialer, progress, report, copy_size)
        report.meter = _settled_meter(cloud)
        report.checks.append(Check("no AWS call was refused", [], _denials(cloud)))
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        out.write(_refusals_and_log(cloud))
        raise DemoError(f"a statement failed: {error}") from error
    except Exception:
        out.write(_refusals_and_log(cloud))
        raise
    finally:
        cloud.close()


def _work(postgres: Postgres, dialer: Dialer, progress: Progress, report: Report, copy_size: int) -> None:
    target = (postgres.host, postgres.port)

    def dial() -> socket.socket:
        begun = time.monotonic()
        sock = dialer.dial(target)
        report.dials.append(time.monotonic() - begun)
        return sock

    def on_revision(revision: str) -> None:
        report.applied.append(revision)
        progress.line(revision)

    with progress.step("Applying the Alembic history: SQLAlchemy, pg8000, a dialled socket"):
        migrate.upgrade(migrate.engine(postgres, dial), on_revision)
    with progress.step(f"Dialling {_EXTRA_DIALS} times"):
        for _ in range(_EXTRA_DIALS):
            dial().close()
    with psycopg.connect(**postgres.direct, autocommit=True) as direct:
        bulk.create_tables(direct, copy_size)
    with dialer.forward(target) as (host, port):
        with psycopg.connect(**postgres.through(host, port), autocommit=True) as connection:
            _with_psycopg(connection, progress, report, copy_size)


def _with_psycopg(
    connection: psycopg.Connection[Any], progress: Progress, report: Report, copy_size: int
) -> None:
    with progress.step("Reading it back: psycopg, a forwarded port"):
        found, expected = verify.read_orders(connection), verify.expected_orders()
        report.checks.append(
            Check("orders as read through the tunnel", verify.digest(expected), verify.digest(found))
        )
    with progress.step(f"{_ROUND_TRIPS} times SELECT 1"):
        for _ in range(_ROUND_TRIPS):
            begun = time.monotonic()
            connection.execute("SELECT 1")
            report.round_trips.append(time.monotonic() - begun)
    with progress.step(f"COPY {copy_size / 1e6:.0f} MB in "):
        report.sent = bulk.copy_in(connection, copy_size, progress.share)
    with progress.step(f"COPY {copy_size / 1e6:.0f} MB out"):
        report.received = bulk.copy_out(connection, "bulk_out", copy_size, progress.share)


def _check_copies(connection: psycopg.Connection[Any], report: Report) -> list[Check]:
    """Compare what went through the tunnel with what the database itself holds."""
    checks = []
    for what, table, through in (
        ("COPY in", "bulk_in", report.sent),
        ("COPY out", "bulk_out", report.received),
    ):
        held = bulk.copy_out(connection, table, 1)
        moved = None if through is None else (through.size, through.sha256)
        checks.append(Check(f"{what}: size and SHA-256", (held.size, held.sha256), moved))
    return checks


def _settled_meter(cloud: LocalCloud) -> MeterSnapshot:
    """The meter once all relays and ``$disconnect`` have ended, which is when Lambda bills them."""
    deadline = time.monotonic() + _SETTLE
    while True:
        meter = cloud.meter
        # Each session has two connections: the dialer's and its relay's.
        relays = meter.invocations.get("RelayFunction", 0) >= meter.connects // 2
        left = meter.invocations.get("DisconnectFunction", 0) >= meter.connects - meter.refused_connects
        if (relays and left) or time.monotonic() > deadline:
            return meter
        time.sleep(0.05)


def _denials(cloud: LocalCloud) -> list[str]:
    """What a function has asked of AWS that no policy in the template allows; each once."""
    return list(dict.fromkeys(each.message for each in cloud.denials()))


def _refusals_and_log(cloud: LocalCloud) -> str:
    lines = cloud.logs().splitlines()[-20:] if cloud.alive else []
    refused = [f"AWS refused a call: {message}" for message in _denials(cloud)] if cloud.alive else []
    return "".join(f"    {line}\n" for line in ["", *refused, "The functions' last log lines:", *lines])
