"""Which errors the faults of a soak can explain, and how many of them.

A tunnel outlives cuts, losses, throttles and the death of any function but its relay. So a session that was
cut off though its relay lived is a coincidence of several faults within one grace, a machine that is too slow
for so many processes, or a bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.soak.evidence import Evidence
from tests.soak.stats import Stats

#: How a dial may fail: its time ran out, or did within the pause after one of these, which are tried again
#: (emissary_lib/client/handshake.py).
DIAL_ERRORS: Final = frozenset(
    {
        "DialTimeoutError/TARGET_TIMED_OUT",
        "AnswerLostError",
        "LinkClosedError",
        *(f"GatewayRefusedError/{status}" for status in (429, 500, 502, 503, 504)),
        *(f"DialError/{code}" for code in ("DIALER_GONE", "RELAY_GONE", "OPENING_EXPIRED")),
    }
)

#: How an open tunnel may end: one side has not been seen for a grace. That of Lambda's limit is longer than
#: any piece of work here.
CUT_OFF: Final = frozenset({"TunnelResetError/DIALER_GONE", "TunnelResetError/RELAY_GONE"})

#: Share of dials whose failure is no wonder, and the number that never is. About one opening of thirty meets
#: an invocation or a post that hangs for longer than a dial may take.
_DIALS: Final = 0.1
_FEW: Final = 2

#: Shares of the dials that may fail, and of the tunnels that may be cut off though their relays live, on
#: whatever machine: one with many more processes than processors lets a grace pass before its faults do.
_MOST_DIALS: Final = 0.5
_MOST_CUT_OFF: Final = 0.34

#: Silent deaths, and deaths of functions, for each session that may be cut off though its relay lived. Only
#: silence may be noticed as late as the grace ends, and it is harmless by itself: another fault has to meet
#: that session meanwhile. A function's death costs one message or one attempt of a reconnect.
_SILENCES: Final = 3
_DEATHS: Final = 20


def most_cut_off(met: Mapping[str, int], evidence: Evidence) -> int:
    """How many sessions whose relay lived the faults may have cut off."""
    return max(1, met.get("silence", 0) // _SILENCES + sum(evidence.deaths.values()) // _DEATHS)


def unexplained(stats: Stats, evidence: Evidence) -> list[str]:
    """What the users' errors show that no fault explains, in words.

    Args:
        stats: What the users saw.
        evidence: Of the functions' logs.
    """
    errors = stats.errors_by_name()
    found = [
        f"no fault explains {name} ({count} times)"
        for name, count in sorted(errors.items())
        if name not in DIAL_ERRORS | CUT_OFF
    ]
    dead = len(evidence.killed)
    deaths = evidence.deaths.get("RelayFunction", 0) + len(evidence.gave_up)
    if dead > deaths:
        found.append(f"{dead} relays have not returned, and only {deaths} were killed or not let in")
    sums = stats.sums()
    sessions, opened = sums.get("sessions", 0), sums.get("connections", 0)
    if (dials := _failed_dials(stats)) > max(_FEW, _MOST_DIALS * (opened + dials)):
        found.append(f"{dials} dials failed, and {opened} did not")
    survivors = _cut_off(stats, evidence)
    if len(survivors) > max(_FEW, _MOST_CUT_OFF * sessions):
        found.append(f"{len(survivors)} of {sessions} sessions were cut off though their relays lived")
    return found


def unrecorded(evidence: Evidence) -> list[str]:
    """Shared sessions whose relays returned, and whose records do not fit each other, in words.

    Each connection that was opened has an end (docs/protocol.md 11.7-1), and all are counted (11.7-3).
    """
    found = []
    for session in sorted(set(evidence.returned) & set(evidence.connected)):
        opened, ended = evidence.connected[session]
        recorded = evidence.recorded.get(session, opened)
        if not opened == ended == recorded:
            told = f"{opened} connections, {ended} of them ended, {recorded} in its audit record"
            found.append(f"session {session[:8]}: {told}")
    return found


def doubtful(stats: Stats, met: Mapping[str, int], evidence: Evidence) -> list[str]:
    """What the faults alone do not explain, in words: a machine that cannot keep up, or a bug.

    Args:
        stats: What the users saw.
        met: Faults by kind.
        evidence: Of the functions' logs.
    """
    found, opened = [], stats.sums().get("connections", 0)
    if (dials := _failed_dials(stats)) > max(_FEW, _DIALS * (opened + dials)):
        found.append(f"{dials} dials failed, and {opened} did not")
    survivors = _cut_off(stats, evidence)
    if len(survivors) > (allowed := most_cut_off(met, evidence)):
        told = ", ".join(f"{session[:8]} {stats.interrupted[session]}" for session in survivors[:5])
        text = f"{len(survivors)} sessions were cut off though their relays lived"
        found.append(f"{text}, the faults explain {allowed}: {told}")
    return found


def _failed_dials(stats: Stats) -> int:
    return sum(count for name, count in stats.errors_by_name().items() if name in DIAL_ERRORS)


def _cut_off(stats: Stats, evidence: Evidence) -> list[str]:
    """Sessions that were cut off though their relays lived."""
    return sorted(set(stats.interrupted) - evidence.killed)
