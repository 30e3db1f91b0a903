"""docs/doctor.md and the doctor agree."""

from __future__ import annotations

import json
import pathlib
import re

from emissary_lib.cli.doctor import GREET, TIMEOUT
from emissary_lib.doctor import render, run
from emissary_lib.doctor.report import Report, Result, Status, ok
from emissary_lib.doctor.service_probes import GREETINGS
from emissary_lib.exit_status import Exit

TEXT = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "doctor.md").read_text()


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_rung_is_explained_in_order() -> None:
    assert [row[0].strip("`") for row in rows("Rungs")] == list(run.RUNGS)


def test_every_status_of_the_doctor_s_own_stands_at_a_rung_and_none_that_is_not() -> None:
    named = {int(number) for row in rows("Rungs") for number in re.findall(r"\d+", row[2])}
    assert named <= set(Exit)
    assert {status for status in Exit if 20 <= status < 100} <= named


def test_every_hop_is_explained() -> None:
    results = tuple(Result(rung, ok("x", 1.0)) for rung in run.RUNGS)
    named = {name for row in rows("Latency") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(run.latencies(results))


def test_every_member_of_the_json_is_explained() -> None:
    told = json.loads(render.as_json(Report(None, None, (Result("dns", ok("x")),))))
    explained = {row[0].strip("`"): row[1] for row in rows("JSON")}
    assert set(explained) == set(told)
    assert explained["version"] == str(told["version"])
    assert all(f"`{name}`" in explained["rungs"] for name in (*told["rungs"][0], *Status))


def test_every_greeting_and_default_is_explained() -> None:
    assert all(f"`{each.name}` ({each.port}" in TEXT for each in GREETINGS.values())
    assert set(GREET) == {"auto", "none", *GREETINGS}
    assert f"({TIMEOUT:g} s;" in TEXT
