"""CPU time of dialer and relay for each million bytes that they carry, and of the steps that make it up.

``python -m tools.bench.cpu`` prints one line of JSON; ``make bench-cpu`` runs this. Both sides run as they
are deployed, each in a process of its own, with nothing but :mod:`tools.bench.cpu_gateway` in between: no
upgrade, no TLS, no handler, no emulation of API Gateway. What user, target and gateway need is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from tools.bench import cpu_side
from tools.bench.cpu_gateway import Gateway
from tools.bench.target import receive_exactly, send_exactly

_HERE: Final = Path(__file__).resolve().parents[2]

#: Bytes each way before anything is counted: enough for every window to have grown.
_WARM: Final = 12_000_000

_KINDS: Final = {"tunnel": False, "shared": True}
_SIDES: Final = ("dialer", "relay")

#: Seconds that nothing may take longer than, however busy the machine is.
_PATIENCE: Final = 120.0


class Variant(NamedTuple):
    """What is measured, in turns with the others.

    Attributes:
        name: In the result.
        tree: The folder with the code.
        plain: Whether it has to do without the extra.
    """

    name: str
    tree: Path
    plain: bool


def variants(beside: Path | None) -> list[Variant]:
    """This tree without the extra, and with it if it is installed; and the tree beside it, without."""
    found = [Variant("before", beside, True)] if beside else []
    found.append(Variant("plain", _HERE, True))
    if all(importlib.util.find_spec(name) for name in cpu_side.EXTRA):
        found.append(Variant("speedups", _HERE, False))
    return found


def run(chosen: list[Variant], *, rounds: int, size: int, progress: TextIO) -> str:
    """Measure each variant so many times, in turns.

    Args:
        chosen: What to measure.
        rounds: How often.
        size: Bytes each way.
        progress: Where to say what is being measured.

    Returns:
        One line of JSON: for each variant ``tunnel`` (a session of one connection) and ``shared``, each with
        ``to_target`` and ``from_target``, each with the medians ``dialer``, ``relay`` and ``both``, in
        milliseconds of CPU for a million bytes; and ``steps``, as of :func:`tools.bench.cpu_side.steps`.

    Raises:
        OSError, ValueError: A side has failed; its standard error says how.
    """
    found: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in chosen}
    for at in range(rounds):
        for variant in chosen:
            progress.write(f"round {at + 1} of {rounds}: {variant.name}\n")
            progress.flush()
            one: dict[str, Any] = {name: _carry(variant, shared, size) for name, shared in _KINDS.items()}
            with _side(variant, "steps") as process:
                assert process.stdout is not None
                one["steps"] = json.loads(process.stdout.readline())
            found[variant.name].append(one)
    return json.dumps(
        {
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "rounds": rounds,
            "bytes": size,
            **{name: _medians(runs) for name, runs in found.items()},
        }
    )


def _medians(runs: list[Any]) -> Any:
    """The median of each figure, in dictionaries of one shape."""
    if not isinstance(runs[0], dict):
        return round(statistics.median(runs), 4)
    return {name: _medians([each[name] for each in runs]) for name in runs[0]}


def _carry(variant: Variant, shared: bool, size: int) -> dict[str, dict[str, float]]:
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway())
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _SIDES]
        processes = []
        for side, listener in zip(_SIDES, listeners, strict=True):
            listener.settimeout(_PATIENCE)
            ports = [f"--gateway={gateway.port}", f"--user={listener.getsockname()[1]}"]
            extra = ["--shared"] if shared else []
            processes.append(stack.enter_context(_side(variant, side, *ports, *extra)))
        user, target = (stack.enter_context(listener.accept()[0]) for listener in listeners)
        for sock in (user, target):
            sock.settimeout(_PATIENCE)
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "connected\n":
                raise ValueError("a side did not connect")
        return {
            "to_target": _figures(processes, user, target, size),
            "from_target": _figures(processes, target, user, size),
        }


def _figures(
    processes: list[subprocess.Popen[str]], source: socket.socket, sink: socket.socket, size: int
) -> dict[str, float]:
    _move(source, sink, _WARM)
    before = [_cpu(process) for process in processes]
    _move(source, sink, size)
    spent = [_cpu(process) - start for process, start in zip(processes, before, strict=True)]
    figures = [seconds * 1e9 / size for seconds in spent]
    return dict(zip((*_SIDES, "both"), (*figures, sum(figures)), strict=True))


def _move(source: socket.socket, sink: socket.socket, size: int) -> None:
    sender = threading.Thread(target=send_exactly, args=(source, size))
    sender.start()
    receive_exactly(sink, size)
    sender.join()


def _cpu(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextlib.contextmanager
def _side(variant: Variant, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(variant.tree)}
    command = [sys.executable, "-P", cpu_side.__file__, *arguments, *(["--plain"] if variant.plain else [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        # Leaving Popen's block closes its standard input, and waits.


def main() -> None:
    """Measure as the arguments say, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.cpu", description=__doc__)
    parser.add_argument("--beside", type=Path, metavar="TREE", help="measure this tree, too, in turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=40_000_000, dest="size")
    arguments = parser.parse_args()
    beside = arguments.beside and arguments.beside.resolve()
    line = run(variants(beside), rounds=arguments.rounds, size=arguments.size, progress=sys.stderr)
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
