"""connections: a connection's time is measured in data messages and ends exactly once."""

from __future__ import annotations

import asyncio

import pytest

from emissary_local.gateway.connections import Lifetime
from emissary_local.limits import Limits
from tests.helpers.virtual_time import run_ahead


async def life_of(limits: Limits, *touches: float) -> list[float]:
    """When a connection expires whose messages come ``touches`` seconds after its beginning."""
    loop = asyncio.get_running_loop()
    expiries: list[float] = []
    lifetime = Lifetime(limits, lambda: expiries.append(loop.time()))
    for at in touches:
        loop.call_later(at, lifetime.touch)
    await asyncio.sleep(100_000)
    return expiries


def test_silence_ends_it_at_the_idle_limit() -> None:
    assert run_ahead(life_of(Limits())) == [600]


def test_a_message_starts_the_idle_limit_anew() -> None:
    assert run_ahead(life_of(Limits(), 599, 700)) == [1300]


def test_the_end_of_life_comes_whatever_is_said() -> None:
    assert run_ahead(life_of(Limits(), *range(500, 8000, 500))) == [7200]


def test_after_cancel_nothing_expires() -> None:
    async def run() -> list[int]:
        calls: list[int] = []
        lifetime = Lifetime(Limits(), lambda: calls.append(1))
        lifetime.cancel()
        await asyncio.sleep(100_000)
        return calls

    assert run_ahead(run()) == []


@pytest.mark.parametrize(("idle", "life", "integration"), [(600, 7200, 29)])
def test_the_limits_are_those_of_the_aws_quota_page(idle: int, life: int, integration: int) -> None:
    limits = Limits()
    assert (limits.idle, limits.life, limits.integration) == (idle, life, integration)
    assert (limits.frame_bytes, limits.message_bytes) == (32 * 1024, 128 * 1024)


def test_the_time_scale_shortens_every_limit_that_is_a_duration() -> None:
    limits = Limits(time_scale=0.01)
    assert (limits.idle, limits.life, limits.integration) == pytest.approx((6, 72, 0.29))
