"""Sessions that nobody has ended: those of which nobody was left to say so, and those of which somebody was.

A session's item stays as it is if both of its clients die without a word (docs/protocol.md section 5.4). The
faults can bring that about, but not often, and each time they leave a trace. What has none is a leak.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from emissary_lib.bridge.items import read_session
from emissary_lib.bridge.session import RecordState, SessionRecord
from tests.soak import schedule
from tests.soak.evidence import Evidence

#: Kinds of lost sessions; the values of :func:`most` tell how many of each there may be.
KILLED: Final = "relay killed"
CUT: Final = "relay cut off at its end"
UNCLAIMED: Final = "never claimed"

#: Nothing explains it: the relay returned, and closed a WebSocket over which it could have said so.
UNSAID: Final = "relay left without a word"

#: Cuts and deaths for each session that may be lost because of one: its relay must be met in its last second
#: or so of some tens, and its dialer must be gone, or be met as well.
_IN_ITS_END: Final = 10


def lost_items(items: Iterable[dict[str, Any]], evidence: Evidence) -> dict[str, list[str]]:
    """Sessions that are not ended, once no relay and no dialer is left, by why.

    Args:
        items: All of the table.
        evidence: Of the functions' logs.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for item in items:
        if item["pk"]["S"].startswith("S#"):
            session = read_session(item)
            if session.state is not RecordState.ENDED and session.loss(session.purge_at) is not None:
                found[_kind(session, evidence)].append(session.id)
    return dict(found)


def _kind(session: SessionRecord, evidence: Evidence) -> str:
    if session.state is not RecordState.OPEN:
        return UNCLAIMED
    if session.id not in evidence.returned:
        return KILLED
    return UNSAID if evidence.left.get(session.id) == session.relay.epoch else CUT


def most(met: Mapping[str, int], evidence: Evidence) -> dict[str, int]:
    """How many sessions of each kind the faults can explain.

    Args:
        met: Faults by kind.
        evidence: Of the functions' logs.
    """
    deaths, silences = evidence.deaths, met.get("silence", 0)
    mishaps = sum(met.get(kind, 0) for kind in schedule.CUTS) + silences + sum(deaths.values())
    return {
        # By each death one, but for those that were not let in, who end as quietly.
        KILLED: deaths.get("RelayFunction", 0) + len(evidence.gave_up),
        CUT: max(1, mishaps // _IN_ITS_END),
        # Its dialer was forgotten by nobody: the $disconnect did not come, or died; or $connect had written
        # the session, and died before it let the dialer in.
        UNCLAIMED: met.get("disconnect_missing", 0)
        + silences
        + deaths.get("ConnectFunction", 0)
        + deaths.get("DisconnectFunction", 0),
        UNSAID: 0,
    }


def too_many(lost: Mapping[str, list[str]], met: Mapping[str, int], evidence: Evidence) -> list[str]:
    """What is wrong with that, in words."""
    allowed = most(met, evidence)
    return [
        f"{len(sessions)} sessions were not ended ({kind}), the faults explain {allowed[kind]}: "
        + ", ".join(session[:8] for session in sessions[:5])
        for kind, sessions in lost.items()
        if len(sessions) > allowed[kind]
    ]
