"""A soak from its beginning to its verdict."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_local import LocalCloud
from tests.helpers.patience import HANG
from tests.soak import leaks, reasons, schedule, work
from tests.soak.child import Settings
from tests.soak.every import every
from tests.soak.evidence import FUNCTIONS, Evidence, read
from tests.soak.lost import lost_items, too_many
from tests.soak.report import judge
from tests.soak.stats import Stats
from tests.soak.table_reader import reading_the_table
from tests.soak.target import Target
from tests.soak.work import Context
from tests.soak.workers import Workers
from tools.bench.processes import family
from tools.demo.postgres import embedded_postgres

TEMPLATE: Final = Path(__file__).resolve().parents[2] / "template.yaml"

#: Messages in flight of each dialer of all workers in this process; each is a function at work, and there may
#: be as few as two processors.
MAX_IN_FLIGHT: Final = 12

#: A silent death is noticed sooner than with what is usual, so that a short soak sees it noticed, and that
#: its sessions are over soon after it is.
KEEPALIVE: Final = KeepaliveTimes(interval=10.0, when_unacked=5.0, deadline=8.0, repeat=1.0)

#: The same for the relay, which must know of it.
RELAY: Final = {
    "EMISSARY_PING_SECONDS": f"{KEEPALIVE.interval:g}",
    "EMISSARY_PONG_SECONDS": f"{KEEPALIVE.deadline:g}",
    "EMISSARY_PROBE_SECONDS": f"{KEEPALIVE.when_unacked:g}",
}

#: The same for the command.
COMMAND: Final = {
    "EMISSARY_PING_SECONDS": f"{KEEPALIVE.interval:g}",
    "EMISSARY_PONG_SECONDS": f"{KEEPALIVE.deadline:g}",
}

#: By how much a ``$disconnect`` may be late (Faults.disconnect_seconds) and take, in seconds.
_LATE: Final = 8.0

#: Seconds beyond the storm for all the rest: the start, the last pieces of work once nothing goes wrong any
#: more, and for both ends to let go of everything, which is the longest silence of an orphan (interval,
#: deadline and grace). That takes 55 s; more is for a machine that is busy with something else, and only a
#: hang reaches it. The end of the processes comes on top.
REST: Final = 55.0 + 2 * HANG

#: Seconds between two lines of progress; between two looks at what has been met; between two at the relays.
_PROGRESS: Final = 10.0
_WEATHER: Final = 1.0
_LOOK: Final = 0.5


def soak(seconds: float, seed: int, progress: TextIO) -> dict[str, Any]:
    """Run one.

    Args:
        seconds: How long new work is begun, and things go wrong.
        seed: Of all decisions, as far as they are ours: threads and processes interleave as they like.
        progress: Where to say how it goes.

    Returns:
        What is printed as JSON; ``failed`` lists what is wrong, and is empty if all is well.

    Raises:
        LocalCloudError: The local cloud did not start.
        DemoError: PostgreSQL did not start.

    Blocking: at most ``seconds`` and :data:`REST`, and some seconds for the end.
    """
    began, before, stats = time.monotonic(), set(family()), Stats()
    with embedded_postgres() as postgres, Target(stats) as target:
        places = [target.address, (postgres.host, postgres.port)]
        with LocalCloud(
            TEMPLATE,
            targets=places,
            faults=schedule.storm(seed),
            parameters={"RelayGraceSeconds": str(work.GRACE)},
            variables={"RelayFunction": RELAY},
        ) as cloud:
            held, ports = leaks.sockets(), [port for _, port in places]
            with (
                work.dialers_of_both_kinds(cloud.url, cloud.key, KEEPALIVE, MAX_IN_FLIGHT) as dialers,
                _relays_watched(cloud.pid, ports, stats),
            ):
                environ = cloud.application.client_variables(cloud.url) | COMMAND
                context = Context(
                    dialers[0],
                    target.address,
                    postgres,
                    stats,
                    threading.Event(),
                    environ=environ,
                    dialers=dialers,
                )
                workers = Workers(
                    context, Settings(cloud.url, cloud.key, target.address, postgres, KEEPALIVE), seed
                )
                with reading_the_table(context, cloud.operator, cloud.tables["SessionTable"]):
                    _let_it_storm(context, cloud, seconds, seed, progress)
                deadline = began + seconds + REST
                _say(progress, "the last pieces of work")
                cloud.set_faults(schedule.calm(seed))
                workers.finish(deadline)
                _say(progress, "looking for what is left")
                left = _settle(held, cloud, target, ports, deadline)
            items, evidence = _aftermath(cloud, deadline)
            met, lost = cloud.fault_counts, lost_items(items, evidence)
            strange = [
                *reasons.unexplained(stats, evidence),
                *reasons.unrecorded(evidence),
                *too_many(lost, met, evidence),
            ]
            doubts = reasons.doubtful(stats, met, evidence)
            if stats.mismatches or strange or any(left.values()):
                _keep_logs(cloud, progress)
    left["processes"] = _until_none(lambda: [str(pid) for pid in set(family()) - before], HANG)
    _judge_lost(stats, target)
    stats.most("workers_rss_mb", leaks.peak_memory())
    about = {"seed": seed, "seconds": round(time.monotonic() - began, 1), "doubts": doubts}
    return judge(stats, met, left, lost, strange, leaks.ends(items), seconds, about)


def _let_it_storm(context: Context, cloud: LocalCloud, seconds: float, seed: int, progress: TextIO) -> None:
    """Wait while everybody works; in the second half, what has not been met yet is made more likely."""
    ends = time.monotonic() + seconds
    faults = schedule.storm(seed)
    told = seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(_WEATHER, left))
        left = max(0.0, ends - time.monotonic())
        if (
            left < seconds / 2
            and (worse := schedule.worse(schedule.storm(seed), cloud.fault_counts)) != faults
        ):
            faults = worse
            cloud.set_faults(faults)
        if told - left < _PROGRESS and left:
            continue
        told = left
        sums = context.stats.sums()
        _say(
            progress,
            f"{left:4.0f} s left: {sums['sessions']} sessions, {sums['connections']} connections, "
            f"{sums['bytes'] / 1e6:.0f} MB, {sums.get('resumes', 0)} resumes, "
            f"{context.stats.errors.total()} clear errors, {len(context.stats.mismatches)} mismatches",
        )


def _relays_watched(
    cloud_pid: int, ports: list[int], stats: Stats
) -> contextlib.AbstractContextManager[None]:
    def watch() -> None:
        for pid in leaks.relays(cloud_pid, ports):
            stats.most("relay_rss_mb", leaks.peak_memory(pid))

    return every(watch, pause=_LOOK, name="soak-memory")


def _settle(
    held: set[str], cloud: LocalCloud, target: Target, ports: list[int], deadline: float
) -> dict[str, list[str]]:
    """Wait until nothing is left, and tell what is. The items last: by then nobody holds a session."""
    look: dict[str, Callable[[], list[str]]] = {
        "threads": leaks.tunnel_threads,
        "target connections": lambda: ["open"] * target.open_connections(),
        "relays": lambda: [str(pid) for pid in leaks.relays(cloud.pid, ports)],
        "sockets": lambda: open_sockets(held),
        "session items": lambda: leaks.leaked_items(leaks.session_items(cloud.pid)),
    }
    return {what: _until_none(ask, deadline - time.monotonic()) for what, ask in look.items()}


def _aftermath(cloud: LocalCloud, deadline: float) -> tuple[list[dict[str, Any]], Evidence]:
    """The items, and what the logs tell, once nothing of it changes any more.

    A relay has its last words to say when nothing is left of its target, and ``$disconnect`` may be late:
    both are waited for, unless everything has come to its end already.
    """
    until = min(deadline, time.monotonic() + work.GRACE + _LATE + HANG / 2)
    while True:
        items, evidence = leaks.session_items(cloud.pid), read({name: cloud.logs(name) for name in FUNCTIONS})
        if not (evidence.killed or lost_items(items, evidence)) or time.monotonic() > until:
            return items, evidence
        time.sleep(_LOOK)


def open_sockets(held: set[str]) -> list[str]:
    """Sockets of this process, but for those that were open at the start."""
    for _ in range(
        2
    ):  # a driver that was cut off may be garbage in a cycle, and its socket with it: no leak.
        gc.collect()  # A file that finds the tunnel cut when it is finalised needs the second round.
    return leaks.named(leaks.sockets() - held)


def _until_none(ask: Callable[[], list[str]], seconds: float) -> list[str]:
    """Ask until there is nothing, or the time is up. What it asks about tells nobody when it goes."""
    deadline = time.monotonic() + seconds
    while (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _judge_lost(stats: Stats, target: Target) -> None:
    """A stream that ended too early at the target, or never came, is right only if somebody was told."""
    for number in target.cut_short - set(stats.cut_off):
        stats.mismatch(f"transfer {number} ended too early at the target, and the dialer had no error")
    for number in stats.unalarmed - target.whole - target.cut_short:
        stats.mismatch(f"transfer {number} did not come to the target, and nobody was told")


def _keep_logs(cloud: LocalCloud, progress: TextIO) -> None:
    path = Path(tempfile.gettempdir(), f"soak-{cloud.pid}.log")
    path.write_text(cloud.logs())
    _say(progress, f"the functions' logs are in {path}")


def _say(progress: TextIO, what: str) -> None:
    progress.write(what + "\n")
    progress.flush()
