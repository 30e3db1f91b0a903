"""What the doctor finds: one finding for each rung, and all of them as a report."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from emissary_lib.exit_status import Exit


class Status(enum.StrEnum):
    """How a rung fares."""

    OK = "ok"
    WARNING = "warning"  #: it holds, but something should be seen to
    FAILED = "failed"  #: here the ladder breaks
    SKIPPED = "skipped"  #: not looked at


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rung found.

    Attributes:
        status: How it fares.
        fact: One line: what is so.
        remedy: One line: what to do; always there after a failure or a warning.
        seconds: How long it took; ``None`` where nothing was waited for.
        exit: The exit status of a failure.
    """

    status: Status
    fact: str
    remedy: str = ""
    seconds: float | None = None
    exit: Exit = Exit.OK


def ok(fact: str, seconds: float | None = None) -> Finding:
    """The rung holds."""
    return Finding(Status.OK, fact, seconds=seconds)


def warning(fact: str, remedy: str, seconds: float | None = None) -> Finding:
    """The rung holds, but."""
    return Finding(Status.WARNING, fact, remedy, seconds)


def failed(exit: Exit, fact: str, remedy: str, seconds: float | None = None) -> Finding:
    """The ladder breaks here."""
    return Finding(Status.FAILED, fact, remedy, seconds, exit)


def skipped(fact: str) -> Finding:
    """Not looked at, and why not."""
    return Finding(Status.SKIPPED, fact)


@dataclass(frozen=True, slots=True)
class Result:
    """A rung's name and what it found."""

    rung: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """The whole ladder.

    Attributes:
        url: The gateway's URL, as far as it is known.
        target: ``host:port`` inside the VPC; ``None`` if none was named.
        results: One for each rung, in order; all of them, whatever happened.
        latency: Seconds of each hop that was measured, by name.
    """

    url: str | None
    target: str | None
    results: tuple[Result, ...]
    latency: dict[str, float] = field(default_factory=dict)

    @property
    def broken(self) -> Result | None:
        """The rung where the ladder breaks; ``None`` if it holds."""
        return next((each for each in self.results if each.finding.status is Status.FAILED), None)

    @property
    def exit(self) -> Exit:
        """The exit status: that of the broken rung."""
        return self.broken.finding.exit if self.broken else Exit.OK
