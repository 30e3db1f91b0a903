"""The report as people and as programs read it."""

from __future__ import annotations

import json

from emissary_lib import __version__
from emissary_lib.doctor import render
from emissary_lib.doctor.checks import Report, Result, failure, ok, skip, warning
from emissary_lib.exit_status import Exit

BROKEN = Report(
    "wss://host/stage",
    "db.internal:5432",
    (
        Result("dns", ok("it resolves", 0.0123)),
        Result("tls", failure(Exit.GATEWAY_TLS, "not trusted", "look at the certificate", 0.5)),
        Result("connect", skip("not reached: tls failed")),
    ),
    {"dns": 0.0123},
)


def test_a_check_is_a_line_with_status_name_time_and_fact() -> None:
    assert render.line(BROKEN.results[0]).split() == ["ok", "dns", "12", "ms", "it", "resolves"]
    assert render.line(BROKEN.results[2]).split()[:2] == ["skipped", "connect"]


def test_what_to_do_stands_on_a_line_of_its_own() -> None:
    first, second = render.line(BROKEN.results[1]).splitlines()
    assert first.startswith("FAILED ")
    assert second.strip() == "-> look at the certificate"


def test_the_summary_names_the_failed_check_and_the_exit_status() -> None:
    assert "dns 12" in render.summary(BROKEN)
    assert render.summary(BROKEN).endswith("The check tls failed; exit status 21.")


def test_the_summary_names_the_warnings_of_a_report_without_failures() -> None:
    report = Report("u", None, (Result("clock", warning("off", "set it")), Result("tls", ok("fine"))))
    assert render.summary(report).endswith("All checks passed, with warnings at clock.")
    assert render.summary(Report("u", None, ())).endswith("All checks passed.")


def test_the_json_has_its_documented_shape() -> None:
    text = render.as_json(BROKEN)
    assert "\n" not in text
    assert json.loads(text) == {
        "version": 1,
        "emissary": __version__,
        "url": "wss://host/stage",
        "target": "db.internal:5432",
        "ok": False,
        "exit_status": 21,
        "failed_check": "tls",
        "checks": [
            {"name": "dns", "status": "ok", "milliseconds": 12.3, "fact": "it resolves", "hint": None},
            {
                "name": "tls",
                "status": "failed",
                "milliseconds": 500.0,
                "fact": "not trusted",
                "hint": "look at the certificate",
            },
            {
                "name": "connect",
                "status": "skipped",
                "milliseconds": None,
                "fact": "not reached: tls failed",
                "hint": None,
            },
        ],
        "latency_ms": {"dns": 12.3},
    }


def test_the_json_of_a_report_without_failures_says_so() -> None:
    seen = json.loads(render.as_json(Report("u", None, (Result("dns", ok("fine")),))))
    assert (seen["ok"], seen["exit_status"], seen["failed_check"], seen["target"]) == (True, 0, None, None)
