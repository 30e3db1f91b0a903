"""All checks in their order, over the real network or over what a test puts in its place."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.client.dialer import Dialer
from emissary_lib.client.health import Health, check_health
from emissary_lib.client.original import check_key
from emissary_lib.doctor import configuration, network
from emissary_lib.doctor.bridge import Bridge, health
from emissary_lib.doctor.checks import Check, Finding, Report, Result, run_checks, skip
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.gateway import Gateway
from emissary_lib.doctor.long_messages import Passage, long_messages, send_longest
from emissary_lib.doctor.original import Original
from emissary_lib.doctor.ports import Clock, Connector, Probe, Resolver
from emissary_lib.doctor.probe import SessionProbe
from emissary_lib.doctor.service_probes import ServiceProbe
from emissary_lib.doctor.vpc import Vpc
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline

#: Names of the checks, in order: those that need a target come last.
CHECKS: Final = (
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
    "long_messages",
    "allowed",
    "relay",
    "name",
    "target",
    "round_trip",
    "service",
    "warm",
)

#: Hops whose latency is that of one check, by the check's name; the others are differences.
_HOPS: Final = {
    "dns": "dns",
    "tcp": "tcp",
    "tls": "tls",
    "answer": "opening",
    "relay": "relay",
    "warm": "relay_warm",
    "round_trip": "round_trip",
    "service": "service",
}


def _session_probe(settings: Settings, clock: Clock) -> Probe:
    return SessionProbe(settings.known_endpoint, settings.known_key, clock.monotonic)


def _ask_health(settings: Settings) -> Health:
    return check_health(settings.known_endpoint, settings.known_key, Deadline(settings.timeout))


def _ask_original(settings: Settings) -> Banner:
    return check_key(settings.known_endpoint, settings.known_key, Deadline(settings.timeout))


def _dial_original(settings: Settings, target: Target) -> socket.socket:
    endpoint = settings.known_endpoint
    dialer = Dialer(
        endpoint.url, settings.known_key, ssl_context=endpoint.ssl_context, ca_file=endpoint.ca_file
    )
    return dialer.dial((target.host, target.port), settings.timeout)


def _send_longest(settings: Settings) -> Passage:
    return send_longest(settings.known_endpoint, settings.known_key, Deadline(settings.timeout))


@dataclass(frozen=True)
class Dependencies:
    """What the checks need from outside.

    Attributes:
        resolver: Looks names up.
        connector: Connects.
        clock: Ours.
        probe: Makes a session that has not begun.
        sleep: Waits so many seconds.
        health: Asks the bridge how it is.
        longest: Finds out what becomes of the longest message.
        ask_original: Asks the original's server whether it accepts the key.
        dial_original: Reaches a target through the original's server.
    """

    resolver: Resolver = network.resolve
    connector: Connector = network.connect
    clock: Clock = field(default_factory=network.SystemClock)
    probe: Callable[[Settings, Clock], Probe] = _session_probe
    sleep: Callable[[float], None] = time.sleep
    health: Callable[[Settings], Health] = _ask_health
    longest: Callable[[Settings], Passage] = _send_longest
    ask_original: Callable[[Settings], Banner] = _ask_original
    dial_original: Callable[[Settings, Target], socket.socket] = _dial_original


def examine(
    settings: Settings,
    target: Target | None,
    service_probe: ServiceProbe | None,
    *,
    dependencies: Dependencies | None = None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run the checks.

    Args:
        settings: Where the settings stand.
        target: What is to be reached; without one they end at the bridge.
        service_probe: What the target is expected to speak; ``None`` to skip that check.
        dependencies: What they need from outside; ``None`` for the real network.
        on_result: Called with each result as soon as it is there.

    Returns:
        The report. A failure is in it, never raised.

    Blocking: each check waits at most for the settings' timeout, ``connect`` four times as long.
    """
    dependencies = dependencies or Dependencies()
    with contextlib.ExitStack() as stack:
        results = run_checks(_checks(settings, target, service_probe, dependencies, stack), on_result)
    if target is None:
        rest = [Result(name, skip("no target was named")) for name in CHECKS[len(results) :]]
        for result in rest:
            on_result(result)
        results += tuple(rest)
    url = settings.endpoint.url if settings.endpoint else None
    return Report(url, str(target) if target else None, results, latencies(results))


def _checks(
    settings: Settings,
    target: Target | None,
    service_probe: ServiceProbe | None,
    dependencies: Dependencies,
    stack: contextlib.ExitStack,
) -> list[Check]:
    clock = dependencies.clock
    before = Gateway(settings, dependencies.resolver, dependencies.connector, clock)
    bridge = Bridge(settings, lambda: dependencies.probe(settings, clock), clock, dependencies.sleep)
    stack.callback(before.close)
    stack.callback(bridge.close)
    original = Original(
        settings, target, service_probe, dependencies.ask_original, dependencies.dial_original, clock
    )
    stack.callback(original.close)

    def either(of_bridge: Callable[[], Finding], of_original: Callable[[], Finding]) -> Callable[[], Finding]:
        return lambda: of_original() if bridge.original else of_bridge()

    runs = [
        lambda: configuration.configuration(settings),
        before.dns,
        before.tcp,
        before.tls,
        before.skew,
        bridge.connect,
        either(bridge.answer, original.answer),
        either(bridge.version, original.version),
        either(bridge.proof, original.proof),
        either(lambda: health(settings, dependencies.health, clock), original.health),
        either(lambda: long_messages(settings, dependencies.longest, clock), original.long_messages),
    ]
    if target is not None:
        vpc = Vpc(settings, target, service_probe, bridge.make_probe, clock)
        stack.callback(vpc.close)
        runs += [
            either(vpc.allowed, original.allowed),
            either(vpc.relay, original.relay),
            either(vpc.name, original.name),
            either(vpc.tcp, original.tcp),
            either(vpc.round_trip, original.round_trip),
            either(vpc.service, original.service),
            either(vpc.warm, original.warm),
        ]
    return [Check(name, run) for name, run in zip(CHECKS, runs, strict=False)]


def latencies(results: Sequence[Result]) -> dict[str, float]:
    """Seconds of each hop that was measured, in the order of the checks."""
    took = {
        each.name: each.finding.seconds
        for each in results
        if each.finding.seconds is not None and each.name in CHECKS
    }
    hops: dict[str, float] = {}
    for name in CHECKS:
        if name not in took:
            continue
        if name == "connect":
            # The WebSocket's own connection repeats the first three.
            hops["upgrade"] = max(
                0.0, took[name] - sum(took.get(each, 0.0) for each in ("dns", "tcp", "tls"))
            )
        elif name in _HOPS:
            hops[_HOPS[name]] = took[name]
    if {"service", "round_trip"} <= set(hops):
        hops["target"] = max(0.0, hops["service"] - hops["round_trip"])
    return hops
