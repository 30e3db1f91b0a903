"""The whole translated template, as it was reviewed; and that it is valid CloudFormation."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.patience import HANG
from tests.helpers.sam_template import SNAPSHOT, as_text, translate_template


def test_what_is_deployed_is_what_was_reviewed() -> None:
    """Look at a change line by line; then ``python -m tests.helpers.sam_template`` takes it over."""
    reviewed = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    now = as_text(translate_template()).splitlines()
    changes = list(difflib.unified_diff(reviewed, now, "reviewed", "now", lineterm="", n=4))
    assert not changes, "review, then run python -m tests.helpers.sam_template:\n" + "\n".join(changes)


@pytest.mark.slow
def test_what_sam_makes_of_it_is_valid_cloudformation(tmp_path: Path) -> None:
    """``sam validate --lint`` misses a reference to what does not exist; linting the translation does not."""
    file = tmp_path / "translated.json"
    file.write_text(as_text(translate_template()), encoding="utf-8")
    lint = subprocess.run(
        [sys.executable, "-c", "from cfnlint.runner import main; main()", str(file)],
        capture_output=True, text=True, timeout=4 * HANG,
    )  # fmt: skip
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
