"""A client that is killed leaves nothing at the database: no backend, no lock, no row."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from emissary_lib.protocol.auth.keys import format_keys
from emissary_local import LocalCloud
from tests.helpers.cuts import edited_template
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS, ROOT
from tests.helpers.patience import wait_until
from tools.demo.postgres import Postgres

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: The relay's times, in seconds: after them a dialer is given up on, whether or not anything has told of its
#: death (docs/protocol.md section 5.5). Long enough for a busy machine to answer in time, or to come back.
RELAY = {"ping": 1.0, "pong": 3.0, "probe": 1.0, "grace": 5.0}

#: A client: through the tunnel it writes a row, and then stays as it is. Without the setting PostgreSQL looks
#: after its client only between two statements, through a tunnel or not.
CLIENT = """
import os
import sys
import psycopg
from emissary_lib import Dialer
from emissary_lib.client.config import ClientConfig
config = ClientConfig.from_env(os.environ)
with Dialer(config.url, config.key).forward(sys.argv[1], timeout=60) as (host, port):
    connection = psycopg.connect(sys.argv[2], host=host, port=port)
    connection.execute("set client_connection_check_interval = 200")
    connection.execute("insert into orphans values (1)")
    if sys.argv[3]:
        connection.execute(sys.argv[3])
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A cloud whose relays wait for nobody for long."""
    template = edited_template(tmp_path_factory.mktemp("brisk"), **RELAY)
    with LocalCloud(template, parameters=PARAMETERS) as running:
        yield running


@pytest.fixture
def observer(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A connection past the tunnel, and an empty table."""
    with psycopg.connect(**postgres.direct, autocommit=True) as connection:
        connection.execute("create table orphans (id int)")
        try:
            yield connection
        finally:
            connection.execute("drop table orphans")


@contextlib.contextmanager
def client(cloud: LocalCloud, postgres: Postgres, name: str, query: str) -> Iterator[subprocess.Popen[bytes]]:
    """:data:`CLIENT` in a process of its own, by an application's name; killed at the end at the latest."""
    named = postgres.through("", 0) | {"application_name": name}
    parameters = " ".join(f"{key}={value}" for key, value in named.items() if key not in ("host", "port"))
    environ = {"EMISSARY_URL": cloud.url, "EMISSARY_AUTH_KEYS": format_keys([cloud.key])}
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, f"{postgres.host}:{postgres.port}", parameters, query],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def backends(observer: psycopg.Connection, name: str) -> list[tuple[str, str]]:
    """State and last statement of each backend that serves the application."""
    found: list[tuple[str, str]] = observer.execute(
        "select state, query from pg_stat_activity where application_name = %s", [name]
    ).fetchall()
    return found


@pytest.mark.parametrize("unnoticed", [False, True], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize(
    ("query", "state"),
    [("", "idle in transaction"), ("select pg_sleep(600)", "active")],
    ids=["open", "busy"],
)
def test_client_that_is_killed_leaves_no_backend_and_no_lock(
    brisk: LocalCloud,
    postgres: Postgres,
    observer: psycopg.Connection,
    query: str,
    state: str,
    unnoticed: bool,
) -> None:
    name = f"orphan-{state[:4]}-{unnoticed}"
    with client(brisk, postgres, name, query) as process:
        last = query or "insert into orphans values (1)"
        wait_until(lambda: backends(observer, name) == [(state, last)], "the statement")
        if unnoticed:  # no $disconnect comes, and posts to it are still answered 200
            assert brisk.cut("dialer", "silent", -1) == 1
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not backends(observer, name), "the end of the backend")
    with observer.transaction():
        observer.execute("lock table orphans in access exclusive mode nowait")  # nobody has any lock on it
        assert observer.execute("select count(*) from orphans").fetchone() == (0,)
