"""CPU time: counted for this process and all below it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tools.bench.processes import cpu_seconds, family

BUSY = """
import sys, time
while time.process_time() < 0.3: pass
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[int]:
    """The parent of a process that has used 0.3 CPU seconds; itself it used next to none."""
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield process.pid


def test_what_a_grandchild_uses_is_counted(parent: int) -> None:
    below = family()
    assert below[0] == os.getpid()
    assert parent in below
    assert len(family(parent)) == 2
    assert sum(cpu_seconds(pid) for pid in family(parent)) >= 0.3


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert cpu_seconds(process.pid) == 0.0
    assert family(process.pid) == [process.pid]
