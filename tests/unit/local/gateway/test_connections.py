"""connections: a connection's time is measured in data messages and ends exactly once."""

from __future__ import annotations

import asyncio

import pytest

from emissary_local.gateway.connections import Lifetime
from emissary_local.gateway.limits import Limits

PATIENCE = 10.0


async def end_of(limits: Limits, touches: float = 0.0) -> float:
    """How long a connection lived whose last message came ``touches`` seconds after its beginning."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    began, calls = loop.time(), []

    def expire() -> None:
        calls.append(1)
        ended.set()

    lifetime = Lifetime(limits, expire)
    if touches:
        loop.call_later(touches, lifetime.touch)
    await asyncio.wait_for(ended.wait(), PATIENCE)
    lived = loop.time() - began
    await asyncio.sleep(2 * limits.idle)  # A second call would come within this time.
    assert calls == [1]
    return lived


def test_silence_ends_it_at_the_idle_limit() -> None:
    assert asyncio.run(end_of(Limits(idle_seconds=0.05))) >= 0.05


def test_a_message_starts_the_idle_limit_anew() -> None:
    assert asyncio.run(end_of(Limits(idle_seconds=0.1), touches=0.06)) >= 0.16


def test_the_end_of_life_comes_whatever_is_said() -> None:
    lived = asyncio.run(end_of(Limits(idle_seconds=0.2, life_seconds=0.1), touches=0.05))
    assert 0.1 <= lived < 0.2


def test_after_cancel_nothing_expires() -> None:
    async def run() -> list[int]:
        calls: list[int] = []
        lifetime = Lifetime(Limits(idle_seconds=0.01, life_seconds=0.02), lambda: calls.append(1))
        lifetime.cancel()
        await asyncio.sleep(0.05)
        return calls

    assert asyncio.run(run()) == []


@pytest.mark.parametrize(("idle", "life", "integration"), [(600, 7200, 29)])
def test_the_limits_are_those_of_the_aws_quota_page(idle: int, life: int, integration: int) -> None:
    limits = Limits()
    assert (limits.idle, limits.life, limits.integration) == (idle, life, integration)
    assert (limits.frame_bytes, limits.message_bytes) == (32 * 1024, 128 * 1024)


def test_the_time_scale_shortens_every_limit_that_is_a_duration() -> None:
    limits = Limits(time_scale=0.01)
    assert (limits.idle, limits.life, limits.integration) == pytest.approx((6, 72, 0.29))
