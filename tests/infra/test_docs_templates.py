"""docs/local-cloud-templates.md against the lists that the local cloud goes by."""

from __future__ import annotations

import re
from typing import Final

from emissary_local.template.intrinsics import _FUNCTIONS
from emissary_local.template.resources import PASSED_OVER, READ
from tests.infra.documents import inline, read

DOCUMENT: Final = "docs/local-cloud-templates.md"


def test_every_type_that_is_read_has_a_row() -> None:
    rows = re.findall(r"^\| `(AWS::\S+)` \|", read(DOCUMENT), re.MULTILINE)
    assert sorted(rows) == sorted(READ)


def test_every_type_that_is_passed_over_is_named() -> None:
    listed = read(DOCUMENT).partition("passed over.")[2].partition("So schedules")[0]
    assert set(re.findall(r"`(AWS::[^`]+)`", listed)) == PASSED_OVER


def test_every_function_that_it_names_is_as_it_says() -> None:
    named = {text for text in inline(DOCUMENT) if text.startswith("Fn::")}
    assert named - set(_FUNCTIONS) == {"Fn::ImportValue", "Fn::Cidr", "Fn::ForEach"}
