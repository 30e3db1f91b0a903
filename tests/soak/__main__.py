"""``python -m tests.soak``: ``SOAK_SECONDS`` (default 180) and ``SOAK_SEED`` (default: drawn, told)."""

from __future__ import annotations

import json
import os
import secrets
import sys

from tests.soak.run import soak


def main() -> int:
    """Run a soak, print its line of JSON; 1 on any mismatch or leak."""
    seconds = float(os.environ.get("SOAK_SECONDS") or 180)
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 31))
    sys.stderr.write(f"soak: {seconds:g} s with SOAK_SEED={seed}\n")
    result = soak(seconds, seed, sys.stderr)
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
