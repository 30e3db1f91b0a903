"""Drivers through the tunnel: PostgreSQL with psycopg, pg8000 and SQLAlchemy, with TLS and without."""

from __future__ import annotations

import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pg8000.dbapi
import psycopg
import pytest
import sqlalchemy
import trustme

from emissary_lib import Dialer
from emissary_local import LocalCloud
from emissary_local.net.certificates import Certificates, create_certificates
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    ROOT,
    TEMPLATE,
    eventually,
    relay_returned,
)
from tests.helpers.patience import HANG
from tests.helpers.servers import Server
from tests.helpers.tls_front import postgres_over_tls
from tools.demo.postgres import Postgres

pytestmark = LINUX_ONLY

#: More than any driver reads at once, and than one frame holds.
ROWS = 30_000

#: Debian's, say; that of the embedded PostgreSQL has no TLS.
PSQL = shutil.which("psql")

#: How often psql is run: what it is about happened to every eighth.
PSQL_RUNS = int(os.environ.get("PSQL_RUNS") or 10)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(postgres: Postgres, certificates: Certificates) -> Iterator[tuple[str, int]]:
    """The same server behind TLS."""
    service = postgres_over_tls((postgres.host, postgres.port), certificates.server_context())
    with Server(service) as address:
        yield address


def target(postgres: Postgres) -> tuple[str, int]:
    return postgres.host, postgres.port


def test_psycopg_through_a_forwarded_port(dialer: Dialer, postgres: Postgres) -> None:
    with dialer.forward(target(postgres), timeout=DIAL) as (host, port):
        with psycopg.connect(**postgres.through(host, port)) as connection:
            rows = connection.execute(
                "select n, repeat('x', 50) from generate_series(1, %s) n", [ROWS]
            ).fetchall()
            assert len(rows) == ROWS
            assert rows[-1] == (ROWS, "x" * 50)


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_psycopg_with_tls_inside_the_tunnel(
    dialer: Dialer, postgres: Postgres, secure: tuple[str, int], certificates: Certificates, mode: str
) -> None:
    with dialer.forward(secure, timeout=DIAL) as (_host, port):
        parameters = postgres.through("localhost", port) | {"sslmode": mode}
        if mode == "verify-full":
            parameters |= {"sslrootcert": certificates.ca_file}
        with psycopg.connect(**parameters) as connection:
            assert connection.pgconn.ssl_in_use
            row = connection.execute("select count(*) from generate_series(1, 1000)").fetchone()
            assert row == (1000,)


def test_tls_that_the_target_does_not_have_is_not_dropped_in_silence(
    dialer: Dialer, postgres: Postgres
) -> None:
    with dialer.forward(target(postgres), timeout=DIAL) as (host, port):
        with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
            psycopg.connect(**(postgres.through(host, port) | {"sslmode": "require"}))


@pytest.mark.slow
@pytest.mark.skipif(PSQL is None, reason="no psql on this machine")
@pytest.mark.parametrize("slow_to_exit", [True, False])
@pytest.mark.parametrize("latency", ["none", "aws"])
def test_psql_over_tls_through_exec_ends_without_an_alarm(
    latency: str, slow_to_exit: bool, postgres: Postgres, certificates: Certificates
) -> None:
    """Symptom: the server closes at psql's last word, its kernel resets at TLS's, and the command alarmed.

    On a slow way psql is gone before the server's own last word comes, and its kernel resets at that.
    """
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, latency=latency) as cloud:
        run_psql_over_tls(cloud, postgres, certificates, slow_to_exit)


def run_psql_over_tls(
    cloud: LocalCloud, postgres: Postgres, certificates: Certificates, slow_to_exit: bool
) -> None:
    environ = {**os.environ, **cloud.application.client_variables(cloud.url), "PGPASSWORD": postgres.password}
    where = f"host={{host}} port={{port}} user={postgres.user} dbname={postgres.database}"
    psql = ["psql", f"{where} sslmode=require gssencmode=disable", "-XAtc", "select 6 * 7"]
    context = certificates.server_context()
    with Server(postgres_over_tls(target(postgres), context, slow_to_exit=slow_to_exit)) as (host, port):
        command = [sys.executable, "-m", "emissary_lib", "exec", f"{host}:{port}", "--", *psql]
        for number in range(PSQL_RUNS):
            done = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=HANG, check=False
            )
            assert (number, done.returncode, done.stdout, done.stderr) == (number, 0, "42\n", "")


