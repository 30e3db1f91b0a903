"""``python -m tests.ends``: ``RUNS`` (100), ``SEED`` (drawn, and told), ``RUN`` (the one to repeat)."""

from __future__ import annotations

import os
import secrets
import sys

from tests.ends.run import run_all, table


def main() -> int:
    """Run them, print the table; 1 if anything was lost in silence, or a run failed in another way."""
    runs = int(os.environ.get("RUNS") or 100)
    seed = int(os.environ.get("SEED") or secrets.randbelow(1 << 31))
    one = os.environ.get("RUN")
    numbers = range(runs) if one is None else [int(one)]
    sys.stderr.write(f"ends: {len(numbers)} runs with SEED={seed}\n")
    results = run_all(seed, numbers, sys.stderr)
    sys.stdout.write(table(results))
    wrong = [result for result in results if result.wrong]
    for result in wrong:
        sys.stdout.write(f"{result}\n  again alone: make ends SEED={seed} RUN={result.draw.number}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
