"""A worker in a process of its own: how it is started, told what to do, and asked what it has seen."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.record import as_dict
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from tests.helpers.patience import HANG
from tests.soak.leaks import peak_memory, tunnel_threads
from tests.soak.stats import Stats
from tests.soak.work import Context, attempt, dialers_of_both_kinds
from tools.demo.postgres import Postgres

_ROOT: Final = Path(__file__).resolve().parents[2]

#: Messages in flight of a dialer of its own: there are many such processes, and few processors.
MAX_IN_FLIGHT: Final = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What a child must know.

    Attributes:
        url, key: The gateway.
        target: Address of the :class:`~tests.soak.target.Target`.
        postgres: The database, by its direct address.
        keepalive: Of its dialer.
    """

    url: str
    key: Key
    target: tuple[str, int]
    postgres: Postgres
    keepalive: KeepaliveTimes

    def line(self, seed: str) -> str:
        """One line of JSON for :func:`run`."""
        values: Mapping[str, Any] = {
            "url": self.url,
            "key_id": self.key.key_id,
            "secret": self.key.secret.hex(),
            "target": self.target,
            "postgres": dataclasses.asdict(self.postgres),
            "keepalive": as_dict(self.keepalive),
            "seed": seed,
        }
        return json.dumps(values) + "\n"


def start(module: str, settings: Settings, seed: str) -> subprocess.Popen[str]:
    """Start ``python -m module`` and tell it what to do."""
    process = subprocess.Popen(
        [sys.executable, "-m", module], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(settings.line(seed))
    process.stdin.flush()
    return process


def stop(process: subprocess.Popen[str]) -> None:
    """Tell it to begin nothing more. Idempotent."""
    if process.stdin is not None:
        process.stdin.close()
        process.stdin = None  # for communicate


def end(process: subprocess.Popen[str], stats: Stats, seconds: float) -> None:
    """Wait for its end and add what it has seen; one that does not end, or fails, is a mismatch."""
    stop(process)
    try:
        said, _ = process.communicate(timeout=max(0.1, seconds))
        answer = json.loads(said)
    except (subprocess.TimeoutExpired, ValueError) as exc:
        process.kill()
        process.communicate()
        stats.mismatch(f"{process.args!r} hangs or failed ({type(exc).__name__})")
        return
    if answer["threads"]:
        stats.mismatch(f"{process.args!r} has left threads: {answer['threads']}")
    stats.add(answer)


def run(kind: str, work: Callable[[Context, random.Random], None]) -> None:
    """In the child: repeat a piece of work until standard input ends, and say what was seen."""
    logging.disable(logging.ERROR)  # what drivers and pools say of a tunnel that was cut off
    settings = json.loads(sys.stdin.readline())
    stats, over = Stats(), threading.Event()
    key = Key(settings["key_id"], bytes.fromhex(settings["secret"]))
    keepalive = KeepaliveTimes(**settings["keepalive"])
    with dialers_of_both_kinds(settings["url"], key, keepalive, MAX_IN_FLIGHT) as dialers:
        host, port = settings["target"]
        postgres = Postgres(**settings["postgres"])
        context = Context(dialers[0], (host, port), postgres, stats, over, dialers=dialers)
        threading.Thread(target=_await_end, args=(over,), daemon=True).start()
        chance = random.Random(settings["seed"])
        while not over.is_set():
            if not attempt(context, kind, work, chance):
                over.wait(0.2)
    for thread in threading.enumerate():
        if thread.name.startswith("emissary-"):
            thread.join(HANG)
    stats.most(f"{kind}_rss_mb", peak_memory())
    said = {**stats.as_json(), "threads": tunnel_threads()}
    sys.stdout.write(json.dumps(said) + "\n")


def _await_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()
