"""``make dist``: the distributions of a release, once version, changelog and tag agree that it is one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def version(root: Path) -> str:
    """What ``emissary_lib/_version.py``, the one place of it, says."""
    text = (root / "emissary_lib" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def objections(released: str, changelog: str, tags: list[str]) -> list[str]:
    """Why this is no release: each with what to do, none if it is one.

    Args:
        released: The version.
        changelog: The text of CHANGELOG.md.
        tags: The tags of the commit.
    """
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", released):
        found.append(f"version {released!r} in emissary_lib/_version.py is not like 1.2.3 or 1.2.3rc1")
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE)
    named = {title.split(" - ")[0]: (title, text) for title, text in sections}
    title, text = named.get(released, ("", ""))
    if not re.fullmatch(re.escape(released) + r" - \d{4}-\d{2}-\d{2}", title):
        found.append(f"CHANGELOG.md has no heading '## {released} - YYYY-MM-DD'")
    elif "\n- " not in text:
        found.append(f"CHANGELOG.md says nothing of {released}")
    if "\n- " in named.get("Unreleased", ("", ""))[1]:
        found.append(f"CHANGELOG.md still has entries under Unreleased: move them to {released}")
    if f"v{released}" not in tags:
        have = ", ".join(tags) or "none"
        found.append(f"the commit's tags ({have}) are not v{released}: git tag -a v{released}")
    return found


def missing(folder: Path, released: str) -> list[str]:
    """What the wheel and the source distribution in a folder lack."""
    wheel = folder / f"emissary_lib-{released}-py3-none-any.whl"
    source = folder / f"emissary_lib-{released}.tar.gz"
    found = [f"{each.name} was not built" for each in (wheel, source) if not each.is_file()]
    if found:
        return found
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"emissary_lib-{released}.dist-info"
    wanted = {"emissary_lib/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"}
    found += [f"the wheel lacks {each}" for each in sorted(wanted - names)]
    strays = {name.split("/")[0] for name in names if not name.startswith(("emissary_", info))}
    found += [f"the wheel has {each}" for each in sorted(strays)]
    with tarfile.open(source) as tape:
        sources = {name.partition("/")[2] for name in tape.getnames()}
    wanted = {"pyproject.toml", "LICENSE", "README.md", "emissary_lib/_version.py"}
    return found + [f"the source distribution lacks {each}" for each in sorted(wanted - sources)]


def main() -> int:
    """Check, build into ``dist``, and look into what was built; the exit status."""
    released = version(ROOT)
    tags = subprocess.run(
        ["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = objections(released, changelog, tags)
    if not found:
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        # With the backend that is locked, and not the newest that an isolated environment would fetch.
        subprocess.run([sys.executable, "-m", "build", "--no-isolation"], cwd=ROOT, check=True)
        found = missing(ROOT / "dist", released)
    for each in found:
        sys.stderr.write(f"dist: {each}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
