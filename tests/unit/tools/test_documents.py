"""The tool that keeps the documents: what it wraps, what it leaves, what it generates and what it keeps."""

from __future__ import annotations

import pathlib
import re

import pytest

from emissary_lib.protocol.codes import Code
from tools.documents import ROOT, documents, generated
from tools.documents.wrapping import WIDTH, wrap

LONG = " ".join(["word"] * 60)


def test_prose_is_wrapped_to_the_width_and_once_only() -> None:
    wrapped = wrap(LONG)
    assert max(map(len, wrapped.split("\n"))) <= WIDTH
    assert wrapped.split() == LONG.split()
    assert wrap(wrapped) == wrapped


def test_short_lines_are_joined_and_paragraphs_stay_apart() -> None:
    assert wrap("one\ntwo\n\nthree\n") == "one two\n\nthree\n"


@pytest.mark.parametrize(("mark", "indent"), [("- ", "  "), ("10. ", "    "), ("  * ", "    ")])
def test_a_list_item_hangs_below_its_text(mark: str, indent: str) -> None:
    first, *rest = wrap(f"{mark}{LONG}").split("\n")
    assert first.startswith(f"{mark}word")
    assert len(rest) > 1
    assert all(line.startswith(f"{indent}word") for line in rest)


def test_items_are_not_joined() -> None:
    assert wrap("- one\n- two\n  three\n") == "- one\n- two three\n"


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG}{LONG}\n```",
        f"    {LONG}\n    {LONG}",
        f"| {LONG} |\n| - |",
        f"# {LONG}",
        f"<!-- {LONG} -->",
    ],
)
def test_tables_code_headings_and_comments_stay(text: str) -> None:
    assert wrap(text) == text


def test_code_is_not_cut_and_no_line_begins_a_list_or_a_heading() -> None:
    text = " ".join(["`a b c d e f g` - 1. #"] * 30)
    lines = wrap(text).split("\n")
    assert len(lines) > 1
    assert all(line.startswith("`a b c d e f g`") and line.count("`") % 2 == 0 for line in lines)


def test_a_generated_part_is_made_anew_and_the_rest_stays() -> None:
    text = "before\n<!-- generated: codes -->\nold\n<!-- end -->\nafter\n"
    filled = documents.fill(text)
    assert filled.startswith("before\n<!-- generated: codes -->\n| code |")
    assert filled.endswith("\nafter\n")
    assert all(f"| {code.value} | {code.name} |" in filled for code in Code)
    assert documents.fill(filled) == filled


def test_a_part_that_nothing_generates_is_named() -> None:
    with pytest.raises(ValueError, match=r"nothing generates 'weather'; there are: codes, "):
        documents.fill("<!-- generated: weather -->\n<!-- end -->\n")


def test_cells_that_were_written_by_hand_stay_with_their_row() -> None:
    former = "| name | value | why |\n|---|---|---|\n| b | 1 | because |\n| gone | 1 | no |"
    made = generated.table(["name", "value", "why"], [["a", 1], ["b", 2]], former)
    assert made.splitlines()[2:] == [f"| a | 1 | {generated.MISSING} |", "| b | 2 | because |"]


def test_what_is_out_of_date_or_unexplained_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"<!-- generated: codes -->\n<!-- end -->\n{generated.MISSING}\n")
    assert [each.split(";")[0] for each in documents.faults(path)] == [
        "a.md is not up to date",
        "a.md lacks a cell that is written by hand",
    ]
    path.write_text("fine\n")
    assert documents.faults(path) == []


def test_every_part_stands_in_a_document() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in documents.paths())
    assert sorted(re.findall(r"^<!-- generated: (.+) -->$", text, re.MULTILINE)) == sorted(generated.PARTS)


def test_every_section_that_the_table_of_numbers_names_exists() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    sections = re.findall(r"^\| [A-Z_]+ \| [^|]+ \| [^|]+ \| ([\d.]+) \|$", text, re.MULTILINE)
    assert sections
    assert set(sections) <= set(re.findall(r"^###? ([\d.]*\d)\.? ", text, re.MULTILINE))
