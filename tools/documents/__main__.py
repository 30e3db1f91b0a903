"""``python -m tools.documents check|write``."""

from __future__ import annotations

import argparse
import sys

from tools.documents import documents


def main(argv: list[str] | None = None) -> int:
    """Run; returns 1 if something is wrong with a document."""
    parser = argparse.ArgumentParser(prog="python -m tools.documents", description=__doc__)
    parser.add_argument(
        "action",
        choices=["check", "write"],
        help="check: name what is not up to date. write: generate the tables and wrap the prose anew",
    )
    if parser.parse_args(argv).action == "write":
        for path in documents.paths():
            path.write_text(documents.render(path), encoding="utf-8")
    faults = [fault for path in documents.paths() for fault in documents.faults(path)]
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
