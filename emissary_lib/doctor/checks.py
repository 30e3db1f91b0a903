"""Checks, what they find, and the report of all of them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from emissary_lib.exit_status import Exit


class Status(enum.StrEnum):
    """The outcome of a check."""

    OK = "ok"
    WARNING = "warning"  #: it passed, but something should be seen to
    FAILED = "failed"  #: the checks after it are skipped
    SKIPPED = "skipped"  #: not run


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        status: Its outcome.
        fact: One line: what is so.
        hint: One line: what to do; always there after a failure or a warning.
        seconds: How long it took; ``None`` where nothing was waited for.
        exit: The exit status of a failure.
    """

    status: Status
    fact: str
    hint: str = ""
    seconds: float | None = None
    exit: Exit = Exit.OK


def ok(fact: str, seconds: float | None = None) -> Finding:
    """It passed."""
    return Finding(Status.OK, fact, seconds=seconds)


def warning(fact: str, hint: str, seconds: float | None = None) -> Finding:
    """It passed, but something should be seen to."""
    return Finding(Status.WARNING, fact, hint, seconds)


def failure(exit: Exit, fact: str, hint: str, seconds: float | None = None) -> Finding:
    """It failed."""
    return Finding(Status.FAILED, fact, hint, seconds, exit)


def skip(fact: str) -> Finding:
    """It was not run; ``fact`` says why."""
    return Finding(Status.SKIPPED, fact)


@dataclass(frozen=True, slots=True)
class Result:
    """A check's name and what it found."""

    name: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: Its name, as it stands in the report.
        run: Finds out; called once, and only if no check before it failed.
    """

    name: str
    run: Callable[[], Finding]


def run_checks(
    checks: Iterable[Check], on_result: Callable[[Result], None] = lambda result: None
) -> tuple[Result, ...]:
    """Run each check; after one that fails the rest is skipped, because each builds on those before it.

    Args:
        checks: In order.
        on_result: Called with each result as soon as it is there.
    """
    results: list[Result] = []
    stopped_by: str | None = None
    for check in checks:
        finding = check.run() if stopped_by is None else skip(f"not reached: {stopped_by} failed")
        if finding.status is Status.FAILED:
            stopped_by = check.name
        results.append(Result(check.name, finding))
        on_result(results[-1])
    return tuple(results)


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks.

    Attributes:
        url: The gateway's URL, as far as it is known.
        target: ``host:port`` inside the VPC; ``None`` if none was named.
        results: One for each check, in order; all of them, whatever happened.
        latency: Seconds of each hop that was measured, by name.
    """

    url: str | None
    target: str | None
    results: tuple[Result, ...]
    latency: dict[str, float] = field(default_factory=dict)

    @property
    def failed_check(self) -> Result | None:
        """The check that failed; ``None`` if none did."""
        return next((each for each in self.results if each.finding.status is Status.FAILED), None)

    @property
    def exit(self) -> Exit:
        """The exit status: that of the check that failed."""
        return self.failed_check.finding.exit if self.failed_check else Exit.OK
