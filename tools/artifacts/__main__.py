"""``python -m tools.artifacts``: what the Makefile calls. Needs nothing but the standard library and pip."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tools.artifacts import artifact, packages
from tools.artifacts.errors import BuildError

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "functions" / "requirements.txt"
WANTED: Final = ROOT / "functions" / "requirements.in"
CACHE: Final = ROOT / ".aws-sam" / "packages"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.artifacts", description="Build the functions' artifacts."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("function", help="build one function's artifact")
    one.add_argument("name", help="its logical id in template.yaml")
    one.add_argument("into", type=Path, help="an empty folder")
    commands.add_parser("lock", help="resolve functions/requirements.in anew")
    report = commands.add_parser("report", help="say how large the artifacts are, and their digests")
    report.add_argument("folder", type=Path, help="what sam build made: .aws-sam/build")
    given = parser.parse_args(arguments)
    try:
        if given.command == "function":
            site = packages.install(LOCK, CACHE)
            artifact.build(given.name, given.into, root=ROOT, packages=site)
        elif given.command == "lock":
            packages.write_lock(WANTED, LOCK)
        else:
            for folder in sorted(path for path in given.folder.iterdir() if path.is_dir()):
                print(f"{folder.name:20} {artifact.size(folder):>9,} bytes  {artifact.digest(folder)}")
    except BuildError as exc:
        print(f"build: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
