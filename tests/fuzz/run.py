"""Runs entries, each in a process of its own: led by coverage where atheris is installed, else by chance."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from typing import Final

from tests.fuzz.entry import SEEDS, Entry, mutations

#: What is kept from one run to the next: inputs that fail, and those that reach new code.
KEPT: Final = pathlib.Path(".fuzz")

#: For one input, in seconds, on however slow a machine: for what the count of lines does not see.
_HANG: Final = 120

#: Whose branches lead.
_LED_BY: Final = ("emissary_lib", "functions", "websocket")


def find(name: str) -> Entry:
    """An entry by its name. Raises SystemExit if there is none."""
    from tests.fuzz.every import ENTRIES

    found = {entry.name: entry for entry in ENTRIES}
    if name not in found:
        raise SystemExit(f"no entry {name!r}; there are {', '.join(found)}")
    return found[name]


def fuzz(name: str, seconds: float) -> None:
    """Run one entry here; does not return if atheris is installed. Raises what the entry raises."""
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        _mutate(find(name), kept, seconds)
        return
    with atheris.instrument_imports(include=_LED_BY):
        entry = find(name)
    (kept / "reached").mkdir(exist_ok=True)
    options = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-timeout={_HANG}",
        f"-artifact_prefix={kept}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *options, str(kept / "reached"), str(SEEDS / name)], entry.run)
    atheris.Fuzz()


def _mutate(entry: Entry, kept: pathlib.Path, seconds: float) -> None:
    """Without anything that leads: from the seeds alone, by chance."""
    until, count = time.monotonic() + seconds, 0
    for data in mutations(list(entry.seeds.values()), random.Random(os.urandom(8))):
        try:
            entry.run(data)
        except BaseException:
            (kept / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
            raise
        count += 1
        if time.monotonic() > until:
            break
    sys.stderr.write(f"stat::number_of_executed_units: {count}\n")


def fuzz_all(names: list[str], seconds: float) -> list[str]:
    """Run each of these in a process of its own, as many at once as there are processors; tell how each went.

    Returns:
        Those that found something.
    """
    with tempfile.TemporaryDirectory(prefix="emissary-fuzz-") as folder:
        # What a process leaves that ends at once, as libFuzzer's do.
        environ = {**os.environ, "TMPDIR": folder, "FUZZ_SECONDS": f"{seconds:g}"}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            went = pool.map(lambda name: _in_its_process(name, environ), names)
            return [name for name, good in zip(names, went, strict=True) if not good]


def _in_its_process(name: str, environ: dict[str, str]) -> bool:
    before = _failures(name)
    command = [sys.executable, "-m", "tests.fuzz", name]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    inputs = re.findall(r"stat::number_of_executed_units: (\d+)", said)
    how = "led by coverage" if "INFO: " in said else "not led: atheris is not installed"
    if done.returncode == 0:
        sys.stdout.write(f"{name}: {(inputs or ['?'])[-1]} inputs, {how}\n")
        return True
    sys.stdout.write(f"{name}: FAILED with status {done.returncode}\n")
    # Without the fuzzer's own account of how it got on, of which there may be hundreds of lines.
    told = [line for line in said.splitlines() if not line.startswith(("#", "INFO", "stat::"))]
    sys.stdout.write("\n".join(told[-80:]) + "\n")
    for path, _written in sorted(_failures(name) - before):
        again = f"{sys.executable} -m tests.fuzz {name} {path}"
        sys.stdout.write(f"{name}: the input is in {path}; again: {again}\n")
    return False


def _failures(name: str) -> set[tuple[pathlib.Path, int]]:
    """The inputs that failed, with the times of their files."""
    return {(path, path.stat().st_mtime_ns) for path in (KEPT / name).glob("*-*") if path.is_file()}
