"""The embedded PostgreSQL: asks for passwords, and leaves nothing behind."""

from __future__ import annotations

import os
import pathlib
import select
import signal
import subprocess
import sys

import psycopg
import pytest

from tests.helpers.patience import HANG
from tools.demo.postgres import Postgres, embedded_postgres
from tools.demo.postgres_files import server_account


def test_it_is_an_18_and_the_direct_way_is_a_unix_socket(server: Postgres) -> None:
    assert server.version.startswith("18.")
    with psycopg.connect(**server.direct) as connection:
        assert connection.execute("SELECT inet_server_addr() IS NULL").fetchone() == (True,)
        assert connection.info.server_version // 10_000 == 18


def test_it_listens_on_loopback(server: Postgres) -> None:
    with psycopg.connect(**server.through(server.host, server.port)) as connection:
        row = connection.execute("SELECT host(inet_server_addr()), inet_server_port()").fetchone()
        assert row == ("127.0.0.1", server.port)


@pytest.mark.parametrize("way", ["direct", "tcp"])
def test_a_wrong_password_is_refused(server: Postgres, way: str) -> None:
    parameters = server.direct if way == "direct" else server.through(server.host, server.port)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**parameters, "password": "wrong"})


def test_the_password_is_not_in_its_repr(server: Postgres) -> None:
    assert server.password not in repr(server)


def test_it_does_not_run_as_root(server: Postgres) -> None:
    account = server_account()
    owner = pathlib.Path(server.socket_directory, f".s.PGSQL.{server.port}").stat().st_uid
    assert owner == (os.geteuid() if account.uid is None else account.uid) != 0


def test_it_ends_and_removes_its_files_though_somebody_is_connected() -> None:
    with embedded_postgres() as postgres:
        connection = psycopg.connect(**postgres.direct)
        folder = pathlib.Path(postgres.socket_directory).parent
        process = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux ties a child's life to its parent's"
)
def test_it_ends_when_its_parent_is_killed() -> None:
    program = (
        "import pathlib, sys\n"
        "from tools.demo.postgres import embedded_postgres\n"
        "with embedded_postgres() as postgres:\n"
        "    folder = pathlib.Path(postgres.socket_directory).parent\n"
        "    print((folder / 'data' / 'postmaster.pid').read_text().split()[0], folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process, folder = parent.stdout.readline().split()
        handle = os.pidfd_open(int(process))
        try:
            parent.kill()
            assert select.select([handle], [], [], HANG)[0], "PostgreSQL outlived its parent"
        finally:
            os.close(handle)
    subprocess.run(["rm", "-rf", folder], check=True)  # a killed process cannot clean up
    assert parent.returncode == -signal.SIGKILL
