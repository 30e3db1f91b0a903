"""throttle: a burst at once, then no more than the rate."""

from __future__ import annotations

from emissary_local.gateway.throttle import Throttles
from emissary_local.template.specs import Throttle


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_the_rate_refills_it_up_to_the_burst() -> None:
    clock = Clock()
    throttles = Throttles(Throttle(3, 2.0), clock=clock)
    assert [throttles.allows("$default") for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [throttles.allows("$default") for _ in range(2)] == [True, False]
    clock.now += 60.0
    assert [throttles.allows("$default") for _ in range(4)] == [True, True, True, False]


def test_each_route_has_a_bucket_of_its_own() -> None:
    throttles = Throttles(Throttle(2, 1.0), {"$connect": Throttle(1, 1.0)}, Clock())
    assert [throttles.allows("$connect") for _ in range(2)] == [True, False]
    assert [throttles.allows("$default") for _ in range(3)] == [True, True, False]


def test_without_numbers_nothing_is_limited_and_a_missing_one_counts_as_zero() -> None:
    assert all(Throttles(Throttle(None, None), clock=Clock()).allows("$default") for _ in range(1000))
    assert not Throttles(Throttle(None, 100.0), clock=Clock()).allows("$default")
