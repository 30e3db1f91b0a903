"""The measurements: some fresh processes for each function, and the median of what they say."""

from __future__ import annotations

import collections
import compileall
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emissary_local.emissary import Emissary
from emissary_local.lambda_.runtime_site import make_runtime_site
from emissary_local.lambda_.variables import Endpoints, Identities, environment_variables
from emissary_local.template.specs import FunctionSpec, Template
from tools.artifacts.artifact import size
from tools.replay.emulator import Emulator, emulator_binary
from tools.replay.errors import ReplayError

_PROBE: Final = Path(__file__).with_name("probe.py")

#: One line of ``python -X importtime``: self and cumulative microseconds, then the module.
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$")

#: The emulator's line.
_INIT: Final = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")

#: Packages named among the heaviest, at most.
_HEAVIEST: Final = 8

#: Nothing listens there, and nothing asks: a start makes no request.
_NOBODY: Final = Endpoints(
    "http://127.0.0.1:1",
    "http://127.0.0.1:1/stage",
    "ws://127.0.0.1:1/stage",
    url_variables=Emissary.url_variables,
)


def measure(template: Template, artifacts: Path, runs: int) -> dict[str, Any]:
    """Figures of all functions. Times of CPU are steadier than the others, on a machine that has more to do.

    Args:
        template: Which functions there are, and their settings.
        artifacts: What ``sam build`` made: ``.aws-sam/build``.
        runs: How many processes a median is over.

    Returns:
        ``{"python", "runs", "functions": {logical id: figures}}``; milliseconds, megabytes (of 1,048,576).
        ``init_ms`` is the init phase under AWS's runtime interface emulator, process and runtime client
        included; ``with_pyc`` says what the import would take if the artifact had its ``.pyc``.

    Raises:
        subprocess.CalledProcessError: If a function's module cannot be imported.
        ReplayError: If the emulator is not to be had, or breaks.
    """
    identities = Identities.draw(template.functions)
    with tempfile.TemporaryDirectory() as folder:
        site = make_runtime_site(Path(folder) / "runtime")
        functions = {}
        for name, spec in template.functions.items():
            variables = environment_variables(
                spec, identities.by_function[name], _NOBODY, "127.0.0.1:1", "cold"
            )
            functions[name] = _figures(spec, artifacts / name, variables, site, runs, Path(folder) / name)
    return {"python": sys.version.split()[0], "runs": runs, "functions": functions}


def _figures(
    spec: FunctionSpec, artifact: Path, variables: Mapping[str, str], site: Path, runs: int, scratch: Path
) -> dict[str, Any]:
    module = spec.handler.rpartition(".")[0]

    def start(code: Path, *options: str) -> subprocess.CompletedProcess[str]:
        environ = {**variables, "PYTHONPATH": f"{code}{os.pathsep}{site}"}
        return subprocess.run(
            [sys.executable, "-S", "-B", *options, str(_PROBE), module],
            cwd=code, env=environ, capture_output=True, text=True, check=True,
        )  # fmt: skip

    def medians(code: Path) -> dict[str, float]:
        costs = [json.loads(start(code).stdout.splitlines()[-1]) for _ in range(runs)]
        return {key: statistics.median(cost[key] for cost in costs) for key in costs[0]}

    start(artifact)  # the page cache
    cost = medians(artifact)
    shutil.copytree(artifact, scratch)
    compileall.compile_dir(scratch, quiet=2)
    return {
        "init_ms": round(statistics.median(_init(spec, artifact, variables, site) for _ in range(runs)), 1),
        "import_ms": round(cost["import_ms"], 1),
        "cpu_ms": round(cost["cpu_ms"], 1),
        "rss_mb": round(cost["rss_kb"] / 1024, 1),
        "rss_added_mb": round(cost["rss_added_kb"] / 1024, 1),
        "modules": int(cost["modules"]),
        "artifact_bytes": size(artifact),
        "with_pyc": {"cpu_ms": round(medians(scratch)["cpu_ms"], 1)},
        "heaviest_ms": heaviest(start(artifact, "-X", "importtime").stderr),
    }


def _init(spec: FunctionSpec, artifact: Path, variables: Mapping[str, str], site: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with Emulator(emulator_binary(), artifact, spec.handler, variables, site, log) as emulator:
            emulator.invoke({})  # whatever the function makes of it: the init phase comes first
            return init_ms(emulator.output())


def init_ms(log: str) -> float:
    """How long the init phase took, in milliseconds, from the emulator's log.

    Raises:
        ReplayError: If it does not say.
    """
    found = _INIT.search(log)
    if found is None:
        raise ReplayError(f"the emulator does not say how long the init phase took:\n{log}")
    return float(found[1])


def heaviest(importtime: str) -> dict[str, float]:
    """The packages whose modules take longest, in milliseconds of their own, from ``-X importtime``.

    Example:
        >>> heaviest("import time:      1500 |       1500 |     botocore.loaders")
        {'botocore': 1.5}
    """
    totals: collections.Counter[str] = collections.Counter()
    for line in importtime.splitlines():
        if found := _LINE.match(line):
            totals[found[2].partition(".")[0]] += int(found[1])
    return {name: round(micro / 1000, 1) for name, micro in totals.most_common(_HEAVIEST)}
