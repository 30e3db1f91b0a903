"""What a soak has shown, and whether that is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from emissary_lib.protocol.constants import DEFAULT_CAPACITY
from tests.soak import schedule
from tests.soak.stalled_readers import ALLOWANCE
from tests.soak.stats import TOLD, Stats

#: Least that a soak of :data:`FULL` seconds or more must have met and done; a shorter one, its share.
FULL: Final = 120.0
LEAST_CUTS: Final = 50
LEAST_BYTES: Final = 100_000_000

#: Most memory of a relay, in MB: half of what the template gives it.
MOST_RELAY_MB: Final = 128.0


def judge(
    stats: Stats,
    met: Mapping[str, int],
    left: Mapping[str, list[str]],
    lost: Mapping[str, list[str]],
    unexplained: list[str],
    ends: Mapping[str, int],
    seconds: float,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The line of JSON.

    Args:
        stats: What was done.
        met: Faults by kind.
        left: What is left behind, by kind.
        lost: Sessions that nobody has ended, by why.
        unexplained: What no fault explains.
        ends: How the sessions ended, by the table.
        seconds: For how long things went wrong.
        about: Goes into the line as it is.

    Returns:
        ``failed`` lists what is wrong, and is empty if all is well.
    """
    sums = stats.sums()
    result = {
        **about,
        "sessions": sums.get("sessions", 0),
        "connections": sums.get("connections", 0),
        "bytes": sums.get("bytes", 0),
        "done": dict(sorted(stats.done.items())),
        "clear_errors": dict(sorted(stats.errors.items())),
        "errors": dict(sorted(stats.errors_by_name().items())),
        "ends": dict(sorted(ends.items())),
        "faults": dict(sorted(met.items())),
        "faults_not_met": [kind for kind in schedule.KINDS if not met.get(kind)],
        "cuts": sum(met.get(kind, 0) for kind in schedule.CUTS),
        "resumes": sums.get("resumes", 0),
        "retransmits": sums.get("retransmits", 0),
        "mismatches": len(stats.mismatches),
        "unreported_losses": sum(each.endswith("nobody was told") for each in stats.mismatches),
        "unexplained": len(unexplained),
        "leaked": {what: len(found) for what, found in left.items()},
        "leaked_items": len(left.get("session items", ())),
        "lost_items": {why: len(found) for why, found in sorted(lost.items())},
        "peak_rss_mb": {
            "relay": round(stats.peaks.get("relay_rss_mb", 0.0), 1),
            "dialer": round(stats.peaks.get("stopped_rss_mb", 0.0), 1),
        },
        "stream_mb": round(stats.peaks.get("stream_mb", 0.0), 1),
    }
    wrong = [
        *stats.mismatches[:TOLD],
        *(f"left: {what} {found[:5]}" for what, found in left.items() if found),
        *unexplained,
    ]
    return {**result, "failed": wrong + list(_shortcomings(result, seconds))}


def _shortcomings(result: Mapping[str, Any], seconds: float) -> list[str]:
    share = min(1.0, seconds / FULL)
    found = []
    if result["cuts"] < LEAST_CUTS * share:
        found.append(f"only {result['cuts']} cuts")
    if result["bytes"] < LEAST_BYTES * share:
        found.append(f"only {result['bytes']} bytes")
    if seconds >= FULL and result["faults_not_met"]:
        found.append(f"never met: {', '.join(result['faults_not_met'])}")
    if result["peak_rss_mb"]["relay"] >= MOST_RELAY_MB:
        found.append(f"a relay took {result['peak_rss_mb']['relay']} MB")
    if result["stream_mb"] > (DEFAULT_CAPACITY + ALLOWANCE) / 1e6:
        found.append(f"a stream whose reader had stopped took {result['stream_mb']} MB of its dialer")
    if seconds >= FULL and not (result["done"].get("stopped") and result["stream_mb"]):
        found.append("no stream whose reader had stopped went well")
    return found
