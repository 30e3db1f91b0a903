"""Imports one function's module and prints what that cost. Run as a script, in a process of its own.

Usage: ``probe.py MODULE``. Before the clock starts, AWS's runtime client is imported, as it is on Lambda.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time

import awslambdaric.bootstrap  # noqa: F401


def main(module: str) -> None:
    """Print one JSON object: milliseconds of wall and CPU time, kilobytes of memory, modules."""
    before, memory = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    importlib.import_module(module)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = {
        "import_ms": wall * 1000,
        "cpu_ms": cpu * 1000,
        "rss_kb": after,
        "rss_added_kb": after - memory,
        "modules": len(set(sys.modules) - before),
    }
    sys.stdout.write(json.dumps(cost) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
