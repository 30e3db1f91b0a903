"""A soak from its beginning to its line of JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from emissary_lib import Dialer
from emissary_lib.bench.processes import family
from emissary_lib.demo.postgres import Postgres, embedded_postgres
from emissary_lib.local import LocalCloud
from emissary_lib.protocol.keepalive import KeepaliveTimes
from tests.soak import leaks, migration, weather, work
from tests.soak.tally import TOLD, Tally
from tests.soak.target import Target
from tests.soak.work import World

TEMPLATE: Final = Path(__file__).resolve().parents[2] / "template.yaml"

#: How many dialers do what, at any time.
WORKERS: Final[dict[Callable[[World, random.Random], None], int]] = {
    work.bulk_up: 1,
    work.bulk_down: 1,
    work.bulk_both: 1,
    work.half_close: 1,
    work.ping_pong: 2,
    work.short_dial: 2,
    work.idle: 2,
}

#: Migrations at once, each in a process of its own.
MIGRATIONS: Final = 8

#: A silent death is noticed sooner than with what is usual, so that a short soak sees it noticed.
KEEPALIVE: Final = KeepaliveTimes(interval=10.0, when_unacked=5.0, deadline=5.0, repeat=1.0)

#: Seconds for the last pieces of work, once nothing goes wrong any more: a dial, and then a hang.
DRAIN: Final = work.DIAL + work.HANG

#: Seconds for both ends to let go of everything after the last piece of work.
SETTLE: Final = 60.0

#: Seconds between two lines of progress, and between two looks at the relays' memory.
_PROGRESS: Final = 10.0
_LOOK: Final = 1.0


@dataclasses.dataclass(slots=True)
class Memory:
    """Highest resident sets seen, in MB."""

    relay: float = 0.0
    dialer: float = 0.0


def soak(seconds: float, seed: int, progress: TextIO) -> dict[str, Any]:
    """Run one.

    Args:
        seconds: How long new work is begun, and things go wrong.
        seed: Of all decisions, as far as they are ours: threads and processes interleave as they like.
        progress: Where to say how it goes.

    Returns:
        What is printed as JSON; ``failed`` lists what is wrong, and is empty if all is well.

    Raises:
        EmissaryError: The local cloud or PostgreSQL did not start.

    Blocking: ``seconds``, and then at most :data:`DRAIN` and :data:`SETTLE` and the end of everything.
    """
    began, before = time.monotonic(), set(family())
    tally, memory, cut_off = Tally(), Memory(), dict[int, str]()
    with embedded_postgres() as postgres, Target(tally) as target:
        places = [target.address, (postgres.host, postgres.port)]
        with LocalCloud(TEMPLATE, targets=places, faults=weather.storm(seed)) as cloud:
            held = leaks.sockets()
            with Dialer(cloud.url, cloud.key, keepalive=KEEPALIVE) as dialer:
                world = World(dialer, target.address, postgres, tally, threading.Event(), cut_off)
                with _relays_watched(cloud.pid, [port for _, port in places], memory):
                    _work(world, cloud, seconds, seed, progress)
                    left = _settle(held, cloud, target, progress)
                met = cloud.faults_met
            if tally.mismatches or any(left.values()):
                _keep_logs(cloud, progress)
    memory.dialer = max(memory.dialer, leaks.peak_memory())
    left["processes"] = _until_none(lambda: [str(pid) for pid in set(family()) - before], 5.0)
    _judge_cut_short(tally, target, cut_off)
    return _result(tally, met, left, memory, {"seed": seed, "seconds": round(time.monotonic() - began, 1)})


def _work(world: World, cloud: LocalCloud, seconds: float, seed: int, progress: TextIO) -> None:
    """Keep everybody busy for ``seconds``, and wait for the last pieces of work."""
    workers = [
        threading.Thread(target=_repeat, args=(world, kind, f"{seed}/{kind.__name__}/{number}"), daemon=True)
        for kind, count in WORKERS.items()
        for number in range(count)
    ]
    migrations = [_start_migration(world.postgres, cloud, f"{seed}/{number}") for number in range(MIGRATIONS)]
    for worker in workers:
        worker.start()
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(_PROGRESS, left))
        sums = world.tally.sums()
        _say(
            progress,
            f"{max(0.0, ends - time.monotonic()):4.0f} s left: {sums['sessions']} sessions, "
            f"{sums['bytes'] / 1e6:.0f} MB, {sums.get('resumes', 0)} resumes, "
            f"{world.tally.errors.total()} clear errors, {len(world.tally.mismatches)} mismatches",
        )
    _say(progress, "the last pieces of work")
    world.stop.set()
    cloud.set_faults(weather.calm(seed))
    deadline = time.monotonic() + DRAIN
    for process in migrations:
        _end_migration(process, world.tally, deadline)
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    hung = [worker for worker in workers if worker.is_alive()]
    if hung:  # it holds its socket, and leaks are looked for all the same
        world.tally.mismatch(f"{len(hung)} pieces of work hang")


def _repeat(world: World, kind: Callable[[World, random.Random], None], seed: str) -> None:
    chance = random.Random(seed)
    while not world.stop.is_set():
        if not work.attempt(world, kind.__name__, kind, chance):
            world.stop.wait(0.2)


def _start_migration(postgres: Postgres, cloud: LocalCloud, seed: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.migration"],
        cwd=TEMPLATE.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(migration.settings_line(cloud.url, cloud.key, postgres, KEEPALIVE, seed))
    process.stdin.flush()
    return process


def _end_migration(process: subprocess.Popen[str], tally: Tally, deadline: float) -> None:
    try:
        said, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
        answer = json.loads(said)
    except (subprocess.TimeoutExpired, ValueError) as exc:
        process.kill()
        process.communicate()
        tally.mismatch(f"a migration's process hangs or failed ({type(exc).__name__})")
        return
    if answer["threads"]:
        tally.mismatch(f"a migration's process has left threads: {answer['threads']}")
    tally.add(answer)


@contextlib.contextmanager
def _relays_watched(cloud_pid: int, ports: list[int], memory: Memory) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK):
            for pid in leaks.relays(cloud_pid, ports):
                memory.relay = max(memory.relay, leaks.peak_memory(pid))

    watcher = threading.Thread(target=watch, name="soak-memory", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _settle(held: set[str], cloud: LocalCloud, target: Target, progress: TextIO) -> dict[str, list[str]]:
    """Wait until nothing is left, and tell what is."""
    look: dict[str, Callable[[], list[str]]] = {
        "threads": leaks.tunnel_threads,
        "target connections": lambda: ["open"] * target.open_connections(),
        "sockets": lambda: sorted(leaks.sockets() - held),
        "session items": lambda: leaks.leaked_items(leaks.session_items(cloud.pid)),
    }
    _say(progress, "looking for what is left")
    deadline = time.monotonic() + SETTLE
    return {what: _until_none(ask, deadline - time.monotonic()) for what, ask in look.items()}


def _until_none(ask: Callable[[], list[str]], seconds: float) -> list[str]:
    """Ask until there is nothing, or the time is up. What it asks about tells nobody when it goes."""
    deadline = time.monotonic() + seconds
    while (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _judge_cut_short(tally: Tally, target: Target, cut_off: dict[int, str]) -> None:
    """A stream that ended too early at the target is right only if the dialer was told of an error."""
    for number in target.cut_short - set(cut_off):
        tally.mismatch(f"transfer {number} ended too early at the target, and the dialer had no error")


def _keep_logs(cloud: LocalCloud, progress: TextIO) -> None:
    path = Path(tempfile.gettempdir(), f"soak-{cloud.pid}.log")
    path.write_text(cloud.logs())
    _say(progress, f"the functions' logs are in {path}")


def _say(progress: TextIO, what: str) -> None:
    progress.write(what + "\n")
    progress.flush()


def _result(
    tally: Tally, met: dict[str, int], left: dict[str, list[str]], memory: Memory, about: dict[str, Any]
) -> dict[str, Any]:
    sums = tally.sums()
    leaked = {what: len(found) for what, found in left.items()}
    failed = [
        *tally.mismatches[:TOLD],
        *(f"left: {what} {found[:5]}" for what, found in left.items() if found),
    ]
    return {
        **about,
        "sessions": sums.get("sessions", 0),
        "bytes": sums.get("bytes", 0),
        "done": dict(sorted(tally.done.items())),
        "clear_errors": dict(sorted(tally.errors.items())),
        "faults": dict(sorted(met.items())),
        "faults_not_met": [kind for kind in weather.KINDS if not met.get(kind)],
        "cuts": sum(met.get(kind, 0) for kind in weather.CUTS),
        "resumes": sums.get("resumes", 0),
        "retransmits": sums.get("retransmits", 0),
        "mismatches": len(tally.mismatches),
        "leaked": leaked,
        "peak_rss_mb": {"relay": round(memory.relay, 1), "dialer": round(memory.dialer, 1)},
        "failed": failed,
    }
