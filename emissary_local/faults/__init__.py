"""Seeded faults: what the local cloud does wrong on purpose, as AWS now and then does.

:class:`Faults` says which and how often, :class:`FaultEngine` decides and counts. Each place where something
can go wrong asks a :class:`FaultRng` of its own.
"""

from __future__ import annotations

from emissary_local.faults.engine import FaultEngine, FaultRng, Site
from emissary_local.faults.hop import HOLD_SECONDS, MAX_OVERTAKERS, Decision, DecisionStream, Hop
from emissary_local.faults.settings import HOWS, SIDES, Faults

__all__ = [
    "HOLD_SECONDS",
    "HOWS",
    "MAX_OVERTAKERS",
    "SIDES",
    "Decision",
    "DecisionStream",
    "FaultRng",
    "FaultEngine",
    "Faults",
    "Hop",
    "Site",
]
