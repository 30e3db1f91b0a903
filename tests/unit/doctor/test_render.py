"""The report as people and as programs read it."""

from __future__ import annotations

import json

from emissary_lib import __version__
from emissary_lib.doctor import render
from emissary_lib.doctor.report import Report, Result, failed, ok, skipped, warning
from emissary_lib.exit_status import Exit

BROKEN = Report(
    "wss://host/stage",
    "db.internal:5432",
    (
        Result("dns", ok("it resolves", 0.0123)),
        Result("tls", failed(Exit.GATEWAY_TLS, "not trusted", "look at the certificate", 0.5)),
        Result("connect", skipped("not reached: tls failed")),
    ),
    {"dns": 0.0123},
)


def test_a_rung_is_a_line_with_status_name_time_and_fact() -> None:
    assert render.line(BROKEN.results[0]).split() == ["ok", "dns", "12", "ms", "it", "resolves"]
    assert render.line(BROKEN.results[2]).split()[:2] == ["skipped", "connect"]


def test_what_to_do_stands_on_a_line_of_its_own() -> None:
    first, second = render.line(BROKEN.results[1]).splitlines()
    assert first.startswith("FAILED ")
    assert second.strip() == "-> look at the certificate"


def test_the_summary_names_the_broken_rung_and_the_exit_status() -> None:
    assert "dns 12" in render.summary(BROKEN)
    assert render.summary(BROKEN).endswith("It breaks at tls; exit status 21.")


def test_the_summary_names_the_warnings_of_a_ladder_that_holds() -> None:
    report = Report("u", None, (Result("clock", warning("off", "set it")), Result("tls", ok("fine"))))
    assert render.summary(report).endswith("It holds, with warnings at clock.")
    assert render.summary(Report("u", None, ())).endswith("It holds.")


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
        "broken_at": "tls",
        "rungs": [
            {"rung": "dns", "status": "ok", "milliseconds": 12.3, "fact": "it resolves", "remedy": None},
            {
                "rung": "tls",
                "status": "failed",
                "milliseconds": 500.0,
                "fact": "not trusted",
                "remedy": "look at the certificate",
            },
            {
                "rung": "connect",
                "status": "skipped",
                "milliseconds": None,
                "fact": "not reached: tls failed",
                "remedy": None,
            },
        ],
        "latency_ms": {"dns": 12.3},
    }


def test_the_json_of_a_ladder_that_holds_says_so() -> None:
    told = json.loads(render.as_json(Report("u", None, (Result("dns", ok("fine")),))))
    assert (told["ok"], told["exit_status"], told["broken_at"], told["target"]) == (True, 0, None, None)
