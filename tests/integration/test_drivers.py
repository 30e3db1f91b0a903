"""Every driver that people use, while every second message is late and connections are cut in its work.

Each does a piece of work in steps, with a cut before each; what it has written is read back by another way,
and what it reads is known.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import aiomysql
import asyncpg
import mysql.connector
import pg8000.dbapi
import psycopg
import psycopg2
import psycopg2.extras
import pymysql
import pytest
import redis
import sqlalchemy

from emissary_lib import Dialer
from emissary_local import Faults, LocalCloud
from tests.helpers.cuts import CUT_WAYS, cut
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of
from tests.helpers.patience import HANG
from tests.helpers.real_servers import behind, mariadb_words, postgres_program, redis_words
from tools.demo.postgres import Postgres

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: Pieces of each driver's work, with a cut before each.
CUTS = 5

#: Rows of one piece, and the text of each: several messages a piece.
ROWS, TEXT = 200, "x" * 400

Address = tuple[str, int]


@pytest.fixture(scope="module")
def rough() -> Iterator[LocalCloud]:
    """Every second message is overtaken by later ones."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=Faults(seed=11, reorder=0.5)) as running:
        yield running


@pytest.fixture
def dialer(rough: LocalCloud) -> Iterator[Dialer]:
    with dialer_of(rough, connections_per_relay=32) as made:
        yield made


@pytest.fixture
def cuts(rough: LocalCloud) -> Callable[[], None]:
    """Cuts a connection, in another way each time."""
    ways = itertools.cycle(CUT_WAYS)
    return lambda: cut(rough, *next(ways))


@pytest.fixture
def forwarded(dialer: Dialer, postgres: Postgres) -> Iterator[Address]:
    with dialer.forward((postgres.host, postgres.port), timeout=DIAL) as (host, port):
        yield host, port


@pytest.fixture(autouse=True)
def _fresh(postgres: Postgres) -> None:
    with psycopg.connect(**postgres.direct) as direct:
        direct.execute("drop table if exists driven")
        direct.execute("create table driven (id int primary key, text text)")


def rows(step: int) -> list[tuple[int, str]]:
    return [(step * ROWS + number, TEXT) for number in range(ROWS)]


def all_rows() -> list[tuple[int, str]]:
    return [row for step in range(CUTS) for row in rows(step)]


def stored(postgres: Postgres) -> list[tuple[int, str]]:
    """What has arrived, by a way without a tunnel."""
    with psycopg.connect(**postgres.direct) as direct:
        return [(int(key), str(text)) for key, text in direct.execute("select * from driven order by id")]


