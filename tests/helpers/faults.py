"""Faults of one kind, for tests that take the kind as an argument."""

from __future__ import annotations

from typing import Any

from emissary_local.faults import Faults


def faults_of(share: float, *kinds: str, **others: Any) -> Faults:
    """Faults of these kinds, each in this share of its occasions, and ``others`` as they are."""
    settings = {**dict.fromkeys(kinds, share), **others}
    return Faults(**settings)
