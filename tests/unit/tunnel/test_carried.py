"""Who watches a connection is told once, whenever that began."""

from __future__ import annotations

from emissary_lib.tunnel.carried import CarriedConnection, Notice
from tests.helpers.shared_tunnels import TARGET


def test_a_listener_is_told_once() -> None:
    told: list[str] = []
    notice = Notice()
    notice.watch(lambda: told.append("early"))
    notice.tell()
    notice.tell()
    assert told == ["early"]


def test_whoever_listens_too_late_is_told_at_once() -> None:
    told: list[str] = []
    notice = Notice()
    notice.tell()
    notice.watch(lambda: told.append("late"))
    assert told == ["late"]


def test_a_listener_may_ask_the_connection_that_tells_it() -> None:
    connection = CarriedConnection(1, TARGET)
    seen: list[bool] = []
    connection.watch_over(lambda: connection.watch_over(lambda: seen.append(connection.over)))
    connection.finish()
    connection.over_notice.tell()
    assert seen == [True]
