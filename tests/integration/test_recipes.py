"""The code of docs/drivers.md and of the guides, as it stands there, on the whole stack and on real servers.

Only the servers' names and ports are replaced. What verifies a certificate's name has to fail where the same
authority has given the server another name.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, Final

import psycopg
import pymysql
import pytest
import trustme

from emissary_lib import Dialer
from emissary_lib.client.forward import Forwarded, Happening
from emissary_lib.client.socks import SocksServer
from emissary_local import LocalCloud
from tests.helpers.clusters import RedisCluster, ReplicaSet
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, ROOT, all_tunnels_over
from tests.helpers.patience import HANG
from tests.helpers.real_servers import behind, mariadb_words, redis_cluster, redis_words
from tests.helpers.servers import Server, Service
from tests.helpers.tls_front import pass_on, postgres_over_tls
from tests.helpers.vpc import Vpc
from tests.infra.documents import fenced
from tools.demo.postgres import Postgres

pytestmark = [LINUX_ONLY, pytest.mark.slow]

DRIVERS: Final = "docs/drivers.md"

#: The block that all others of docs/drivers.md need.
PREAMBLE: Final = next(iter(fenced(DRIVERS, "python")))

Address = tuple[str, int]


def blocks(document: str, server: str) -> list[Any]:
    """The blocks of code that print something of a server."""
    whole = [each for each in fenced(document, "python") if each.startswith("import") and "print(" in each]
    found = [each for each in whole if server in each]
    return [
        pytest.param(each, id=f"{server.partition('(')[0]}-{number}") for number, each in enumerate(found)
    ]


def of_postgres(document: str) -> list[Any]:
    return blocks(document, "db.internal:5432") + blocks(document, "asyncpg.connect(")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


@pytest.fixture(scope="module")
def app(postgres: Postgres) -> Postgres:
    """The server has a database and a user as the documents name them."""
    with psycopg.connect(**postgres.direct, autocommit=True) as direct:
        direct.execute("create role app login password 'secret'")
        direct.execute("create database app owner app")
    return postgres


@pytest.fixture(scope="module")
def fronts(app: Postgres, authority: trustme.CA) -> Iterator[dict[str, Address]]:
    """The same database behind TLS, by the name of a certificate."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Server(postgres_over_tls((app.host, app.port), context(authority, name)))
            )
            for name in ("localhost", "other.internal")
        }