@pytest.mark.slow
@pytest.mark.skipif(PSQL is None, reason="no psql on this machine")
def test_plain_psql_through_exec_verifies_the_target_s_name(
    cloud: LocalCloud, postgres: Postgres, tmp_path: pathlib.Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)  # and not for 127.0.0.1, where psql connects
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
        **cloud.application.client_variables(cloud.url),
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(tmp_path / "ca.pem"),
        "PGUSER": postgres.user,
        "PGPASSWORD": postgres.password,
        "PGDATABASE": postgres.database,
    }
    query = ["-XAtc", "select 6 * 7"]
    with Server(postgres_over_tls(target(postgres), context, slow_to_exit=True)) as (_host, port):

        def psql(options: list[str], *words: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable,
                "-m",
                "emissary_lib",
                "exec",
                *options,
                f"localhost:{port}",
                "--",
                *words,
            ]
            url = {"DATABASE_URL": f"postgresql://localhost:{port}/?gssencmode=disable"}
            return subprocess.run(
                command,
                cwd=ROOT,
                env=environ | url,
                capture_output=True,
                text=True,
                timeout=HANG,
                check=False,
            )

        for words in (["psql", *query], ["sh", "-c", 'psql "$DATABASE_URL" -XAtc "select 6 * 7"']):
            done = psql(["--as", "postgres"], *words)
            assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")
        done = psql(["--no-env"], "psql", "-h", "{host}", "-p", "{port}", *query)
    assert done.returncode == 2
    assert 'certificate for "localhost" does not match host name "127.0.0.1"' in done.stderr


def pg8000_connection(postgres: Postgres, sock: Any, ssl_context: Any = None) -> pg8000.dbapi.Connection:
    return pg8000.dbapi.connect(
        user=postgres.user,
        password=postgres.password,
        database=postgres.database,
        sock=sock,
        ssl_context=ssl_context,
    )


def test_pg8000_over_the_dialled_socket(cloud: LocalCloud, either_dialer: Dialer, postgres: Postgres) -> None:
    with either_dialer.dial(target(postgres), DIAL) as sock:
        sock.settimeout(HANG)
        info = sock.session
        assert info is not None
        with closing(pg8000_connection(postgres, sock)) as connection:
            cursor = connection.cursor()
            cursor.execute("select n, repeat('y', 50) from generate_series(1, %s) n", (ROWS,))
            assert len(cursor.fetchall()) == ROWS
    assert relay_returned(cloud, info.id) == "OK"


def test_sqlalchemy_with_a_creator_pools_dialled_connections(dialer: Dialer, postgres: Postgres) -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+pg8000://",
        creator=lambda: pg8000_connection(postgres, dialer.dial(target(postgres), DIAL)),
        pool_size=2,
    )
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table pooled (id int primary key, name text)"))
            connection.execute(
                sqlalchemy.text("insert into pooled values (:id, :name)"),
                [{"id": number, "name": f"row {number}"} for number in range(100)],
            )
        with engine.connect() as one, engine.connect() as other:
            count = sqlalchemy.text("select count(*), max(name) from pooled")
            assert one.execute(count).one() == other.execute(count).one() == (100, "row 99")
    finally:
        engine.dispose()


def fail_halfway(engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table never (id int)"))
        connection.execute(sqlalchemy.text("select no_such_column"))


def test_sqlalchemy_over_a_forwarded_port_rolls_back(dialer: Dialer, postgres: Postgres) -> None:
    with dialer.forward(target(postgres), timeout=DIAL) as (host, port):
        url = sqlalchemy.URL.create(
            "postgresql+psycopg",
            username=postgres.user,
            password=postgres.password,
            host=host,
            port=port,
            database=postgres.database,
            query={"sslmode": "disable", "gssencmode": "disable"},
        )
        engine = sqlalchemy.create_engine(url)
        try:
            with pytest.raises(sqlalchemy.exc.ProgrammingError):
                fail_halfway(engine)
            assert not sqlalchemy.inspect(engine).has_table("never")
        finally:
            engine.dispose()


def test_copy_both_ways_is_byte_identical(dialer: Dialer, postgres: Postgres, tmp_path: pathlib.Path) -> None:
    lines = b"".join(b"%d\t%s\n" % (number, b"z" * (number % 300)) for number in range(20_000))
    with dialer.forward(target(postgres), timeout=DIAL) as (host, port):
        with psycopg.connect(**postgres.through(host, port)) as connection:
            connection.execute("create temporary table copied (id int, name text)")
            with connection.cursor() as cursor:
                with cursor.copy("copy copied from stdin") as copy:
                    copy.write(lines)
                with cursor.copy("copy (select * from copied order by id) to stdout") as out:
                    assert b"".join(map(bytes, out)) == lines


def test_running_query_is_cancelled_over_a_second_connection(dialer: Dialer, postgres: Postgres) -> None:
    # PostgreSQL's cancel request is a TCP connection of its own, to the same address.
    raised: list[BaseException] = []
    with (
        dialer.forward(target(postgres), timeout=DIAL) as (host, port),
        psycopg.connect(**postgres.direct) as observer,
        psycopg.connect(**postgres.through(host, port)) as connection,
    ):

        def run() -> None:
            try:
                connection.execute("select pg_sleep(500)")
            except psycopg.Error as exc:
                raised.append(exc)

        def running() -> bool | None:
            found = observer.execute(
                "select 1 from pg_stat_activity where query = 'select pg_sleep(500)' and state = 'active'"
            ).fetchone()
            observer.rollback()  # else the view stands still
            return found is not None or None

        thread = threading.Thread(target=run, name="query")
        thread.start()
        eventually(running, "the query")
        connection.cancel_safe(timeout=HANG)
        thread.join(HANG)
        assert [type(exc) for exc in raised] == [psycopg.errors.QueryCanceled]
        connection.rollback()
        assert connection.execute("select 1").fetchone() == (1,)
