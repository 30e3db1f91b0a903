"""What the demo says while it works, and the table at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator
from typing import Final, TextIO

from emissary_lib.prices import HERE
from emissary_local.billing.meter import MeterSnapshot
from tools.demo.bulk import Transfer
from tools.demo.verify import Check

#: Dots of a full bar of progress.
_DOTS: Final = 20

#: Width of what stands before the seconds.
_WIDTH: Final = 72


class Progress:
    """Writes a line a step: what is being done, at once, and how long it took, when it is done."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._column = 0
        self._dots = 0

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say that ``what`` begins; at the end of the block, that it took so long, unless it failed."""
        self._say(what + " ")
        self._dots = 0
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            self._say("failed\n")
            raise
        took = f"{time.monotonic() - begun:.1f} s\n"
        self._say(took.rjust(max(len(took), _WIDTH - self._column)))

    def share(self, done: float) -> None:
        """Show how much of the step is done, 0 to 1, as dots."""
        dots = int(done * _DOTS)
        if dots > self._dots:
            self._say("." * (dots - self._dots))
            self._dots = dots

    def line(self, text: str) -> None:
        """A line that belongs to the step."""
        self._say(("\n" if self._column else "") + f"    {text}\n")

    def _say(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._column = len(text) - text.rfind("\n") - 1 if "\n" in text else self._column + len(text)


@dataclasses.dataclass(slots=True)
class Report:
    """What the demo found out, filled in as it goes.

    Attributes:
        applied: Revisions, as they were applied.
        dials: Seconds of each dial, the first from cold.
        round_trips: Seconds of each ``SELECT 1``.
        sent, received: The two COPYs.
        checks: Facts asked of the database directly, and whether AWS refused a call.
        meter: What AWS would have billed for.
    """

    applied: list[str] = dataclasses.field(default_factory=list)
    dials: list[float] = dataclasses.field(default_factory=list)
    round_trips: list[float] = dataclasses.field(default_factory=list)
    sent: Transfer | None = None
    received: Transfer | None = None
    checks: list[Check] = dataclasses.field(default_factory=list)
    meter: MeterSnapshot = dataclasses.field(default_factory=MeterSnapshot)

    @property
    def ok(self) -> bool:
        """True if there are facts, and every one is as it should be."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def table(self) -> str:
        """The table, ending with a newline; wrong facts stand below it."""
        good = sum(check.ok for check in self.checks)
        first, *later = (seconds * 1e3 for seconds in self.dials)
        dial = f"first {first:.0f} ms (cold)"
        if later:
            dial += f", then {statistics.median(later):.0f} ms (median of {len(later)})"
        rows = [
            ("applied", f"{len(self.applied)} revisions, {_span(self.applied)}"),
            ("dial", dial),
            ("round trip", _round_trip(self.round_trips)),
            ("COPY in", _transfer(self.sent)),
            ("COPY out", _transfer(self.received)),
            ("messages", f"{self.meter.messages_in:,} from clients, {self.meter.messages_out:,} to clients"),
            (
                "AWS would bill",
                f"${self.meter.cost():.6f} ({HERE})",
            ),
            (
                "verified",
                f"{good} of {len(self.checks)} facts: the database's own, and that no AWS call was refused",
            ),
        ]
        lines = [f"  {name:<16}{value}" for name, value in rows]
        lines += [
            f"  WRONG: {check.what}: expected {check.expected!r}, found {check.found!r}"
            for check in self.checks
            if not check.ok
        ]
        return "\n".join(lines) + "\n"


def _span(applied: list[str]) -> str:
    return f"{applied[0].split()[0]} to {applied[-1].split()[0]}" if applied else "none"


def _round_trip(seconds: list[float]) -> str:
    if not seconds:
        return "not measured"
    return f"{statistics.median(seconds) * 1e3:.1f} ms (SELECT 1, median of {len(seconds)})"


def _transfer(transfer: Transfer | None) -> str:
    if transfer is None:
        return "not done"
    size = transfer.size / 1e6
    return f"{size:.1f} MB in {transfer.seconds:.2f} s, {transfer.rate:.1f} MB/s, checksummed at both ends"
