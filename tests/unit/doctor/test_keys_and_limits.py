"""The bridge's health: told as it is, and never a reason to stop."""

from __future__ import annotations

import dataclasses

import pytest

from emissary_lib.client.health import Health
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.keys_and_limits import health
from emissary_lib.doctor.report import Finding, Status
from emissary_lib.exceptions import LinkClosedError, RemoteProtocolError
from emissary_lib.protocol.wire.health import Usage
from tests.helpers.doctor import HEALTH, FakeClock, settings


def told(answer: Health | Exception, key_ids: tuple[int, ...] = (7,)) -> Finding:
    clock = FakeClock()

    def ask(given: Settings) -> Health:
        clock.pass_(0.05)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return health(settings(key_ids=key_ids), ask, clock)


def test_keys_and_sessions_are_told() -> None:
    found = told(HEALTH)
    assert found.status is Status.OK
    assert found.fact == "valid key ids: 7, 8; sessions in all: 3 of 50, of this key: not limited"
    assert found.seconds == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"usage": Usage(50, 50)}, "MaxSessions or RelayConcurrency"),
        ({"key_usage": Usage(5, 5)}, "MaxSessionsPerKey"),
    ],
)
def test_a_limit_that_is_reached_is_a_warning(change: dict[str, Usage], parameter: str) -> None:
    found = told(dataclasses.replace(HEALTH, **change))  # type: ignore[arg-type]
    assert found.status is Status.WARNING
    assert found.remedy.endswith(f"raise {parameter}")


def test_a_key_that_is_given_here_and_not_valid_there_is_a_warning() -> None:
    found = told(HEALTH, key_ids=(7, 9))
    assert found.status is Status.WARNING
    assert found.remedy.endswith("of id 9")


@pytest.mark.parametrize(
    ("error", "says"), [(TimeoutError(), "no answer in time"), (LinkClosedError("closed: 1001"), "1001")]
)
def test_a_bridge_that_does_not_tell_is_a_warning(error: Exception, says: str) -> None:
    found = told(error)
    assert found.status is Status.WARNING
    assert says in found.fact


def test_a_bridge_of_an_older_release_is_let_be() -> None:
    assert told(RemoteProtocolError("knows no such question")).status is Status.SKIPPED
