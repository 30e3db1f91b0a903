"""What makes a soak fail, and which kinds of faults it takes care to meet."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge.session import PURGE_MARGIN, Connection, SessionRecord, Side
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from tests.soak import leaks, report, run, schedule, table_reader
from tests.soak.stats import Stats

MET = dict.fromkeys(schedule.KINDS, 1) | {"cut_close": 50}


def good() -> Stats:
    stats = Stats()
    stats.moved(100_000_000)
    stats.well("stopped")
    stats.most("stream_mb", 3.0)
    stats.most("relay_rss_mb", 70.0)
    return stats


def failed(stats: Stats, met: dict[str, int] = MET, left: Any = (), seconds: float = 120.0) -> list[str]:
    found: list[str] = report.judge(stats, met, dict(left), {}, [], {}, seconds, {})["failed"]
    return found


def test_good_one_does_not_fail() -> None:
    assert failed(good()) == []


def test_each_shortcoming_fails_it() -> None:
    stats = good()
    stats.mismatch("wrong byte")
    assert failed(stats) == ["wrong byte"]
    assert failed(good(), left={"sockets": ["7"]}) == ["left: sockets ['7']"]
    assert failed(good(), MET | {"cut_close": 47}) == ["only 49 cuts"]
    assert failed(good(), {kind: count for kind, count in MET.items() if kind != "crash"}) == [
        "never met: crash"
    ]
    small = good()
    small.moved(-1)
    assert failed(small) == ["only 99999999 bytes"]
    for figure, text in [("stream_mb", "took 30 MB of its dialer"), ("relay_rss_mb", "a relay took 130 MB")]:
        fat = good()
        fat.most(figure, 130 if figure == "relay_rss_mb" else 30)
        assert text in failed(fat)[0]
    idle = good()
    del idle.done["stopped"]
    assert failed(idle) == ["no stream whose reader had stopped went well"]


def test_what_no_fault_explains_fails_it_and_is_counted_beside_the_lost_items() -> None:
    stats = good()
    stats.error("idle", "TunnelResetError/RELAY_GONE", "text", "5e" * 32)
    stats.error("bulk", "TunnelResetError/RELAY_GONE", "text", "5f" * 32)
    lost = {"relay killed": ["5e" * 32]}
    line = report.judge(stats, MET, {"session items": ["x"]}, lost, ["strange"], {}, 120.0, {})
    assert line["failed"] == ["left: session items ['x']", "strange"]
    assert (line["unexplained"], line["leaked_items"], line["lost_items"]) == (1, 1, {"relay killed": 1})
    assert line["errors"] == {"TunnelResetError/RELAY_GONE": 2}


def test_short_one_has_to_do_its_share_only() -> None:
    stats = Stats()
    stats.moved(25_000_000)
    assert failed(stats, {"cut_close": 13}, seconds=30.0) == []
    assert failed(stats, {"cut_close": 12}, seconds=30.0) == ["only 12 cuts"]


def test_kind_that_was_not_met_becomes_likely_and_the_others_stay_as_they_are() -> None:
    usual = schedule.storm(1)
    assert schedule.worse(usual, MET) == usual
    met = {kind: count for kind, count in MET.items() if kind not in ("invoke_hang", "storm", "cut_reset")}
    worse = schedule.worse(usual, met)
    assert worse.invoke_hang > 10 * usual.invoke_hang
    assert schedule.worse(usual, {**MET, "crash": 0}).crash <= 0.05  # else no session would survive
    assert (worse.storm_every, worse.cut_every) == (usual.storm_every / 3, usual.cut_every / 3)
    assert worse.silence_every == usual.silence_every


def test_every_kind_is_on_in_the_storm_and_none_when_it_is_over() -> None:
    storm, calm = schedule.storm(1), schedule.calm(1)
    rates = ("cut_every", "silence_every", "storm_every")
    for name in [kind for kind in schedule.KINDS if hasattr(storm, kind)] + list(rates):
        assert getattr(storm, name) > 0, name
        assert getattr(calm, name) == 0, name


def session_item() -> dict[str, Any]:
    session = SessionRecord(
        "5e" * 32, 1, b"n" * 32, "date", "host", 1000.0, 1060.0, int(1960 + PURGE_MARGIN), dialer=Side("d", 1)
    )
    return items.new_session(session)


def test_item_that_will_be_purged_is_no_leak_and_its_end_is_told_by_its_true_name() -> None:
    opening, over = session_item(), session_item()
    lost = session_item() | {"state": items.text("OPEN"), "relay_expires": items.number(1900.0)}
    over |= {"state": items.text("ENDED"), "code": items.number(int(Code.RELAY_GONE))}
    over |= {"ended_by": items.text("r"), "ended_at": items.number(1100.0)}
    connection = items.connection(Connection("d", "5e", Role.DIALER, 1), 2000)
    everything = [opening, lost, over, connection]
    assert leaks.leaked_items(everything) == []
    assert leaks.ends(everything) == {
        "lost: OPENING_EXPIRED": 1, "lost: RELAY_DEADLINE": 1, "RELAY_GONE": 1
    }  # fmt: skip


def test_item_that_nothing_will_remove_or_end_is_a_leak() -> None:
    eternal = session_item()
    del eternal["purge_at"]
    assert "no time to live" in leaks.leaked_items([eternal])[0]
    endless = session_item() | {"state": items.text("OPEN"), "relay_expires": items.number(9e9)}
    assert "OPEN for ever" in leaks.leaked_items([endless])[0]


def test_socket_that_is_garbage_is_no_leak_and_one_that_is_open_is_named() -> None:
    """pg8000 keeps a file over its socket; after an error it was garbage in a cycle, and seemed to leak."""
    held = leaks.sockets()
    near, far = socket.socketpair()
    cycle: list[object] = [near.makefile("rwb")]
    cycle.append(cycle)
    near.close()
    far.close()
    del cycle
    assert run.open_sockets(held) == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run.open_sockets(held) == [f"{server.getsockname()[1]}-0 0A"]


@pytest.mark.parametrize(
    ("before", "now", "back"),
    [
        (None, (0, 1, 0), False),
        ((0, 1, 0), (2, 1, 1), False),
        ((2, 2, 1), (2, 2, 1), False),
        ((3, 2, 1), (2, 2, 1), True),
        ((2, 2, 3), (2, 3, 2), True),
    ],
)
def test_the_table_reader_knows_when_a_session_goes_back(before: Any, now: Any, back: bool) -> None:
    assert table_reader.went_back(before, now) is back


def test_the_table_reader_reads_state_and_epochs() -> None:
    assert table_reader.progress_of(session_item()) == (0, 1, 0)