@pytest.fixture
def place(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, cloud: LocalCloud, authority: trustme.CA
) -> pathlib.Path:
    """The current directory, with the authority's file; the environment has the settings."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, value in cloud.application.client_variables(cloud.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def here(code: str, port: int) -> str:
    """The code with the address of a server of this machine."""
    for there, its in (("db.internal", 5432), ("db.internal", 3306), ("cache.internal", 6379)):
        code = code.replace(f"{there}:{its}", f"localhost:{port}").replace(f"port={its}", f"port={port}")
    return code.replace("db.internal", "localhost").replace("cache.internal", "localhost")


def run(code: str, port: int) -> None:
    names: dict[str, Any] = {}
    with all_tunnels_over():
        exec(PREAMBLE, names)
        dialers = [names["dialer"]]
        try:
            exec(compile(here(code, port), "a document", "exec"), names)
            dialers.append(names["dialer"])
        finally:
            for each in dialers:
                each.close()


@pytest.mark.parametrize("code", of_postgres(DRIVERS) + of_postgres("docs/guides/sqlalchemy.md"))
def test_code_for_postgresql_reaches_it(
    code: str, place: pathlib.Path, fronts: dict[str, Address], capsys: pytest.CaptureFixture[str]
) -> None:
    run(code, fronts["localhost"][1])
    assert capsys.readouterr().out.startswith("PostgreSQL ")


VERIFYING: Final = [each for each in of_postgres(DRIVERS) if "ca.pem" in each.values[0]]


@pytest.mark.parametrize("code", VERIFYING)
def test_code_for_postgresql_refuses_a_certificate_of_another_name(
    code: str, place: pathlib.Path, fronts: dict[str, Address], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception, match=r"(?i)certificate") as caught:
        run(code, fronts["other.internal"][1])
    assert "other.internal" in str(caught.value) or "Hostname mismatch" in str(caught.value)
    assert capsys.readouterr().out == ""


def test_every_driver_s_code_for_postgresql_is_among_these() -> None:
    code = "\n".join(each.values[0] for each in of_postgres(DRIVERS))
    for driver in ("psycopg", "psycopg2", "pg8000.dbapi", "asyncpg", "sqlalchemy"):
        assert f"import {driver}\n" in code
    assert len(VERIFYING) == len(of_postgres(DRIVERS)) == 6


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Address]:
    directory = tmp_path_factory.mktemp("mariadb")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    words = [
        *mariadb_words(directory),
        *(f"--ssl-{each}={directory / 'server.pem'}" for each in ("cert", "key")),
    ]
    with behind(*words, directory=directory) as (host, port):
        with closing(pymysql.connect(host=host, port=port, user="root")) as direct:
            direct.cursor().execute("create database app")
        yield host, port


@pytest.mark.skipif(shutil.which("mariadbd") is None, reason="no mariadbd is installed")
@pytest.mark.parametrize("code", blocks(DRIVERS, "db.internal:3306"))
def test_code_for_mysql_reaches_it(
    code: str, place: pathlib.Path, mariadb: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    run(code, mariadb[1])
    assert "MariaDB" in capsys.readouterr().out


def over_tls(server: Address, made: ssl.SSLContext) -> Service:
    def serve(connection: socket.socket) -> None:
        with (
            made.wrap_socket(connection, server_side=True) as secure,
            socket.create_connection(server) as back,
        ):
            pass_on(secure, back)

    return serve


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
def test_code_for_redis_reaches_it(
    place: pathlib.Path, authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    secure, plain = (each.values[0] for each in blocks(DRIVERS, '"cache.internal'))
    with behind(*redis_words(), directory=place) as server:
        run(plain, server[1])
        with Server(over_tls(server, context(authority, "localhost"))) as (_host, port):
            run(secure, port)
        assert capsys.readouterr().out == "True\nTrue\n"
        with Server(over_tls(server, context(authority, "other.internal"))) as (_host, port):
            with pytest.raises(Exception, match="Hostname mismatch"):
                run(secure, port)


#: A history of one step, whose env.py is as docs/guides/sqlalchemy.md says.
ALEMBIC_INI: Final = "[alembic]\nscript_location = history\n"
ENV: Final = """
import os
import sqlalchemy
from alembic import context

def run(connection):
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()

given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with sqlalchemy.create_engine(os.environ["DATABASE_URL"]).connect() as connection:
        run(connection)
"""
STEP: Final = """
import sqlalchemy
from alembic import op

revision, down_revision = "1", None

