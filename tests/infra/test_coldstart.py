"""The figures of `make coldstart`."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from emissary_local.template.template import read_template
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS, ROOT
from tools.coldstart.measure import heaviest, init_ms, measure
from tools.replay.errors import ReplayError

pytestmark = LINUX_ONLY


def test_the_figures_of_a_function(artifacts: pathlib.Path) -> None:
    template = read_template(ROOT / "template.yaml", PARAMETERS)
    one = dataclasses.replace(template, functions={"RelayFunction": template.functions["RelayFunction"]})
    report = json.loads(json.dumps(measure(one, artifacts, 1)))
    figures = report["functions"]["RelayFunction"]
    assert report["runs"] == 1
    assert all(figures[name] > 0 for name in ("init_ms", "import_ms", "cpu_ms", "rss_mb", "artifact_bytes"))
    assert figures["with_pyc"]["cpu_ms"] > 0
    assert {"functions", "emissary_lib"} <= set(figures["heaviest_ms"])
    # A name server is not configured: what asks one must not be paid for.
    assert "dns" not in figures["heaviest_ms"]


def test_packages_are_summed_up_and_sorted() -> None:
    text = """
import time: self [us] | cumulative | imported package
import time:       400 |        400 |     b.one
import time:      1000 |       1400 |   a
import time:       700 |        700 | b.two
"""
    assert list(heaviest(text).items()) == [("b", 1.1), ("a", 1.0)]


def test_the_init_phase_is_read_from_the_emulator_s_log() -> None:
    assert init_ms("x [INFO] (rapid) INIT REPORT(durationMs: 123.45)\n") == 123.45
    with pytest.raises(ReplayError, match="does not say"):
        init_ms("")
