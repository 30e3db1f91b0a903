"""The rung of the bridge's health: which keys are valid there, and how many sessions there may be."""

from __future__ import annotations

from collections.abc import Callable

from emissary_lib.client.health import Health
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.ports import Clock
from emissary_lib.doctor.report import Finding, ok, skipped, warning
from emissary_lib.exceptions import EmissaryError, RemoteProtocolError
from emissary_lib.protocol.wire.health import Usage


def health(settings: Settings, ask: Callable[[Settings], Health], clock: Clock) -> Finding:
    """Is the bridge well? Never breaks the ladder: a dial may work all the same.

    Args:
        settings: Whose bridge it is.
        ask: Asks it; raises what :func:`emissary_lib.client.health.check_health` raises.
        clock: Ours.
    """
    began = clock.monotonic()
    try:
        told = ask(settings)
    except RemoteProtocolError as exc:
        return skipped(f"the bridge does not tell: {exc}")
    except (EmissaryError, TimeoutError) as exc:
        cause = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
        return warning(f"the bridge did not tell: {cause}", "try again; else see DefaultFunction's log")
    took = clock.monotonic() - began
    fact = (
        f"valid key ids: {', '.join(map(str, told.key_ids))}; sessions in all: {_usage(told.usage)}, "
        f"of this key: {_usage(told.key_usage)}"
    )
    if told.usage.reached or told.key_usage.reached:
        name = "MaxSessions or RelayConcurrency" if told.usage.reached else "MaxSessionsPerKey"
        remedy = f"a further dial is refused: end sessions (emissary sessions), or raise {name}"
        return warning(fact, remedy, took)
    stale = [str(each) for each in settings.key_ids if each not in told.key_ids]
    if stale:
        remedy = f"EMISSARY_AUTH_KEYS also holds keys that are not valid there, of id {', '.join(stale)}"
        return warning(fact, remedy, took)
    return ok(fact, took)


def _usage(usage: Usage) -> str:
    return f"{usage.sessions} of {usage.limit}" if usage.limit else "not limited"
