"""All faults at once, and which of them must have been met."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from emissary_local.faults import Faults
from emissary_local.faults.settings import SHARES

#: Names under which :attr:`LocalCloud.fault_counts` counts, all of which a soak must meet. No function makes
#: a read that can be stale; the soak's table reader does. Not among them are a long message that is refused
#: (the stack would remember it, and all that come after would be short) and a door that forbids (two in a row
#: are a session's end).
KINDS: Final = (
    *sorted(set(SHARES) - {"long_refused", "connect_403"}),
    "cut_close",
    "cut_reset",
    "cut_mid_frame",
    "silence",
    "storm",
)

#: The share of a kind that has not been met yet: soon met, and yet no end of all work.
LIKELY: Final = 0.05

#: Names of the cuts among them.
CUTS: Final = ("cut_close", "cut_reset", "cut_mid_frame")


def calm(seed: int) -> Faults:
    """Nothing goes wrong any more; clocks stay as they are."""
    return Faults(seed=seed, skew_seconds=45.0, skew_spread=20.0)


def worse(faults: Faults, met: Mapping[str, int]) -> Faults:
    """The same, with those kinds more likely that have not been met yet."""
    rates = {"silence": "silence_every", "storm": "storm_every"}
    rates |= dict.fromkeys(CUTS, "cut_every")
    missing = [kind for kind in KINDS if not met.get(kind)]
    more: dict[str, float] = {kind: LIKELY for kind in missing if kind in SHARES}
    more |= {rates[kind]: getattr(faults, rates[kind]) / 3 for kind in missing if kind in rates}
    return dataclasses.replace(faults, **more)  # type: ignore[arg-type]


def storm(seed: int) -> Faults:
    """Everything goes wrong, seldom enough that work gets done, and often enough to be met in two minutes."""
    return Faults(
        seed=seed,
        reorder=0.08,
        duplicate=0.03,
        drop=0.01,
        delay=0.03,
        message_429=0.005,
        message_500=0.005,
        long_lost=0.005,
        close_1008=0.0005,
        close_1011=0.0005,
        close_1012=0.0005,
        connect_429=0.04,
        connect_500=0.04,
        connect_lost=0.04,
        disconnect_missing=0.05,
        disconnect_late=0.05,
        post_410=0.005,
        post_429=0.005,
        post_500=0.005,
        post_hang=0.003,
        crash=0.004,
        invoke_hang=0.002,
        cold_start=0.01,
        storm_every=15.0,
        duplicate_invoke=0.08,
        invoke_429=0.06,
        invoke_500=0.06,
        lost_write=0.03,
        database_500=0.02,
        kept_dead=0.003,
        stale_read=0.5,
        cut_every=1.2,
        silence_every=12.0,
        silence_seconds=30.0,
        skew_seconds=45.0,
        skew_spread=20.0,
    )
