"""The report as text, and as JSON (docs/doctor.md, "JSON")."""

from __future__ import annotations

import json
from typing import Final

from emissary_lib._version import __version__
from emissary_lib.doctor.checks import Report, Result, Status

#: Raised when a member changes its meaning or goes; new ones do not raise it.
SHAPE: Final = 1

_NAME_WIDTH: Final = 14
_INDENT: Final = " " * 10


def line(result: Result) -> str:
    """One check of the text: a line, and one more that says what to do."""
    found = result.finding
    status = found.status.value.upper() if found.status is Status.FAILED else found.status.value
    took = "" if found.seconds is None else f"{_milliseconds(found.seconds):.0f} ms"
    text = f"{status:<9} {result.name:<{_NAME_WIDTH}} {took:>8}  {found.fact}"
    return f"{text}\n{_INDENT}-> {found.hint}" if found.hint else text


def summary(report: Report) -> str:
    """The end of the text: the latency of each hop, and the outcome."""
    hops = ", ".join(f"{name} {_milliseconds(took):.0f}" for name, took in report.latency.items())
    text = f"\nlatency in ms: {hops}\n" if hops else "\n"
    if report.failed_check:
        return f"{text}The check {report.failed_check.name} failed; exit status {report.exit.value}."
    warned = [each.name for each in report.results if each.finding.status is Status.WARNING]
    if warned:
        return f"{text}All checks passed, with warnings at {', '.join(warned)}."
    return f"{text}All checks passed."


def as_json(report: Report) -> str:
    """The report as one line of JSON."""
    return json.dumps(
        {
            "version": SHAPE,
            "emissary": __version__,
            "url": report.url,
            "target": report.target,
            "ok": report.failed_check is None,
            "exit_status": report.exit.value,
            "failed_check": report.failed_check.name if report.failed_check else None,
            "checks": [_check_json(each) for each in report.results],
            "latency_ms": {name: _milliseconds(took) for name, took in report.latency.items()},
        }
    )


def _check_json(result: Result) -> dict[str, object]:
    found = result.finding
    return {
        "name": result.name,
        "status": found.status.value,
        "milliseconds": None if found.seconds is None else _milliseconds(found.seconds),
        "fact": found.fact,
        "hint": found.hint or None,
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
