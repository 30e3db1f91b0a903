"""The functions' third-party packages: pinned and hashed in ``functions/requirements.txt``.

Only wheels of pure Python are taken (``py3-none-any``). So one artifact is right for both of Lambda's
architectures, and the Python of the machine that builds it does not matter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tools.artifacts.errors import BuildError

#: Lambda's Python; what template.yaml's ``Runtime`` says.
PYTHON_VERSION: Final = "3.13"

_PURE: Final = (
    "--only-binary=:all:", "--implementation", "py", "--abi", "none", "--platform", "any",
    "--python-version", PYTHON_VERSION,
)  # fmt: skip

_HEAD: Final = """\
# What the functions need beside Lambda's runtime, pinned and hashed. Written by `make lock` from
# functions/requirements.in; only wheels of pure Python, for both of Lambda's architectures.
"""


def install(requirements: Path, cache: Path) -> Path:
    """The folder with exactly the packages that ``requirements`` names; filled on the first call.

    Args:
        requirements: The lock file.
        cache: Where to keep such folders, one for each lock file's content.

    Raises:
        BuildError: If pip fails, for instance over a hash that does not match.

    Safe to use from several processes at once.
    """
    try:
        content = requirements.read_bytes()
    except OSError as exc:
        raise BuildError(f"cannot read the lock file: {exc}") from exc
    folder = cache / hashlib.sha256(content).hexdigest()[:16]
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    try:
        _pip(
            "install", "--no-deps", "--no-compile", "--require-hashes", *_PURE,
            "--target", str(fresh), "--requirement", str(requirements),
        )  # fmt: skip
        _refuse_compiled(fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another build was quicker
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def write_lock(wanted: Path, lock: Path) -> None:
    """Resolve ``wanted`` to the newest versions for Lambda's Python, and write them with their hashes.

    Raises:
        BuildError: If pip fails.
    """
    with tempfile.TemporaryDirectory() as unused:  # pip resolves for another Python only with a target
        text = _pip(
            "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", *_PURE,
            "--target", unused, "--requirement", str(wanted),
        )  # fmt: skip
    report = json.loads(text)
    lines = []
    for package in report["install"]:
        name = re.sub("[-_.]+", "-", package["metadata"]["name"]).lower()
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={package['metadata']['version']} --hash=sha256:{digest}\n")
    lock.write_text(_HEAD + "".join(sorted(lines)), encoding="ascii")


def _refuse_compiled(folder: Path) -> None:
    compiled = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.so"))
    if compiled:
        raise BuildError(
            f"not pure Python: {', '.join(compiled)}; the artifact has to fit both architectures"
        )


def _pip(*arguments: str) -> str:
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"{sys.executable} has no pip; build with `make build`, or name another by PYTHON=..."
        )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"pip {arguments[0]} failed:\n{done.stderr.strip()}")
    return done.stdout
