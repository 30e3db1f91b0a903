"""docs/operations.md against the code that it describes."""

from __future__ import annotations

import pathlib
import re
import shlex

from emissary_lib import cli
from functions.common.adapters.keys import FETCH_INTERVAL, MAX_AGE, MAX_STALE
from functions.common.metrics import Metric
from functions.common.session import OPENING_TIME, RECORD_TIME, RELAY_TIME

DOCUMENT = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
TEXT = " ".join(DOCUMENT.split())


def test_every_emissary_command_is_accepted() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^emissary ([^#\n]+)", "".join(blocks), re.MULTILINE)
    assert {command.split()[0] for command in commands} >= {"keys", "sessions"}
    for command in commands:
        assert callable(cli.parse(shlex.split(re.sub(r"<\w+>", "x", command))).command), command


def test_the_figures_are_those_that_are_written() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (count|seconds|milliseconds|bytes) \|", DOCUMENT, re.MULTILINE)
    assert sorted(rows) == sorted((metric.title, metric.unit.lower()) for metric in Metric)


def test_the_times_are_the_code_s() -> None:
    assert "at most every 10 seconds" in TEXT and FETCH_INTERVAL == 10
    assert "no new session after 5 minutes" in TEXT and MAX_AGE == 300
    assert "use the last keys for an hour" in TEXT and MAX_STALE == 3600
    assert "16 minutes after its launch" in TEXT and OPENING_TIME + RELAY_TIME == 16 * 60
    assert "the same facts for a week" in TEXT and RECORD_TIME == 7 * 86_400
