"""fault engine: the seed decides everything, settings are checked, and what happens is counted."""

from __future__ import annotations

import dataclasses
import json

import pytest

from emissary_local.errors import SettingsError
from emissary_local.faults import FaultEngine, Faults, Site
from emissary_local.faults.settings import SHARES
from tests.helpers.faults import faults_of

EVERYTHING = faults_of(0.3, *SHARES, seed=5)


def triggered(faults: Faults, kinds: tuple[str, ...] = SHARES, instance: int = 0) -> dict[str, list[bool]]:
    rng = FaultEngine(faults).rng(Site.GATEWAY, instance)
    return {kind: [rng.triggers(kind) for _ in range(100)] for kind in kinds}


def test_the_same_seed_decides_the_same_for_every_kind() -> None:
    assert triggered(EVERYTHING) == triggered(EVERYTHING)
    assert all(any(each) and not all(each) for each in triggered(EVERYTHING).values())


def test_another_seed_or_instance_decides_otherwise() -> None:
    assert triggered(EVERYTHING) != triggered(dataclasses.replace(EVERYTHING, seed=6))
    assert triggered(EVERYTHING) != triggered(EVERYTHING, instance=1)


@pytest.mark.parametrize("kind", SHARES)
def test_a_kind_decides_the_same_whether_or_not_others_are_on(kind: str) -> None:
    assert triggered(faults_of(0.3, kind, seed=5), (kind,))[kind] == triggered(EVERYTHING)[kind]


def test_decisions_are_fixed_across_python_versions() -> None:
    """A seed in a bug report must reproduce on another machine."""
    rng = FaultEngine(Faults(seed=1, crash=0.5)).rng(Site.INVOCATION, "Default")
    assert "".join("x" if rng.triggers("crash") else "." for _ in range(16)) == ".x.xxxx..x.xx.xx"


def test_what_triggers_is_counted_and_what_is_off_is_not() -> None:
    engine = FaultEngine(Faults(post_410=1.0))
    rng = engine.rng(Site.POST)
    assert not engine.quiet
    assert [rng.triggers("post_410"), rng.triggers("post_429"), rng.triggers("post_410")] == [
        True,
        False,
        True,
    ]
    assert engine.counts == {"post_410": 2}


def test_without_faults_nothing_triggers_and_nothing_is_drawn() -> None:
    engine = FaultEngine()
    rng = engine.rng(Site.POST)
    assert engine.quiet
    assert not any(rng.triggers(kind) for kind in SHARES)
    assert rng._streams == {}


def test_replaced_faults_hold_from_then_on_and_decisions_run_on() -> None:
    engine = FaultEngine(Faults(seed=5))
    heard: list[float] = []
    engine.on_change(lambda: heard.append(engine.faults.drop))
    rng = engine.rng(Site.GATEWAY, 0)
    assert not rng.triggers("drop")
    engine.replace(EVERYTHING)
    first = [rng.triggers("drop") for _ in range(50)]
    engine.replace(Faults(seed=5))
    assert engine.quiet
    assert not rng.triggers("drop")
    engine.replace(EVERYTHING)
    assert first + [rng.triggers("drop") for _ in range(50)] == triggered(EVERYTHING)["drop"]
    assert heard == [0.3, 0.0, 0.3]


def test_another_seed_at_run_time_begins_anew() -> None:
    engine = FaultEngine(dataclasses.replace(EVERYTHING, seed=9))
    rng = engine.rng(Site.GATEWAY, 0)
    rng.triggers("drop")
    engine.replace(EVERYTHING)
    assert [rng.triggers("drop") for _ in range(100)] == triggered(EVERYTHING)["drop"]


def test_the_clock_is_shifted_and_cannot_be_shifted_later() -> None:
    engine = FaultEngine(Faults(skew_seconds=-90.0), clock=lambda: 1000.0)
    assert engine.now() == 910.0
    with pytest.raises(SettingsError, match="the clock skew is fixed when the local cloud starts"):
        engine.replace(Faults())


def test_faults_of_functions_can_be_kept_to_some() -> None:
    assert FaultEngine(Faults()).touches("Relay")
    assert not FaultEngine(Faults(functions=("Default",))).touches("Relay")


def test_settings_go_through_json_unchanged() -> None:
    faults = Faults(seed=3, drop=0.1, functions=("Default",), cut_sides=("relay",), cut_every=2.0)
    assert Faults.from_json(json.loads(json.dumps(dataclasses.asdict(faults)))) == faults


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"post_410": 1.1}, "Faults.post_410 is a probability and must be from 0 to 1, not 1.1"),
        ({"drop": float("nan")}, "Faults.drop is a probability"),
        ({"cut_every": -1.0}, "Faults.cut_every is a time in seconds, 0 or more, not -1.0"),
        ({"hang_seconds": float("inf")}, "Faults.hang_seconds is a time in seconds"),
        ({"cut_sides": ["client"]}, "Faults.cut_sides must name some of dialer, relay, both"),
        ({"cut_hows": ["silent"]}, "Faults.cut_hows must name some of close, reset, mid-frame"),
        ({"skew_spread": 200.0}, "Faults.skew_spread must be at most 150 s"),
        ({"rain": 1.0}, "there is no fault named rain"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_value_out_of_range_is_refused_by_name(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Faults.from_json(values)
    assert text in str(caught.value)
