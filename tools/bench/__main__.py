"""``python -m tools.bench``: prints one line of JSON with what it measured; ``make bench`` runs this."""

from __future__ import annotations

import argparse
import sys

from emissary_lib.exceptions import EmissaryError
from emissary_local import LocalCloudError
from emissary_local.faults.latency import PROFILES
from tools.bench.run import run_bench

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--template", default="template.yaml", metavar="FILE", help="the SAM template")
    parser.add_argument(
        "--latency",
        default="none",
        choices=PROFILES,
        help="delays of the local cloud: none, or as measured on AWS",
    )
    parser.add_argument(
        "--cpu-share",
        type=float,
        metavar="FACTOR",
        help="hold each function to its memory's share of a processor, times this (default: to none)",
    )
    arguments = parser.parse_args()
    try:
        found = run_bench(
            arguments.template,
            latency=arguments.latency,
            cpu_share=arguments.cpu_share,
            progress=sys.stderr,
        )
        print(found, flush=True)
    except (EmissaryError, LocalCloudError) as error:
        sys.exit(f"bench: {error}")
