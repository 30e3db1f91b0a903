"""One function's artifact: a folder that is the same, byte for byte, wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tools.artifacts.closure import Closure
from tools.artifacts.errors import BuildError
from tools.artifacts.known import BARE

#: Largest artifact, in bytes, unzipped: 2 MB.
MAX_BYTES: Final = 2 * 1_048_576

#: Every file's and folder's time, in seconds since 1970 UTC: 2000-01-01, which any zip can hold.
MTIME: Final = 946_684_800

#: Where the licences of what is in the artifact are.
LICENCES: Final = "licences"


class Rules(NamedTuple):
    """What an artifact may hold.

    Attributes:
        bare: Packages whose ``__init__`` is to be empty.
        brought: Packages that Lambda's runtime brings, and that are relied on.
        max_bytes: Its largest size, unzipped.
    """

    bare: Collection[str] = BARE
    brought: Collection[str] = ()
    max_bytes: int = MAX_BYTES


#: Those of today's functions.
RULES: Final = Rules()


def build(function: str, into: Path, *, root: Path, packages: Path, rules: Rules = RULES) -> None:
    """Build one function's artifact.

    No ``.pyc`` is in it: those that help on Lambda can only be made by Lambda's own Python, which the machine
    that builds need not have. docs/testing.md says what that costs.

    Args:
        function: Its logical id in template.yaml, such as ``RelayFunction``.
        into: An empty folder.
        root: The project.
        packages: From :func:`tools.artifacts.packages.install`.
        rules: What it may hold.

    Raises:
        BuildError: If something is missing, or the artifact is too large.
    """
    if into.is_dir() and any(into.iterdir()):
        raise BuildError(f"{into} is not empty")
    closure = Closure(root, packages, rules.bare, rules.brought)
    closure.add(handler_module(function))
    files = {**closure.relative_paths(), **_licences(closure.files.values(), root, packages)}
    for inside, file in sorted(files.items()):
        target = into / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if file is None:
            target.touch()
        else:
            shutil.copyfile(file, target)
    _settle(into)
    total = size(into)
    if total > rules.max_bytes:
        largest = sorted(files, key=lambda inside: (into / inside).stat().st_size, reverse=True)[:5]
        raise BuildError(
            f"the artifact of {function} has {total} bytes, over {rules.max_bytes};"
            f" largest: {', '.join(largest)}"
        )


def handler_module(function: str) -> str:
    """The module with the function's handler: ``functions.relay.app`` of ``RelayFunction``."""
    route = function.removesuffix("Function")
    if not route or route == function:
        raise BuildError(f"{function!r} is no logical id of a function; want one like RelayFunction")
    return f"functions.{route.lower()}.app"


def size(folder: Path) -> int:
    """Bytes in all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def digest(folder: Path) -> str:
    """Hexadecimal SHA-256 over every name, mode, time and byte in a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        inside = path.relative_to(folder).as_posix()
        whole.update(f"{inside}\0{status.st_mode:o}\0{status.st_mtime_ns}\0{content}\n".encode())
    return whole.hexdigest()


def _settle(folder: Path) -> None:
    """Give everything the same mode and time; folders last, as their content changes theirs."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (MTIME, MTIME))


def _licences(files: Iterable[Path], root: Path, packages: Path) -> Mapping[str, Path]:
    """Path in the artifact -> licence file, of ours and of every package that a file is from."""
    used = {file.relative_to(packages).parts[0] for file in files if file.is_relative_to(packages)}
    found = {f"{LICENCES}/emissary/LICENSE": root / "LICENSE"}
    for info in packages.glob("*.dist-info"):
        record = (info / "RECORD").read_text(encoding="utf-8").splitlines()
        if not used & {line.partition(",")[0].partition("/")[0] for line in record}:
            continue
        texts = [path for path in info.rglob("*") if path.name.upper().startswith(("LICEN", "NOTICE"))]
        texts = [path for path in texts if path.is_file()]
        if not texts:
            raise BuildError(f"{info.name} has no licence file; the artifact may not go without")
        for path in texts:
            found[f"{LICENCES}/{info.name.removesuffix('.dist-info')}/{path.name}"] = path
    return found