def test_psycopg(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    with psycopg.connect(**postgres.through(*forwarded)) as connection, connection.cursor() as cursor:
        for step in range(CUTS):
            cuts()
            cursor.executemany("insert into driven values (%s, %s)", rows(step))
        assert cursor.execute("select * from driven order by id").fetchall() == all_rows()
    assert stored(postgres) == all_rows()


def test_psycopg_async(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    async def work() -> None:
        connect = psycopg.AsyncConnection.connect(**postgres.through(*forwarded))
        async with await connect as connection, connection.cursor() as cursor:
            for step in range(CUTS):
                await asyncio.to_thread(cuts)
                await cursor.executemany("insert into driven values (%s, %s)", rows(step))
            await cursor.execute("select * from driven order by id")
            assert await cursor.fetchall() == all_rows()

    asyncio.run(work())
    assert stored(postgres) == all_rows()


def test_psycopg2(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    with closing(psycopg2.connect(**postgres.through(*forwarded))) as connection:
        with connection, connection.cursor() as cursor:
            for step in range(CUTS):
                cuts()
                psycopg2.extras.execute_values(cursor, "insert into driven values %s", rows(step))
            cursor.execute("select * from driven order by id")
            assert cursor.fetchall() == all_rows()
    assert stored(postgres) == all_rows()


def test_pg8000_over_the_socket_itself(dialer: Dialer, postgres: Postgres, cuts: Callable[[], None]) -> None:
    sock = dialer.dial((postgres.host, postgres.port), DIAL)
    connection = pg8000.dbapi.connect(
        postgres.user, database=postgres.database, password=postgres.password, sock=sock
    )
    with sock, closing(connection), closing(connection.cursor()) as cursor:
        for step in range(CUTS):
            cuts()
            # One message for all: its executemany is a round trip for each row.
            keys, texts = zip(*rows(step), strict=True)
            cursor.execute(
                "insert into driven select * from unnest(%s::int[], %s::text[])", (list(keys), list(texts))
            )
        cursor.execute("select * from driven order by id")
        assert [tuple(row) for row in cursor.fetchall()] == all_rows()
        connection.commit()
    assert stored(postgres) == all_rows()


def test_asyncpg_with_a_pool(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    async def work() -> None:
        host, port = forwarded
        pool = await asyncpg.create_pool(
            host=host,
            port=port,
            user=postgres.user,
            password=postgres.password,
            database=postgres.database,
            ssl=False,
            min_size=3,
            max_size=3,
            timeout=DIAL,
        )
        async with pool:
            for step in range(CUTS):
                await asyncio.to_thread(cuts)
                size = ROWS // 4
                parts = [rows(step)[at : at + size] for at in range(0, ROWS, size)]
                inserts = (pool.executemany("insert into driven values ($1, $2)", part) for part in parts)
                await asyncio.gather(*inserts)
            found = await pool.fetch("select * from driven order by id")
            assert [tuple(row) for row in found] == all_rows()

    asyncio.run(work())
    assert stored(postgres) == all_rows()


def test_sqlalchemy(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    host, port = forwarded
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", postgres.user, postgres.password, host, port, postgres.database
    ).update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
    engine = sqlalchemy.create_engine(url)
    insert = sqlalchemy.text("insert into driven values (:id, :text)")
    try:
        with engine.begin() as connection:
            for step in range(CUTS):
                cuts()
                connection.execute(insert, [{"id": key, "text": text} for key, text in rows(step)])
            found = connection.execute(sqlalchemy.text("select * from driven order by id"))
            assert [tuple(row) for row in found] == all_rows()
    finally:
        engine.dispose()
    assert stored(postgres) == all_rows()


#: A project of Django's in one file: it migrates everything that Django brings, and one model's rows.
DJANGO = """
import os, sys
from django.conf import settings
host, port, user, password, name = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": port, "USER": user,
        "PASSWORD": password, "NAME": name, "OPTIONS": {"sslmode": "disable", "gssencmode": "disable"},
    }},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
print("migrated", flush=True)
for line in sys.stdin:
    User.objects.bulk_create([User(username=f"{line.strip()}-{n}", password="x" * 100) for n in range(200)])
    print(User.objects.count(), flush=True)
"""


def test_django_migrates(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    host, port = forwarded
    words = [
        sys.executable,
        "-c",
        DJANGO,
        host,
        str(port),
        postgres.user,
        postgres.password,
        postgres.database,
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        try:
            assert program.stdout.readline() == "migrated\n"
            for step in range(CUTS):
                cuts()
                program.stdin.write(f"{step}\n")
                program.stdin.flush()
                assert program.stdout.readline() == f"{(step + 1) * 200}\n"
            program.stdin.close()
            assert program.wait(HANG) == 0
        finally:
            program.kill()


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    directory = tmp_path_factory.mktemp("mariadb")
    with behind(*mariadb_words(directory), directory=directory) as (host, port):
        with closing(pymysql.connect(host=host, port=port, user="root")) as direct:
            direct.cursor().execute("create database driven")
        yield host, port


needs_mariadb = pytest.mark.skipif(shutil.which("mariadbd") is None, reason="no mariadbd is installed")

CREATE = "create or replace table driven.driven (id int primary key, text text)"
INSERT, SELECT = "insert into driven.driven values (%s, %s)", "select * from driven.driven order by id"


@needs_mariadb
def test_pymysql(dialer: Dialer, mariadb: Address, cuts: Callable[[], None]) -> None:
    with dialer.forward(mariadb, timeout=DIAL) as (host, port):
        with closing(pymysql.connect(host=host, port=port, user="root", connect_timeout=60)) as connection:
            with connection.cursor() as cursor:
                cursor.execute(CREATE)
                for step in range(CUTS):
                    cuts()
                    cursor.executemany(INSERT, rows(step))
                cursor.execute(SELECT)
                assert list(cursor.fetchall()) == all_rows()


@needs_mariadb
def test_mysql_connector(dialer: Dialer, mariadb: Address, cuts: Callable[[], None]) -> None:
    with dialer.forward(mariadb, timeout=DIAL) as (host, port):
        connection = mysql.connector.connect(
            host=host, port=port, user="root", use_pure=True, connection_timeout=60
        )
        with closing(connection), closing(connection.cursor()) as cursor:
            cursor.execute(CREATE)
            for step in range(CUTS):
                cuts()
                cursor.executemany(INSERT, rows(step))
            cursor.execute(SELECT)
            assert cursor.fetchall() == all_rows()


@needs_mariadb
def test_aiomysql(dialer: Dialer, mariadb: Address, cuts: Callable[[], None]) -> None:
    async def work(host: str, port: int) -> None:
        connection = await aiomysql.connect(host=host, port=port, user="root", connect_timeout=60)
        async with connection.cursor() as cursor:
            await cursor.execute(CREATE)
            for step in range(CUTS):
                await asyncio.to_thread(cuts)
                await cursor.executemany(INSERT, rows(step))
            await cursor.execute(SELECT)
            assert list(await cursor.fetchall()) == all_rows()
        await connection.ensure_closed()

    with dialer.forward(mariadb, timeout=DIAL) as (host, port):
        asyncio.run(work(host, port))


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
def test_redis_py(dialer: Dialer, cuts: Callable[[], None], tmp_path: pathlib.Path) -> None:
    with behind(*redis_words(), directory=tmp_path) as address:
        with dialer.forward(address, timeout=DIAL) as (host, port):
            with redis.Redis(host, port, decode_responses=True) as client:
                for step in range(CUTS):
                    cuts() if step else client.ping()
                    with client.pipeline() as pipeline:
                        for key, text in rows(step):
                            pipeline.set(str(key), text)
                        pipeline.execute()
                assert client.mget([str(key) for key, _text in all_rows()]) == [TEXT] * len(all_rows())


def program(name: str, *words: str, forwarded: Address, postgres: Postgres) -> subprocess.Popen[str]:
    """One of PostgreSQL's own programs, through the tunnel."""
    host, port = forwarded
    environ = {
        **os.environ,
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": postgres.user,
        "PGPASSWORD": postgres.password,
        "PGDATABASE": postgres.database,
        "PGSSLMODE": "disable",
        "PGGSSENCMODE": "disable",
    }
    return subprocess.Popen(
        [postgres_program(name), *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(running: subprocess.Popen[str]) -> str:
    with running:
        try:
            said, _none = running.communicate(timeout=HANG)
        finally:
            running.kill()
    assert running.returncode == 0, said
    return said


def test_pgbench(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    finish(program("pgbench", "-i", "-I", "dtGp", "-q", forwarded=forwarded, postgres=postgres))
    running = program("pgbench", "-c", "4", "-t", "20", "-n", forwarded=forwarded, postgres=postgres)
    try:
        for _ in range(CUTS):
            cuts()
    finally:
        said = finish(running)
    assert "number of transactions actually processed: 80/80" in said
    with psycopg.connect(**postgres.direct) as direct:
        assert direct.execute("select count(*) from pgbench_history").fetchone() == (80,)


def test_listen_and_notify(forwarded: Address, postgres: Postgres, cuts: Callable[[], None]) -> None:
    with (
        psycopg.connect(**postgres.through(*forwarded), autocommit=True) as connection,
        psycopg.connect(**postgres.direct, autocommit=True) as direct,
    ):
        connection.execute("listen driven")
        for step in range(CUTS):
            cuts()
            direct.execute("select pg_notify('driven', %s)", [str(step)])
        heard = list(connection.notifies(timeout=HANG, stop_after=CUTS))
    assert [each.payload for each in heard] == [str(step) for step in range(CUTS)]


def test_pg_dump_and_pg_restore_in_parallel(
    forwarded: Address, postgres: Postgres, cuts: Callable[[], None], tmp_path: pathlib.Path
) -> None:
    with psycopg.connect(**postgres.direct) as direct:
        for number in range(4):
            direct.execute(f"drop table if exists dumped_{number}")
            rows = "select n, repeat('d', 500) t from generate_series(1, 4000) n"
            direct.execute(f"create table dumped_{number} as {rows}")
    tables = [word for number in range(4) for word in ("-t", f"dumped_{number}")]
    dump = ["-Fd", "-j", "3", "-Z0", "-f", str(tmp_path / "dump"), *tables]
    for name, words in (
        ("pg_dump", dump),
        ("pg_restore", ["-j", "3", "-d", postgres.database, "--clean", str(tmp_path / "dump")]),
    ):
        running = program(name, *words, forwarded=forwarded, postgres=postgres)
        try:
            for _ in range(CUTS):
                cuts()
        finally:
            finish(running)
    with psycopg.connect(**postgres.direct) as direct:
        for number in range(4):
            count = f"select count(*), sum(n), min(t) from dumped_{number}"
            found = direct.execute(count).fetchone()
            assert found == (4000, 8_002_000, "d" * 500)
