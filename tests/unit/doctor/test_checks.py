"""The ladder: rung after rung, until one breaks."""

from __future__ import annotations

import pytest

from emissary_lib.doctor.checks import Rung, climb
from emissary_lib.doctor.report import Finding, Report, Result, Status, failed, ok, skipped, warning
from emissary_lib.exit_status import Exit


def never() -> Finding:
    raise AssertionError("a rung behind a broken one was looked at")


def test_every_rung_is_looked_at_in_order_while_none_breaks() -> None:
    looked: list[str] = []

    def rung(name: str, finding: Finding) -> Rung:
        def look() -> Finding:
            looked.append(name)
            return finding

        return Rung(name, look)

    results = climb([rung("a", ok("fine")), rung("b", warning("hm", "do")), rung("c", skipped("no"))])
    assert looked == ["a", "b", "c"]
    assert [each.rung for each in results] == looked
    assert Report(None, None, results).exit is Exit.OK
    assert Report(None, None, results).broken is None


def test_behind_a_broken_rung_the_rest_is_skipped_and_says_why() -> None:
    broken = failed(Exit.GATEWAY_TLS, "bad", "do this")
    results = climb([Rung("a", lambda: ok("fine")), Rung("tls", lambda: broken), Rung("c", never)])
    assert results[1:] == (Result("tls", broken), Result("c", skipped("not reached: tls failed")))
    report = Report("wss://host/stage", None, results)
    assert report.broken == results[1]
    assert report.exit is Exit.GATEWAY_TLS


def test_each_result_is_told_before_the_next_rung_is_looked_at() -> None:
    told: list[str] = []

    def second() -> Finding:
        assert told == ["a"]
        return ok("fine")

    climb([Rung("a", lambda: ok("fine")), Rung("b", second)], lambda result: told.append(result.rung))
    assert told == ["a", "b"]


@pytest.mark.parametrize("status", Status)
def test_only_a_failure_breaks_the_ladder(status: Status) -> None:
    results = climb([Rung("a", lambda: Finding(status, "x")), Rung("b", lambda: ok("y"))])
    assert (results[1].finding.status is Status.SKIPPED) == (status is Status.FAILED)