def upgrade():
    op.create_table("{table}", sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
"""


def history(place: pathlib.Path, table: str) -> None:
    (place / "history" / "versions").mkdir(parents=True)
    (place / "alembic.ini").write_text(ALEMBIC_INI)
    (place / "history" / "env.py").write_text(ENV)
    (place / "history" / "versions" / "1.py").write_text(STEP.format(table=table))


@pytest.fixture
def tables(app: Postgres) -> Container[str]:
    """The tables that are there when one is asked for; none at the start."""
    parameters = app.direct | {"dbname": "app", "user": "app", "password": "secret"}

    class Tables:
        def __contains__(self, name: object) -> bool:
            with psycopg.connect(**parameters) as direct:
                return direct.execute("select to_regclass(%s)", [str(name)]).fetchone() != (None,)

    with psycopg.connect(**parameters) as direct:
        direct.execute("drop schema public cascade")
        direct.execute("create schema public")
    return Tables()


def emissary(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emissary_lib", *words],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:.", **variables},
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip


def test_alembic_under_exec_migrates_by_database_url_with_the_name_verified(
    place: pathlib.Path, fronts: dict[str, Address], tables: Container[str]
) -> None:
    history(place, "made_by_url")
    for name, status in (("other.internal", 1), ("localhost", 0)):
        target = f"localhost:{fronts[name][1]}"
        url = f"postgresql+psycopg://app:secret@{target}/app?sslmode=verify-full&sslrootcert=ca.pem"
        alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
        done = emissary("exec", "--check", target, "--", *alembic, DATABASE_URL=url)
        assert (done.returncode, "does not match host name" in done.stderr) == (status, bool(status)), done
    assert "made_by_url" in tables


def test_alembic_runs_on_the_connection_that_it_is_given(
    place: pathlib.Path, fronts: dict[str, Address], tables: Container[str]
) -> None:
    history(place, "made_by_connection")
    engine, _forwarded, upgrade = (
        each for each in fenced("docs/guides/sqlalchemy.md", "python") if "engine" in each
    )
    run(f"{engine}\n{upgrade}\nupgrade(engine)", fronts["localhost"][1])
    assert "made_by_connection" in tables


APPS: Final = "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth']\n"


def test_django_migrates_under_exec_and_by_a_dialer_of_its_own(
    place: pathlib.Path, fronts: dict[str, Address], tables: Container[str]
) -> None:
    settings, own = fenced("docs/guides/django.md", "python")
    port = fronts["localhost"][1]
    (place / "settings.py").write_text(here(settings, port) + APPS)
    setup = "import django; django.setup()\n"
    variables = {"DJANGO_SETTINGS_MODULE": "settings", "DATABASE_PASSWORD": "secret"}
    migrate = "from django.core.management import call_command; call_command('migrate', 'contenttypes')"
    words = ["exec", "--as", "postgres", f"localhost:{port}", "--", sys.executable, "-c", setup + migrate]
    done = emissary(*words, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "django_content_type" in tables
    assert "auth_user" not in tables
    code = setup + textwrap.dedent(here(own, port)) + "\nmigrate()"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables, "PYTHONPATH": f"{ROOT}:."}, timeout=HANG, check=True,
    )  # fmt: skip
    assert "auth_user" in tables


#: Keys in each third of a Redis Cluster's slots.
KEYS: Final = ("b", "c", "a")


def of_clusters(package: str) -> str:
    pytest.importorskip(package)
    (code,) = (each for each in fenced("docs/guides/clusters.md", "python") if f"import {package}\n" in each)
    return code


def apart(code: str, hosts: Mapping[str, Address]) -> str:
    """What the code prints in a process of its own, with a SOCKS5 server to a VPC that has these hosts."""
    with SocksServer(("127.0.0.1", 0), Vpc(hosts).dial) as (_host, port):
        return printed(code, port)


def printed(code: str, port: int) -> str:
    """What the code prints in a process of its own, with the SOCKS5 server at that port."""
    for written in (", 1080", "=1080"):
        code = code.replace(written, written.replace("1080", str(port)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_code_for_a_redis_cluster_finds_its_nodes() -> None:
    code, cluster = of_clusters("redis"), RedisCluster()
    with cluster.running() as hosts:
        # The server here speaks the older protocol alone.
        code = code.replace("redis://node-a.internal:6379", f"redis://{cluster.names[0]}?protocol=2")
        code += f"print(*(client.set(key, key) and client.get(key) for key in {KEYS}))"
        assert apart(code, hosts) == "b'b' b'c' b'a'\n"
    assert set(cluster.served) == set(cluster.names)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
def test_code_for_a_redis_cluster_finds_the_nodes_of_a_real_one_through_the_whole_stack(
    tmp_path: pathlib.Path, either_dialer: Dialer
) -> None:
    """The nodes tell of each other, and send the client on, as they do in a VPC."""
    code, dialled = of_clusters("redis"), set[str]()

    def note(happening: Happening, connection: Forwarded) -> None:
        if happening is Happening.OPENED:
            dialled.add(connection.connection.target)

    with redis_cluster(tmp_path) as nodes, all_tunnels_over():
        code = code.replace("node-a.internal:6379", "{}:{}".format(*nodes[0]))
        code += f"print(*(client.set(key, key) and client.get(key) for key in {KEYS}))"
        server = either_dialer.socks(timeout=DIAL)
        server.on_happening = note
        with server as (_host, port):
            assert printed(code, port) == "b'b' b'c' b'a'\n"
    assert dialled == {f"{host}:{port}" for host, port in nodes}


def test_code_for_a_replica_set_finds_its_primary() -> None:
    code, members = of_clusters("pymongo"), ReplicaSet()
    with members.running() as hosts:
        code += "with client:\n    client.shop.orders.insert_one({'n': 1})\n    print(*client.primary)"
        assert apart(code, hosts) == "mongo-b.internal 27017\n"


def test_the_dialer_of_the_documents_reads_its_settings(place: pathlib.Path, cloud: LocalCloud) -> None:
    names: dict[str, Any] = {}
    exec(PREAMBLE, names)
    dialer = names["dialer"]
    assert isinstance(dialer, Dialer)
    assert dialer.health(DIAL).key_ids == (cloud.key.key_id,)
    dialer.close()
