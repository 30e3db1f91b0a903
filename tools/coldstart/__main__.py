"""``python -m tools.coldstart``: what the start of each artifact costs, as one JSON object."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from emissary_local.errors import LocalCloudError
from emissary_local.template.template import read_template
from tools.coldstart.measure import measure
from tools.replay.errors import ReplayError

ROOT: Final = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.coldstart", description="Measure the starts.")
    parser.add_argument("--runs", type=int, default=9, help="processes that a median is over (default: 9)")
    parser.add_argument("--artifacts", type=Path, default=ROOT / ".aws-sam" / "build")
    given = parser.parse_args(arguments)
    try:
        parsed = read_template(ROOT / "template.yaml", {"AllowedTargets": "[]"})
        print(json.dumps(measure(parsed, given.artifacts.resolve(), given.runs), indent=2))
    except subprocess.CalledProcessError as exc:
        print(f"coldstart: a function does not start:\n{exc.stderr}", file=sys.stderr)
        return 1
    except (LocalCloudError, ReplayError, OSError) as exc:
        print(f"coldstart: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
