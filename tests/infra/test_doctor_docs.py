"""docs/doctor.md and the doctor agree."""

from __future__ import annotations

import json
import re

from emissary_lib.cli.doctor import SERVICES, TIMEOUT
from emissary_lib.doctor import render, run
from emissary_lib.doctor.checks import Report, Result, Status, ok
from emissary_lib.doctor.service_probes import SERVICE_PROBES
from emissary_lib.exit_status import DOCTOR, Exit
from tests.infra.documents import read, tables

TEXT = read("docs/doctor.md")


def test_every_status_of_the_doctor_s_own_stands_at_a_check_and_none_that_is_not() -> None:
    named = {
        int(number) for row in tables("docs/doctor.md", "Checks")[0] for number in re.findall(r"\d+", row[2])
    }
    assert named <= set(Exit)
    assert named >= DOCTOR


def test_every_hop_is_explained() -> None:
    results = tuple(Result(name, ok("x", 1.0)) for name in run.CHECKS)
    named = {name for row in tables("docs/doctor.md", "Latency")[0] for name in row[0].split(", ")}
    assert named == set(run.latencies(results))


def test_every_member_of_a_check_in_the_json_is_explained() -> None:
    found = json.loads(render.as_json(Report(None, None, (Result("dns", ok("x")),))))
    explained = dict(tables("docs/doctor.md", "JSON")[0])
    assert explained["version"] == str(found["version"])
    assert all(name in explained["checks"] for name in (*found["checks"][0], *Status))


def test_every_service_and_default_is_explained() -> None:
    assert all(f"`{each.name}` ({each.port}" in TEXT for each in SERVICE_PROBES.values())
    assert set(SERVICES) == {"auto", "none", *SERVICE_PROBES}
    assert f"({TIMEOUT:g} s;" in TEXT
