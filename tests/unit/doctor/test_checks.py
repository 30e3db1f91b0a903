"""The checks: check after check, until one breaks."""

from __future__ import annotations

import pytest

from emissary_lib.doctor.checks import (
    Check,
    Finding,
    Report,
    Result,
    Status,
    failure,
    ok,
    run_checks,
    skip,
    warning,
)
from emissary_lib.exit_status import Exit


def never() -> Finding:
    raise AssertionError("a check behind a broken one was looked at")


def test_every_check_is_looked_at_in_order_while_none_breaks() -> None:
    looked: list[str] = []

    def check(name: str, finding: Finding) -> Check:
        def look() -> Finding:
            looked.append(name)
            return finding

        return Check(name, look)

    results = run_checks([check("a", ok("fine")), check("b", warning("hm", "do")), check("c", skip("no"))])
    assert looked == ["a", "b", "c"]
    assert [each.name for each in results] == looked
    assert Report(None, None, results).exit is Exit.OK
    assert Report(None, None, results).failed_check is None


def test_after_a_failed_check_the_rest_is_skipped_and_says_why() -> None:
    broken = failure(Exit.GATEWAY_TLS, "bad", "do this")
    results = run_checks([Check("a", lambda: ok("fine")), Check("tls", lambda: broken), Check("c", never)])
    assert results[1:] == (Result("tls", broken), Result("c", skip("not reached: tls failed")))
    report = Report("wss://host/stage", None, results)
    assert report.failed_check == results[1]
    assert report.exit is Exit.GATEWAY_TLS


def test_each_result_is_told_before_the_next_check_is_looked_at() -> None:
    seen: list[str] = []

    def second() -> Finding:
        assert seen == ["a"]
        return ok("fine")

    run_checks([Check("a", lambda: ok("fine")), Check("b", second)], lambda result: seen.append(result.name))
    assert seen == ["a", "b"]


@pytest.mark.parametrize("status", Status)
def test_only_a_failure_breaks_the_checks(status: Status) -> None:
    results = run_checks([Check("a", lambda: Finding(status, "x")), Check("b", lambda: ok("y"))])
    assert (results[1].finding.status is Status.SKIPPED) == (status is Status.FAILED)
