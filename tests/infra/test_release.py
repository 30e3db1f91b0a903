"""``tools.release``: version, changelog and tag have to agree, and the distributions have to be whole."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

import emissary_lib
from tests.infra.documents import ROOT
from tools import release

CHANGELOG = """# Changelog

## Unreleased

## 1.2.3 - 2026-11-28

### Fixed

- A fault.

## 1.2.2 - 2026-10-01
"""


def test_the_version_is_read_without_importing() -> None:
    assert release.version(ROOT) == emissary_lib.__version__


def test_a_release_that_agrees_is_not_objected_to() -> None:
    assert release.objections("1.2.3", CHANGELOG, ["other", "v1.2.3"]) == []


@pytest.mark.parametrize(
    ("version", "changelog", "tags", "objection"),
    [
        ("1.2", CHANGELOG.replace("1.2.3", "1.2"), ["v1.2"], "is not like 1.2.3"),
        ("1.2.4", CHANGELOG, ["v1.2.4"], "no heading '## 1.2.4 - YYYY-MM-DD'"),
        ("1.2.3", CHANGELOG.replace(" - 2026-11-28", ""), ["v1.2.3"], "no heading"),
        ("1.2.2", CHANGELOG, ["v1.2.2"], "says nothing of 1.2.2"),
        (
            "1.2.3",
            CHANGELOG.replace("Unreleased\n", "Unreleased\n\n- New."),
            ["v1.2.3"],
            "move them to 1.2.3",
        ),
        ("1.2.3", CHANGELOG, ["v1.2.2"], "tags (v1.2.2) are not v1.2.3"),
        ("1.2.3", CHANGELOG, [], "tags (none)"),
    ],
)
def test_what_disagrees_is_named(version: str, changelog: str, tags: list[str], objection: str) -> None:
    (said,) = release.objections(version, changelog, tags)
    assert objection in said


@pytest.mark.slow
def test_the_distributions_that_the_locked_backend_builds_are_whole(tmp_path: pathlib.Path) -> None:
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for path in ROOT.glob("emissary_*/"):
        if path.suffix == "":
            shutil.copytree(path, tmp_path / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    version = emissary_lib.__version__
    assert release.missing(tmp_path / "dist", version) == []
    assert "was not built" in release.missing(tmp_path / "dist", "9.9.9")[0]
