"""The whole ladder, over the real network or over what a test puts in its place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.client.health import Health, check_health
from emissary_lib.doctor import configuration, keys_and_limits, network
from emissary_lib.doctor.bridge import Bridge
from emissary_lib.doctor.checks import Rung, climb
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.gateway import Gateway
from emissary_lib.doctor.ports import Clock, Connector, Resolver, Way
from emissary_lib.doctor.probe import SessionWay
from emissary_lib.doctor.report import Report, Result, skipped
from emissary_lib.doctor.service_probes import Greeting
from emissary_lib.doctor.vpc import Vpc
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline

#: Names of the rungs, in order: those that need a target come last.
RUNGS: Final = (
    "configuration",
    "dns",
    "tcp",
    "tls",
    "clock",
    "connect",
    "answer",
    "version",
    "proof",
    "health",
    "allowed",
    "relay",
    "name",
    "target",
    "round_trip",
    "greeting",
    "warm",
)

#: Hops whose latency is that of one rung, by the rung's name; the others are differences.
_HOPS: Final = {
    "dns": "dns",
    "tcp": "tcp",
    "tls": "tls",
    "answer": "opening",
    "relay": "relay",
    "warm": "relay_warm",
    "round_trip": "round_trip",
    "greeting": "greeting",
}


def _session_way(settings: Settings, clock: Clock) -> Way:
    return SessionWay(settings.known_endpoint, settings.known_key, clock.monotonic)


def _health(settings: Settings) -> Health:
    return check_health(settings.known_endpoint, settings.known_key, Deadline(settings.timeout))


@dataclass(frozen=True)
class World:
    """What the ladder stands on.

    Attributes:
        resolver: Looks names up.
        connector: Connects.
        clock: Ours.
        way: Begins a session.
        pause: Waits so many seconds.
        health: Asks the bridge how it is.
    """

    resolver: Resolver = network.resolve
    connector: Connector = network.connect
    clock: Clock = field(default_factory=network.SystemClock)
    way: Callable[[Settings, Clock], Way] = _session_way
    pause: Callable[[float], None] = time.sleep
    health: Callable[[Settings], Health] = _health


def examine(
    settings: Settings,
    target: Target | None,
    greeting: Greeting | None,
    *,
    world: World | None = None,
    told: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Walk the ladder.

    Args:
        settings: Where the settings stand.
        target: What is to be reached; without one the ladder ends at the bridge's health.
        greeting: How the target is expected to greet; ``None`` to skip that.
        world: What to stand on; ``None`` for the real one.
        told: Called with each result as soon as it is there.

    Returns:
        The report. A failure is in it, never raised.

    Blocking: each rung waits at most for the settings' timeout, the bridge's door three times as long.
    """
    world = world or World()
    with contextlib.ExitStack() as stack:
        results = climb(_rungs(settings, target, greeting, world, stack), told)
    if target is None:
        rest = [Result(name, skipped("no target was named")) for name in RUNGS[len(results) :]]
        for result in rest:
            told(result)
        results += tuple(rest)
    url = settings.endpoint.url if settings.endpoint else None
    return Report(url, str(target) if target else None, results, latencies(results))


def _rungs(
    settings: Settings,
    target: Target | None,
    greeting: Greeting | None,
    world: World,
    stack: contextlib.ExitStack,
) -> list[Rung]:
    clock = world.clock
    before = Gateway(settings, world.resolver, world.connector, clock)
    bridge = Bridge(settings, lambda: world.way(settings, clock), clock, world.pause)
    stack.callback(before.close)
    stack.callback(bridge.close)
    looks = [
        lambda: configuration.configuration(settings),
        before.dns,
        before.tcp,
        before.tls,
        before.skew,
        bridge.connect,
        bridge.answer,
        bridge.version,
        bridge.proof,
        lambda: keys_and_limits.health(settings, world.health, clock),
    ]
    if target is not None:
        vpc = Vpc(settings, target, greeting, bridge.make_way, clock)
        stack.callback(vpc.close)
        looks += [vpc.allowed, vpc.relay, vpc.name, vpc.tcp, vpc.round_trip, vpc.greet, vpc.warm]
    return [Rung(name, look) for name, look in zip(RUNGS, looks, strict=False)]


def latencies(results: Sequence[Result]) -> dict[str, float]:
    """Seconds of each hop that was measured, in the order of the way."""
    took = {
        each.rung: each.finding.seconds
        for each in results
        if each.finding.seconds is not None and each.rung in RUNGS
    }
    hops: dict[str, float] = {}
    for rung in RUNGS:
        if rung not in took:
            continue
        if rung == "connect":
            # The WebSocket's own connection goes the way of the first three once more.
            hops["upgrade"] = max(
                0.0, took[rung] - sum(took.get(each, 0.0) for each in ("dns", "tcp", "tls"))
            )
        elif rung in _HOPS:
            hops[_HOPS[rung]] = took[rung]
    if {"greeting", "round_trip"} <= set(hops):
        hops["target"] = max(0.0, hops["greeting"] - hops["round_trip"])
    return hops
