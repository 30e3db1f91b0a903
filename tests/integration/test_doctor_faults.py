"""``emissary doctor`` at a stack with faults: its own check names each; what a dial survives, it survives."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_lib.exit_status import Exit
from emissary_local import Faults, LocalCloud
from tests.helpers.doctor_cloud import ask, faulty
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS, TEMPLATE
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, echo

pytestmark = [LINUX_ONLY, pytest.mark.slow]


def test_a_first_cold_start_is_told_from_a_warm_one(sick: LocalCloud) -> None:
    with Server(echo) as target:
        ask(sick.url, sick.key, target)  # every other function is warm from here on
        sick.retire("RelayFunction")
        diagnosis = ask(sick.url, sick.key, target)
    assert diagnosis.outcome() == (None, 0)
    if "cold" in diagnosis.fact("relay"):
        assert diagnosis["warm"] == "ok"
        assert diagnosis.report["latency_ms"]["relay_warm"] > 0
    else:  # a fast machine starts one in less than what counts as warm
        assert diagnosis.report["latency_ms"]["relay"] <= 300


def test_tls_with_an_unknown_authority_and_with_a_known_one() -> None:
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, tls=True) as cloud:
        diagnosis = ask(cloud.url, cloud.key)
        assert diagnosis.outcome() == ("tls", Exit.GATEWAY_TLS)
        assert "EMISSARY_CA_FILE" in diagnosis.hint("tls")
        assert cloud.meter.connects == 0

        diagnosis = ask(cloud.url, cloud.key, ca_file=cloud.ca_file)  # as the hint says
        assert diagnosis.report["failed_check"] is None
        assert diagnosis["tls"] == "warning"  # made for a day
        assert "Emissary local cloud" in diagnosis.fact("tls")
        assert "tls" in diagnosis.report["latency_ms"]


@pytest.mark.parametrize("ahead", [1200.0, -1200.0])
def test_a_skewed_clock(ahead: float) -> None:
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=Faults(skew_seconds=ahead)) as cloud:
        diagnosis = ask(cloud.url, cloud.key)
        assert diagnosis.outcome() == ("clock", Exit.CLOCK)
        assert ("behind" if ahead > 0 else "ahead of") in diagnosis.fact("clock")  # this machine's, that is


def test_a_clock_that_is_a_little_off_is_a_warning() -> None:
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=Faults(skew_seconds=200.0)) as cloud:
        diagnosis = ask(cloud.url, cloud.key)
        assert diagnosis.outcome() == (None, 0)
        assert diagnosis["clock"] == "warning"


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"connect_429": 1.0}, "HTTP status 429: throttled"),
        ({"connect_500": 1.0}, "HTTP status 502: $connect fails"),
        ({"connect_lost": 1.0}, "cut each time before the upgrade is answered"),
        ({"crash": 1.0, "functions": ("ConnectFunction",)}, "HTTP status 502: $connect fails"),
    ],
)
def test_an_upgrade_that_is_refused(sick: LocalCloud, faults: dict[str, Any], says: str) -> None:
    with faulty(sick, **faults):
        diagnosis = ask(sick.url, sick.key)
    assert diagnosis.outcome() == ("connect", Exit.CONNECT)
    assert says in diagnosis.fact("connect")


def test_an_upgrade_that_hangs(sick: LocalCloud) -> None:
    with faulty(sick, invoke_hang=1.0, functions=("ConnectFunction",)):
        diagnosis = ask(sick.url, sick.key, short={"connect_once": 1.0})
    assert diagnosis.outcome() == ("connect", Exit.CONNECT)
    assert f"no answer to the upgrade within {HANG:g} s" in diagnosis.fact("connect")


@pytest.mark.parametrize(
    "faults",
    [
        {"message_429": 1.0},
        {"message_500": 1.0},
        {"drop": 1.0},
        {"post_429": 1.0},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_a_bridge_that_does_not_answer(sick: LocalCloud, faults: dict[str, Any]) -> None:
    with faulty(sick, **faults):
        diagnosis = ask(sick.url, sick.key, short={"prove": 1.0})
    assert diagnosis.outcome() == ("answer", Exit.BRIDGE)


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"long_refused": 1.0}, "closes the WebSocket (1009)"),
        ({"long_lost": 1.0}, "vanishes, while short ones are answered"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_long_messages_that_do_not_pass_are_a_warning_and_no_failure(
    sick: LocalCloud, faults: dict[str, Any], says: str
) -> None:
    with faulty(sick, **faults):
        diagnosis = ask(sick.url, sick.key)
    assert diagnosis.outcome() == (None, 0)
    assert diagnosis["long_messages"] == "warning"
    assert says in diagnosis.fact("long_messages")
    assert "nothing has to be done" in diagnosis.hint("long_messages")


def test_a_gateway_that_fails_now_and_then_is_a_warning(sick: LocalCloud) -> None:
    with faulty(sick, message_500=0.5), Server(echo) as target:
        for _ in range(10):
            diagnosis = ask(sick.url, sick.key, target)
            if "warning" in (diagnosis["answer"], diagnosis["round_trip"]):
                break
    assert diagnosis.outcome() == (None, 0)
    assert "warning" in (diagnosis["answer"], diagnosis["round_trip"])


@pytest.mark.parametrize(
    "faults",
    [
        {"reorder": 0.3},
        {"duplicate": 0.5},
        {"drop": 0.05},
        {"delay": 0.3},
        {"post_500": 0.2},
        {"crash": 0.2, "functions": ("DefaultFunction", "DisconnectFunction")},
        {"connect_429": 0.1},
        {"storm_every": 0.5},
        {"lost_write": 0.1},
        {"stale_read": 0.5},
        {"database_500": 0.1},
        {"kept_dead": 0.5},
        {"disconnect_missing": 1.0},
        {"disconnect_late": 1.0},
        {"duplicate_invoke": 1.0},
        {"cold_start": 1.0},
        {"invoke_500": 0.3},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_what_a_dial_survives_the_doctor_survives(sick: LocalCloud, faults: dict[str, Any]) -> None:
    with faulty(sick, **faults), Server(echo) as target:
        assert ask(sick.url, sick.key, target).outcome() == (None, 0)


def test_a_relay_that_the_bridge_loses_sight_of_is_never_blamed_on_the_target(sick: LocalCloud) -> None:
    # A 410 makes the bridge forget a connection that is there. Its owner finds out within a minute; whoever
    # does not wait for that long finds a tunnel that does not answer.
    with faulty(sick, post_410=0.3), Server(echo) as target:
        diagnosis = ask(
            sick.url,
            sick.key,
            target,
            short=dict.fromkeys(("prove", "health", "long_messages", "dial", "ping"), 4.0),
        )
    assert diagnosis.report["failed_check"] in (None, "answer", "relay", "round_trip")
    assert diagnosis["target"] != "failed"
