"""Progress as it is written, and the table."""

from __future__ import annotations

import io

import pytest

from emissary_lib.prices import HERE
from emissary_local.billing.meter import MeterSnapshot
from tools.demo.bulk import Transfer
from tools.demo.report import Progress, Report
from tools.demo.verify import Check


def filled() -> Report:
    return Report(
        applied=["0001 first", "0002 second"],
        dials=[0.5, 0.1, 0.3, 0.2],
        round_trips=[0.002, 0.004, 0.003],
        sent=Transfer(20_000_000, "", 2.0),
        received=Transfer(20_000_000, "", 0.5),
        checks=[Check("revision", "0002", "0002")],
        meter=MeterSnapshot(messages_in=1234, messages_out=5, message_units_in=1_000_000),
    )


def test_the_table_says_what_was_measured() -> None:
    assert filled().table() == (
        "  applied         2 revisions, 0001 to 0002\n"
        "  dial            first 500 ms (cold), then 200 ms (median of 3)\n"
        "  round trip      3.0 ms (SELECT 1, median of 3)\n"
        "  COPY in         20.0 MB in 2.00 s, 10.0 MB/s, checksummed at both ends\n"
        "  COPY out        20.0 MB in 0.50 s, 40.0 MB/s, checksummed at both ends\n"
        "  messages        1,234 from clients, 5 to clients\n"
        f"  AWS would bill  $1.000000 (us-east-1, {HERE.architecture}, prices of 2026-11, no free tier)\n"
        "  verified        1 of 1 facts: the database's own, and that no AWS call was refused\n"
    )


def test_a_wrong_fact_is_no_success_and_stands_in_the_table() -> None:
    report = filled()
    before = report.ok
    report.checks.append(Check("valid index", [True], []))
    assert (before, report.ok) == (True, False)
    assert "1 of 2 facts" in report.table()
    assert "WRONG: valid index: expected [True], found []\n" in report.table()


def test_no_facts_are_no_success() -> None:
    assert not Report().ok


def test_a_step_is_announced_before_it_is_done() -> None:
    out = io.StringIO()
    progress = Progress(out)
    with progress.step("Dialling"):
        assert out.getvalue() == "Dialling "
        progress.share(0.5)
        progress.share(0.5)
        progress.share(1.0)
    name, dots, seconds, unit = out.getvalue().split()
    assert (name, dots, unit) == ("Dialling", "." * 20, "s")
    assert float(seconds) >= 0
    assert out.getvalue().endswith("\n")


def test_lines_of_a_step_stand_below_it() -> None:
    out = io.StringIO()
    progress = Progress(out)
    with progress.step("Applying"):
        progress.line("0001")
        progress.line("0002")
    assert out.getvalue().startswith("Applying \n    0001\n    0002\n ")


def test_a_failed_step_says_so() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), Progress(out).step("Dividing"):
        _ = 1 / 0
    assert out.getvalue() == "Dividing failed\n"
