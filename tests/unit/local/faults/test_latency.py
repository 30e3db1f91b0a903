"""latency: "none" adds exactly nothing, "aws" follows its table and its seed."""

from __future__ import annotations

import statistics

import pytest

from emissary_local.errors import SettingsError
from emissary_local.faults.latency import AWS, Latency, Leg


@pytest.mark.parametrize("leg", Leg)
def test_the_profile_none_adds_zero(leg: Leg) -> None:
    assert Latency("none", 5).delay(leg) == 0.0


@pytest.mark.parametrize("leg", Leg)
def test_the_profile_aws_has_the_median_and_p95_of_its_table(leg: Leg) -> None:
    latency = Latency("aws", 5)
    drawn = sorted(latency.delay(leg) for _ in range(20_000))
    assert statistics.median(drawn) == pytest.approx(AWS[leg].median, rel=0.05)
    assert drawn[19_000] == pytest.approx(AWS[leg].p95, rel=0.08)


def test_the_same_seed_gives_the_same_delays_whatever_the_other_legs_draw() -> None:
    first, second = Latency("aws", 5), Latency("aws", 5)
    second.delay(Leg.DYNAMODB)
    assert [first.delay(Leg.POST) for _ in range(5)] == [second.delay(Leg.POST) for _ in range(5)]


def test_an_unknown_profile_is_refused_with_the_list() -> None:
    with pytest.raises(SettingsError, match="want one of: none, aws"):
        Latency("mars")
