"""Programs that write and end at once, through the real command and a local cloud, and what becomes of it.

Each run is one ``emissary exec``. What has arrived at the target and what was reported as lost must be
everything: either it is whole, and the status is the program's own; or standard error says what is lost, and
the status is the program's, where that is not 0, that of the failed dial, or 9.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_local import LocalCloud
from tests.ends.draw import NOT_DIALLED, Draw, draw
from tests.ends.target import Recorder
from tests.helpers.servers import Server, unused_port

_ROOT: Final = Path(__file__).resolve().parents[2]

#: Status of a program whose own socket told it of an error.
TOLD: Final = 75

#: Connects, writes so many bytes of the pattern, says how many its kernel has taken, and ends as it is told.
PROGRAM: Final = f"""
import os, signal, socket, sys, threading, time
size, end, killed_after = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def kill():
    time.sleep(killed_after)
    os.kill(os.getpid(), signal.SIGKILL)
data = memoryview((bytes(range(251)) * (size // 251 + 1))[:size])
try:
    sock = socket.create_connection((os.environ["EMISSARY_HOST"], int(os.environ["EMISSARY_PORT"])))
    if killed_after >= 0:
        threading.Thread(target=kill, daemon=True).start()
    at = 0
    while at < size:
        at += sock.send(data[at : at + 50_000])
        os.write(1, b"%d\\n" % at)
    exec(end)
except OSError:
    os._exit({TOLD})
"""

#: How ``exec`` ends if a connection failed, by what its target is; with faults, in any of these ways.
_DIALS: Final = {
    "refused": Exit.REFUSED,
    "off the list": Exit.NOT_ALLOWED,
    "wrong key": Exit.KEY,
}
FAILURES: Final = frozenset(
    {*_DIALS.values(), Exit.GATEWAY, Exit.NOT_REACHED, Exit.TIMED_OUT, Exit.CUT_OFF, Exit.UNREACHABLE}
)

#: Longest run, and longest that a relay may then take to hand on what it has, in seconds. Only a hang reaches
#: the first; the second is beyond the grace of a dialer that is gone.
_HANG: Final = 180.0
_HANDS_ON: Final = 60.0

#: Seconds for which a relay waits for a side that has lost its WebSocket.
_GRACE: Final = 15


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of one run.

    Attributes:
        draw: The run.
        status: Of the command; ``None`` if it hung.
        err: What it said on standard error.
        took: How much the program's kernel had taken, as far as the program could tell.
        arrived: How much had come to the target's kernel.
        reached: Whether the target had a connection.
        corrupt: Whether what came is not what was written.
    """

    draw: Draw
    status: int | None
    err: str
    took: int
    arrived: int
    reached: bool
    corrupt: bool = False

    @property
    def own(self) -> int:
        """The program's own status, as far as can be told."""
        return TOLD if self.status == TOLD else self.draw.status

    @property
    def whole(self) -> bool:
        """Whether everything arrived."""
        return self.reached and self.arrived >= self.took and not self.corrupt

    @property
    def reported(self) -> bool:
        """Whether somebody was told of a loss, by words and by status."""
        exact = _DIALS.get(self.draw.target) if self.draw.faults == "none" else None
        allowed = FAILURES if exact is None else {exact}
        return (
            bool(self.err)
            and self.status is not None
            and (self.status == self.own if self.own else self.status in allowed)
        )

    @property
    def wrong(self) -> str:
        """What must not be, in words; empty if all is well."""
        if self.status is None:
            return "it hangs"
        if self.corrupt:
            return "other bytes arrived than were written"
        if not self.whole and not self.reported:
            return "UNREPORTED LOSS"
        if self.whole and self.status != self.own and not self.reported:
            return f"all arrived, and the status is not {self.own}"
        return ""

    @property
    def kind(self) -> str:
        """Its column in the table. An alarm about what arrives after all: nobody can know better in time."""
        if self.wrong:
            return "wrong"
        if not self.whole:
            return "reported"
        return "whole, alarmed" if self.err else "arrived whole"

    def __str__(self) -> str:
        said = " | ".join(self.err.splitlines()) or "nothing"
        return (
            f"{self.wrong or self.kind}: {self.draw}\n"
            f"  status {self.status} (its own {self.own}), {self.arrived} of {self.took} bytes arrived, "
            f"said: {said}"
        )


def run_all(seed: int, numbers: Iterable[int], progress: TextIO) -> list[Result]:
    """Run them, those of each latency one after another on a local cloud of their own.

    Args:
        seed: Of all draws.
        numbers: Which runs.
        progress: Where to say how it goes.

    Raises:
        LocalCloudError: A local cloud did not start.
    """
    draws = [draw(seed, number) for number in numbers]
    results: list[Result] = []
    failed: list[BaseException] = []

    def work(latency: str, own: Sequence[Draw]) -> None:
        try:
            with local_cloud(latency) as cloud:
                for each in own:
                    result = run(cloud, each)
                    results.append(result)
                    progress.write(f"{len(results):5} of {len(draws)}: {result}\n")
                    progress.flush()
        except BaseException as exc:
            failed.append(exc)

    threads = [
        threading.Thread(target=work, args=(latency, own), name=f"ends-{latency}")
        for latency in sorted({each.latency for each in draws})
        if (own := [each for each in draws if each.latency == latency])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sorted(results, key=lambda result: result.draw.number)


@contextlib.contextmanager
def local_cloud(latency: str) -> Iterator[LocalCloud]:
    """One that reaches every port of 127.0.0.1, and no other address."""
    parameters = {
        "AllowedTargets": json.dumps([{"host": "127.0.0.1", "port": "1024-65535"}]),
        "RelayGraceSeconds": str(_GRACE),
    }
    with LocalCloud(_ROOT / "template.yaml", parameters=parameters, latency=latency) as cloud:
        yield cloud


def run(cloud: LocalCloud, each: Draw) -> Result:
    """One run."""
    cloud.set_faults(each.settings)
    if each.cold:
        cloud.retire()
    recorder = Recorder(each.target, each.reset_after)
    key = Key(cloud.key.key_id, bytes(48)) if each.target == "wrong key" else cloud.key
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(unused_port() if each.target == "refused" else Server(recorder))
        stack.callback(recorder.close)
        host = "127.0.0.2" if each.target == "off the list" else address[0]
        status, out, err = _command(cloud.url, key, f"{host}:{address[1]}", each)
        took = int(out.split()[-1]) if out.split() else 0
        deadline = time.monotonic() + _HANDS_ON
        while (
            each.target not in NOT_DIALLED
            and not (err and status)
            and len(recorder.arrived) < took
            and recorder.busy
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        arrived, unread = recorder.arrived, recorder.thrown_away
    corrupt = not each.written.startswith(arrived)
    return Result(each, status, err, took, len(arrived) + unread, recorder.reached, corrupt)


def _command(url: str, key: Key, target: str, each: Draw) -> tuple[int | None, str, str]:
    """Run ``emissary exec``; gives the status, and what was said on standard output and error."""
    killed_after = each.reset_after % 500 / 1000 if each.end == "SIGKILL while it writes" else -1
    words = [sys.executable, "-S", "-c", PROGRAM, str(each.size), each.last, str(killed_after)]
    command = subprocess.Popen(
        [sys.executable, "-m", "emissary_lib", "exec", target, "--", *words],
        cwd=_ROOT,
        env={
            **os.environ,
            "EMISSARY_URL": url,
            "EMISSARY_AUTH_KEYS": format_keys([key]),
            "EMISSARY_CONNECTIONS_PER_RELAY": str(each.sharing),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with command:
        try:
            out, err = command.communicate(timeout=_HANG)
        except subprocess.TimeoutExpired:
            command.kill()
            out, err = command.communicate()
            return None, out, err
    return command.returncode, out, err.strip()


def table(results: Sequence[Result]) -> str:
    """What became of the runs, by what they met."""
    kinds = ("arrived whole", "whole, alarmed", "reported", "wrong")
    rows: list[tuple[str, ...]] = [("", "runs", *kinds)]

    def row(name: str, some: Sequence[Result]) -> None:
        found = Counter(each.kind for each in some)
        rows.append((name, str(len(some)), *(str(found[kind]) for kind in kinds)))

    for what in ("target", "faults", "end", "latency", "kind"):
        for name in sorted(Counter(str(getattr(each.draw, what)) for each in results)):
            row(f"{what}: {name}", [each for each in results if str(getattr(each.draw, what)) == name])
    row("all", results)
    width = max(len(name) for name, *_ in rows)
    lines = (f"{name:{width}}{''.join(f'{cell:>16}' for cell in cells)}" for name, *cells in rows)
    return "\n".join(lines) + "\n"
