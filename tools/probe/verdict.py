"""What a finding says about an assumption."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What an experiment has found: fit for JSON.
Findings = Mapping[str, Any]


class State(enum.Enum):
    """Whether an assumption holds."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "not answered"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state, and why it is that.

    Attributes:
        state: Whether the assumption holds.
        why: What was seen; if nothing was, how to see it.
    """

    state: State
    why: str


def holds_if(condition: object, why: str) -> Verdict:
    """HOLDS or FAILS."""
    return Verdict(State.HOLDS if condition else State.FAILS, why)


def not_answered(why: str) -> Verdict:
    """OPEN."""
    return Verdict(State.OPEN, why)
