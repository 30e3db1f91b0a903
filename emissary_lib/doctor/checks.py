"""Climbs a ladder: rung after rung, until one breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emissary_lib.doctor.report import Finding, Result, Status, skipped


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung.

    Attributes:
        name: Its name, as it stands in the report.
        look: Finds out; called once, and only if no rung before it broke.
    """

    name: str
    look: Callable[[], Finding]


def climb(rungs: Iterable[Rung], told: Callable[[Result], None] = lambda result: None) -> tuple[Result, ...]:
    """Look at each rung; behind one that breaks the rest is skipped, because each stands on those before it.

    Args:
        rungs: In order.
        told: Called with each result as soon as it is there.
    """
    results: list[Result] = []
    broken: str | None = None
    for rung in rungs:
        finding = rung.look() if broken is None else skipped(f"not reached: {broken} failed")
        if finding.status is Status.FAILED:
            broken = rung.name
        results.append(Result(rung.name, finding))
        told(results[-1])
    return tuple(results)
