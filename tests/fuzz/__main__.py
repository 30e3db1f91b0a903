"""``python -m tests.fuzz [ENTRY [FILE...]]``: fuzz that entry here, or replay these files through it.

Without an entry: each of them (or ``FUZZ`` alone) in a process of its own, for ``FUZZ_SECONDS`` (default 10).
"""

from __future__ import annotations

import os
import pathlib
import sys

from tests.fuzz.run import find, fuzz, fuzz_all


def main(arguments: list[str]) -> int:
    """Do so; 1 if anything was found."""
    seconds = float(os.environ.get("FUZZ_SECONDS") or 10)
    if len(arguments) > 1:
        for path in arguments[1:]:
            find(arguments[0]).count(pathlib.Path(path).read_bytes())
    elif arguments:
        fuzz(arguments[0], seconds)
    else:
        from tests.fuzz.every import ENTRIES

        chosen = os.environ.get("FUZZ")
        names = [find(chosen).name] if chosen else [entry.name for entry in ENTRIES]
        return 1 if fuzz_all(names, seconds) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
