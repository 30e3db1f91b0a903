"""The bench from its beginning to its line of JSON."""

from __future__ import annotations

import json
import os
import platform
import socket
from typing import Any, Final, TextIO

from emissary_lib._version import __version__
from emissary_lib.client.dialer import Dialer
from emissary_local import LocalCloud
from tools.bench import cuts, measure, sharing
from tools.bench.imports import import_milliseconds
from tools.bench.measure import Dial, Sizes
from tools.bench.target import target_process

#: Connections of one relay, where they share one.
_SHARED: Final = 32

#: Dials before anything is measured, so that the functions' execution environments are warm.
_WARM_DIALS: Final = 5


def run_bench(
    template: str,
    *,
    progress: TextIO,
    latency: str = "none",
    cpu_share: float | None = None,
    sizes: Sizes | None = None,
) -> str:
    """Measure tunnels through the local cloud, and a direct connection to the same target.

    Args:
        template: Path of the SAM template.
        latency: The cloud's delays, as of :class:`LocalCloud`.
        cpu_share: Its functions' share of a processor, as of the same.
        progress: Where to say what is being measured.
        sizes: How much to measure.

    Returns:
        One line of JSON: ``tunnel`` (each connection has a relay of its own), ``shared`` (connections share
        relays) and ``direct``, each with the medians ``dial_ms`` and ``round_trip_ms``,
        ``from_target_mb_s`` and ``to_target_mb_s`` (millions of bytes a second), and ``idle_cpu_s`` (CPU
        seconds of all processes together while ``idle_tunnels`` tunnels do nothing for ``idle_seconds``).
        Of the shared ones also ``first_dial_ms``, ``dials_at_once_ms`` (median and longest of ``at_once``
        that begin together), ``dials_at_once_again_ms`` (of as many over the relays that these have left),
        ``round_trip_beside_ms`` (a small round trip while another connection of the
        relay carries as much as it can from the target, and to it) and ``stopped_readers_mb`` (memory that
        all processes take more while targets pour into ``at_once`` connections that nobody reads).
        Of the first also ``cut``: the longest pause, in milliseconds, of small round trips and of a stream
        each way, while its WebSockets are closed and reset, the dialer's, the relay's, and both at once.
        Beside them ``import_ms`` of the library, ``bare_import_ms`` of what it cannot do without, and their
        ``import_ratio``.

    Raises:
        LocalCloudError: The local cloud did not start.
        EmissaryError: A dial failed.
        OSError: A connection was cut off.

    Blocking: about four minutes.
    """
    chosen = sizes or Sizes()
    with target_process() as target:
        direct = _measure(lambda: socket.create_connection(target), chosen, "direct", progress)
        with LocalCloud(template, targets=[target], latency=latency, cpu_share=cpu_share) as cloud:
            with Dialer(cloud.url, cloud.key, connections_per_relay=1) as dialer:
                _say(progress, "tunnel", "warming up")
                for _ in range(_WARM_DIALS):
                    dialer.dial(target).close()
                tunnel = _measure(lambda: dialer.dial(target), chosen, "tunnel", progress)
                _say(progress, "tunnel", f"{len(cuts.WAYS)} cuts of each kind of traffic")
                tunnel["cut"] = _measure_cuts(lambda: dialer.dial(target), cloud.cut, chosen.cut_seconds)

            def make() -> Dialer:
                return Dialer(cloud.url, cloud.key, connections_per_relay=_SHARED)

            with make() as dialer:
                shared = _measure(lambda: dialer.dial(target), chosen, "shared", progress)
                shared |= _measure_sharing(lambda: dialer.dial(target), chosen, progress)
            _say(progress, "shared", f"{chosen.dials} first dials")
            shared["first_dial_ms"] = round(sharing.first_dial_milliseconds(make, target, chosen.dials), 3)
    return json.dumps(
        {
            "version": __version__,
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "dials": chosen.dials,
            "round_trips": chosen.round_trips,
            "stream_bytes": chosen.stream,
            "idle_tunnels": chosen.idle_tunnels,
            "idle_seconds": chosen.idle_seconds,
            **import_milliseconds(chosen.imports),
            "latency": latency,
            "cpu_share": cpu_share,
            "at_once": chosen.at_once,
            "tunnel": tunnel,
            "shared": shared,
            "direct": direct,
        }
    )


def _measure(dial: Dial, sizes: Sizes, which: str, progress: TextIO) -> dict[str, Any]:
    def say(what: str) -> None:
        _say(progress, which, what)

    found: dict[str, Any] = {}
    say(f"{sizes.dials} dials")
    found["dial_ms"] = round(measure.dial_milliseconds(dial, sizes.dials), 3)
    say(f"{sizes.round_trips} round trips")
    found["round_trip_ms"] = round(measure.round_trip_milliseconds(dial, sizes.round_trips), 3)
    say(f"{sizes.stream / 1e6:.0f} MB from the target")
    found["from_target_mb_s"] = round(measure.from_target_megabytes(dial, sizes.warm, sizes.stream), 1)
    say(f"{sizes.stream / 1e6:.0f} MB to the target")
    found["to_target_mb_s"] = round(measure.to_target_megabytes(dial, sizes.warm, sizes.stream), 1)
    say(f"{sizes.idle_tunnels} idle for {sizes.idle_seconds:.0f} s")
    found["idle_cpu_s"] = round(measure.idle_cpu_seconds(dial, sizes.idle_tunnels, sizes.idle_seconds), 2)
    return found


def _measure_sharing(dial: Dial, sizes: Sizes, progress: TextIO) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # The second time, the relays that the first has started are there.
    for name in ("dials_at_once_ms", "dials_at_once_again_ms"):
        _say(progress, "shared", f"{sizes.at_once} dials at once")
        took = sharing.dials_at_once_milliseconds(dial, sizes.at_once)
        found[name] = [round(figure, 1) for figure in took]
    _say(progress, "shared", f"{sizes.round_trips} round trips beside bulk each way")
    found["round_trip_beside_ms"] = [
        round(sharing.round_trip_beside_bulk_milliseconds(dial, command, sizes.round_trips), 3)
        for command in (b"S", b"K")
    ]
    _say(progress, "shared", f"{sizes.at_once} connections that nobody reads")
    found["stopped_readers_mb"] = round(sharing.stopped_readers_megabytes(dial, sizes.at_once), 1)
    return found


def _measure_cuts(dial: Dial, cut: cuts.Cut, seconds: float) -> dict[str, float]:
    return {
        "round_trip_ms": round(cuts.round_trip_pause(dial, cut, seconds), 1),
        "from_target_ms": round(cuts.from_target_pause(dial, cut, seconds), 1),
        "to_target_ms": round(cuts.to_target_pause(dial, cut, seconds), 1),
    }


def _say(progress: TextIO, which: str, what: str) -> None:
    progress.write(f"{which}: {what}\n")
    progress.flush()
