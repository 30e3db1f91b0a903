"""fault engine: the seed decides everything, settings are checked, and what happens is counted."""

from __future__ import annotations

import dataclasses
import json

import pytest

from emissary_lib.protocol.errors import ConfigError
from emissary_local.faults import FaultEngine, Faults, Site
from emissary_local.faults.settings import SHARES
from tests.helpers.faults import faults_of

EVERYTHING = faults_of(0.3, *SHARES, seed=5)


def strikes(faults: Faults, kinds: tuple[str, ...] = SHARES, instance: int = 0) -> dict[str, list[bool]]:
    dice = FaultEngine(faults).dice(Site.GATEWAY, instance)
    return {kind: [dice.strikes(kind) for _ in range(100)] for kind in kinds}


def test_the_same_seed_decides_the_same_for_every_kind() -> None:
    assert strikes(EVERYTHING) == strikes(EVERYTHING)
    assert all(any(each) and not all(each) for each in strikes(EVERYTHING).values())


def test_another_seed_or_instance_decides_otherwise() -> None:
    assert strikes(EVERYTHING) != strikes(dataclasses.replace(EVERYTHING, seed=6))
    assert strikes(EVERYTHING) != strikes(EVERYTHING, instance=1)


@pytest.mark.parametrize("kind", SHARES)
def test_a_kind_decides_the_same_whether_or_not_others_are_on(kind: str) -> None:
    assert strikes(faults_of(0.3, kind, seed=5), (kind,))[kind] == strikes(EVERYTHING)[kind]


def test_decisions_are_fixed_across_python_versions() -> None:
    """A seed in a bug report must reproduce on another machine."""
    dice = FaultEngine(Faults(seed=1, crash=0.5)).dice(Site.INVOCATION, "Default")
    assert "".join("x" if dice.strikes("crash") else "." for _ in range(16)) == ".x.xxxx..x.xx.xx"


def test_what_strikes_is_counted_and_what_is_off_is_not() -> None:
    engine = FaultEngine(Faults(post_410=1.0))
    dice = engine.dice(Site.POST)
    assert not engine.quiet
    assert [dice.strikes("post_410"), dice.strikes("post_429"), dice.strikes("post_410")] == [
        True,
        False,
        True,
    ]
    assert engine.met == {"post_410": 2}


def test_without_faults_nothing_strikes_and_nothing_is_drawn() -> None:
    engine = FaultEngine()
    dice = engine.dice(Site.POST)
    assert engine.quiet
    assert not any(dice.strikes(kind) for kind in SHARES)
    assert dice._streams == {}


def test_replaced_faults_hold_from_then_on_and_decisions_run_on() -> None:
    engine = FaultEngine(Faults(seed=5))
    heard: list[float] = []
    engine.on_change(lambda: heard.append(engine.faults.drop))
    dice = engine.dice(Site.GATEWAY, 0)
    assert not dice.strikes("drop")
    engine.replace(EVERYTHING)
    first = [dice.strikes("drop") for _ in range(50)]
    engine.replace(Faults(seed=5))
    assert engine.quiet
    assert not dice.strikes("drop")
    engine.replace(EVERYTHING)
    assert first + [dice.strikes("drop") for _ in range(50)] == strikes(EVERYTHING)["drop"]
    assert heard == [0.3, 0.0, 0.3]


def test_another_seed_at_run_time_begins_anew() -> None:
    engine = FaultEngine(dataclasses.replace(EVERYTHING, seed=9))
    dice = engine.dice(Site.GATEWAY, 0)
    dice.strikes("drop")
    engine.replace(EVERYTHING)
    assert [dice.strikes("drop") for _ in range(100)] == strikes(EVERYTHING)["drop"]


def test_the_clock_is_shifted_and_cannot_be_shifted_later() -> None:
    engine = FaultEngine(Faults(skew_seconds=-90.0), clock=lambda: 1000.0)
    assert engine.now() == 910.0
    with pytest.raises(ConfigError, match="the clock skew is fixed when the local cloud starts"):
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
    with pytest.raises(ConfigError) as caught:
        Faults.from_json(values)
    assert text in str(caught.value)
