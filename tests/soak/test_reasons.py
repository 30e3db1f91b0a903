"""Which lost sessions and which errors a soak takes for the faults' work, and which it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge.session import PURGE_MARGIN, SessionRecord, Side
from emissary_lib.protocol.stream.counters import Counters
from tests.soak import evidence, lost, reasons
from tests.soak.evidence import Evidence
from tests.soak.stats import Stats

QUIET = {"cut_close": 9, "silence": 0, "disconnect_missing": 0}
RELAY_GONE = "TunnelResetError/RELAY_GONE"


def named(number: int) -> str:
    return f"{number:064x}"


def item(number: int, state: str) -> dict[str, Any]:
    purge = int(1960 + PURGE_MARGIN)
    session = SessionRecord(
        named(number), 1, b"n" * 32, "date", "host", 1000.0, 1060.0, purge, dialer=Side("d", 1)
    )
    claimed = {"relay_epoch": items.number(2), "relay_expires": items.number(1900.0)}
    return items.new_session(session) | {"state": items.text(state)} | (claimed if state == "OPEN" else {})


def log(*lines: dict[str, Any]) -> str:
    return "\n".join(json.dumps(line) for line in lines) + '\n{"message": "cut in the mid'


def line(message: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"message": message, "session": named(number), **fields}


def test_logs_tell_who_died_who_returned_and_who_left_in_good_order() -> None:
    killed = "RequestId: x Error: Runtime exited with error: signal: killed\n"
    gone = "connection gone"
    found = evidence.read(
        {
            "RelayFunction": killed
            + "x Task timed out after 900.00 seconds\n"
            + log(line("claimed", 1), line("session ended", 1, code="OK"), line("could not dial back", 4)),
            "ConnectFunction": log(line("relay claimed", 2)),
            "DisconnectFunction": log(
                line(gone, 1, role="relay", epoch=3, close_code=1000),
                line(gone, 2, role="relay", epoch=1, close_code=1006),
                line(gone, 3, role="dialer", epoch=1, close_code=1000),
            ),
            "DefaultFunction": killed + log(line("session ended", 2, code="RELAY_GONE")),
        }
    )
    assert found.returned == {named(1): "OK"}  # what another function says is no relay's return
    assert found.killed == {named(2)}
    assert found.gave_up == {named(4)}
    assert found.left == {named(1): 3}
    assert found.deaths == {
        "RelayFunction": 2, "ConnectFunction": 0, "DisconnectFunction": 0, "DefaultFunction": 1
    }  # fmt: skip


def test_connections_of_shared_sessions_are_counted_as_opened_ended_and_recorded() -> None:
    def session(number: int, opened: int, ended: int) -> list[dict[str, Any]]:
        begun = [line("connected", number)] * opened + [line("connection ended", number)] * ended
        return [line("claimed", number), *begun, line("session ended", number, code="OK")]

    def record(number: int, by: str, connections: int | None) -> dict[str, Any]:
        return line("session ended", number, reported_by=by, connections=connections)

    whole, unended, miscounted = session(1, 3, 3), session(2, 3, 2), session(3, 2, 2)
    killed = session(4, 1, 0)[:-1]
    others = [record(1, "relay", 3), record(3, "relay", 1), record(2, "dialer", 1), record(5, "relay", None)]
    found = evidence.read(
        {"RelayFunction": log(*whole, *unended, *miscounted, *killed), "DefaultFunction": log(*others)}
    )
    assert reasons.unrecorded(found) == [
        f"session {named(2)[:8]}: 3 connections, 2 of them ended, 3 in its audit record",
        f"session {named(3)[:8]}: 2 connections, 2 of them ended, 1 in its audit record",
    ]


def test_open_session_whose_relay_is_over_is_told_by_what_became_of_it() -> None:
    table = [item(1, "OPEN"), item(2, "OPEN"), item(3, "OPEN"), item(4, "INVOKED")]
    seen = Evidence(
        begun=frozenset({named(1), named(2), named(3)}),
        returned={named(2): "DIALER_GONE", named(3): "OK"},
        left={named(2): 1, named(3): 2},
    )
    assert lost.lost_items(table, seen) == {
        lost.KILLED: [named(1)], lost.CUT: [named(2)], lost.UNSAID: [named(3)], lost.UNCLAIMED: [named(4)]
    }  # fmt: skip


def test_relay_that_left_an_open_session_without_a_word_is_never_explained() -> None:
    stormy = dict.fromkeys(QUIET, 1000)
    deaths = dict.fromkeys(evidence.FUNCTIONS, 1000)
    assert lost.too_many({lost.UNSAID: [named(1)]}, stormy, Evidence(deaths=deaths)) != []


@pytest.mark.parametrize(
    ("kind", "met", "deaths"),
    [
        (lost.KILLED, {}, {"RelayFunction": 1}),
        (lost.CUT, {}, {}),
        (lost.CUT, {"cut_reset": 5, "silence": 4}, {"DefaultFunction": 10}),
        (lost.UNCLAIMED, {"disconnect_missing": 1}, {}),
        (lost.UNCLAIMED, {"silence": 1}, {}),
        (lost.UNCLAIMED, {}, {"DisconnectFunction": 1}),
    ],
)
def test_more_lost_sessions_than_the_faults_explain_fail_it(
    kind: str, met: dict[str, int], deaths: dict[str, int]
) -> None:
    seen = Evidence(deaths=deaths)
    explained = lost.most(met, seen)[kind]
    assert explained >= 1
    assert lost.too_many({kind: [named(1)] * explained}, met, seen) == []
    assert lost.too_many({kind: [named(1)] * (explained + 1)}, met, seen) != []


def tally_of(*errors: tuple[str, int]) -> Stats:
    """So many errors of open tunnels, each of a session of its own."""
    stats, number = Stats(), 0
    for name, count in errors:
        for _ in range(count):
            stats.error("idle", name, "text", named(number))
            number += 1
    return stats


@pytest.mark.parametrize(
    "name",
    [
        "TunnelResetError/PROTOCOL_ERROR",
        "TunnelResetError/FLOW_CONTROL_ERROR",
        "TunnelResetError/UNKNOWN_SESSION",
        "TunnelResetError/INCOMPLETE",
        "TunnelResetError/TARGET_RESET",
        "RelayDeadlineError/RELAY_DEADLINE",
        "ConnectionResetError",
        "AuthenticationError",
        "TargetNotAllowedError/TARGET_NOT_ALLOWED",
    ],
)
def test_error_that_no_fault_explains_fails_it(name: str) -> None:
    stats = tally_of((name, 1))
    seen = Evidence(begun=frozenset({named(0)}), deaths={"RelayFunction": 1})
    assert reasons.unexplained(stats, seen) == [f"no fault explains {name} (1 times)"]


def test_session_whose_relay_was_killed_is_explained_as_long_as_somebody_killed_it() -> None:
    stats = tally_of((RELAY_GONE, 5))
    seen = frozenset(map(named, range(5)))
    assert reasons.unexplained(stats, Evidence(seen, deaths={"RelayFunction": 5})) == []
    assert reasons.unexplained(stats, Evidence(seen, deaths={"RelayFunction": 4})) == [
        "5 relays have not returned, and only 4 were killed or not let in"
    ]


def test_cuts_and_losses_alone_explain_no_second_session_that_was_cut_off() -> None:
    many = {"cut_close": 500, "cut_reset": 500, "drop": 9000, "message_429": 900, "silence": 3}
    seen = Evidence(deaths={"DefaultFunction": 19})
    assert reasons.doubtful(tally_of((RELAY_GONE, 1)), many, seen) == []
    (found,) = reasons.doubtful(tally_of((RELAY_GONE, 2)), many, seen)
    assert "2 sessions were cut off though their relays lived, the faults explain 1" in found


def test_dials_that_fail_are_no_wonder_as_long_as_most_do_not() -> None:
    stats = Stats()
    for _ in range(2):
        stats.error("short_dial", "DialTimeoutError/TARGET_TIMED_OUT", "text")
    assert reasons.doubtful(stats, QUIET, Evidence()) == []
    stats.error("short_dial", "LinkClosedError", "text")
    assert reasons.doubtful(stats, QUIET, Evidence()) == ["3 dials failed, and 0 did not"]


def opened(count: int, *errors: tuple[str, int]) -> Stats:
    """So many sessions, and errors."""
    stats = tally_of(*errors)
    for _ in range(count):
        stats.session(Counters())
    return stats


def test_no_machine_is_slow_enough_for_a_third_of_all_tunnels_to_be_cut_off() -> None:
    assert reasons.unexplained(opened(10, (RELAY_GONE, 3)), Evidence()) == []
    (found,) = reasons.unexplained(opened(10, (RELAY_GONE, 4)), Evidence())
    assert found == "4 of 10 sessions were cut off though their relays lived"


def test_no_machine_is_slow_enough_for_most_dials_to_fail() -> None:
    stats = opened(10)
    for _ in range(10):
        stats.error("short_dial", "DialTimeoutError/TARGET_TIMED_OUT", "text")
    assert reasons.unexplained(stats, Evidence()) == []
    stats.error("short_dial", "DialTimeoutError/TARGET_TIMED_OUT", "text")
    assert reasons.unexplained(stats, Evidence()) == ["11 dials failed, and 10 did not"]
