"""docs/protocol.md is made of rules that can be cited: numbered, short, each with a word of RFC 2119."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import pytest

from tests.infra.documents import read

DOCUMENT: Final = "docs/protocol.md"

#: Longest paragraph, in lines of the width to which the documents are wrapped.
MOST_LINES: Final = 5

_HEADING: Final = re.compile(r"^##+ ([\d.]*\d)\.? ")
_RULE: Final = re.compile(r"- \*\*([\d.]+)-(\d+)\*\* (.*)", re.DOTALL)
_KEYWORD: Final = re.compile(r"\b(?:MUST|SHOULD|MAY)\b")
_WITHDRAWN: Final = "Withdrawn."


class Paragraph(NamedTuple):
    """A paragraph or a list item, with the section that it stands in; the introduction is section ``""``."""

    section: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The same without its line breaks."""
        return " ".join(line.strip() for line in self.lines)


def paragraphs(document: str) -> list[Paragraph]:
    """The prose of a document: no headings, tables, diagrams and comments."""
    found: list[Paragraph] = []
    section, lines = "", list[str]()
    for line in [*re.sub(r"^```.*?^```", "", document, flags=re.MULTILINE | re.DOTALL).splitlines(), ""]:
        is_prose = bool(line) and not line.startswith(("#", "|", "<!--"))
        if lines and (not is_prose or line.lstrip().startswith("- ")):
            found.append(Paragraph(section, tuple(lines)))
            lines = []
        if heading := _HEADING.match(line):
            section = heading[1]
        if is_prose:
            lines.append(line)
    return found


def faults(document: str) -> list[str]:
    """What breaks the form of the rules, in words."""
    found: list[str] = []
    counts: dict[str, int] = {}
    cited: set[str] = set()
    for each in paragraphs(document):
        if len(each.lines) > MOST_LINES:
            found.append(f"{len(each.lines)} lines: {each.lines[0]}")
        cited.update(re.findall(r"(?<![\w*.-])\d+(?:\.\d+)?-\d+\b", each.text))
        has_keyword = bool(_KEYWORD.search(each.text))
        rule = _RULE.match(each.text)
        if rule is None:
            if has_keyword and each.section:
                found.append(f"a rule without a number: {each.lines[0]}")
            continue
        counts[each.section] = counts.get(each.section, 0) + 1
        name = f"{rule[1]}-{rule[2]}"
        if name != f"{each.section}-{counts[each.section]}":
            found.append(f"{name} stands where {each.section}-{counts[each.section]} is due")
        if not has_keyword and rule[3] != _WITHDRAWN:
            found.append(f"{name} says nobody what they must do")
    there = {f"{section}-{number}" for section, most in counts.items() for number in range(1, most + 1)}
    return found + [f"there is no rule {name}" for name in sorted(cited - there)]


def test_the_protocol_is_made_of_numbered_rules() -> None:
    assert faults(read(DOCUMENT)) == []


def test_every_section_of_the_protocol_with_a_behaviour_has_rules() -> None:
    sections = {each.section for each in paragraphs(read(DOCUMENT)) if _RULE.match(each.text)}
    headings = [_HEADING.match(line) for line in read(DOCUMENT).splitlines()]
    numbered = {each[1] for each in headings if each}
    # 3, 4, 5, 11 and 12 have nothing but subsections; 9 repeats the numbers of the others; 12.5 sums 12 up.
    assert numbered - sections == {"3", "4", "5", "9", "11", "12", "12.5"}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("- **1-1** A MUST.\n- **1-3** B MUST.", "1-3 stands where 1-2 is due"),
        ("- **1-1** A MUST.\n- **1-1** B MUST.", "1-1 stands where 1-2 is due"),
        ("- **2-1** A MUST.", "2-1 stands where 1-1 is due"),
        ("- **1-1** A does.", "1-1 says nobody what they must do"),
        ("A MUST do.", "a rule without a number: A MUST do."),
        ("- **1-1** A MUST (4.2-9).", "there is no rule 4.2-9"),
        ("- **1-1** A MUST\n" + "  and so on\n" * 5, "6 lines: - **1-1** A MUST"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(body: str, fault: str) -> None:
    assert faults(f"# Title\n\nMUST is a word.\n\n## 1. Carrier\n\n{body}\n") == [fault]


def test_a_rule_may_be_withdrawn_and_a_reason_stands_below_its_rule() -> None:
    body = "- **1-1** Withdrawn.\n- **1-2** A MAY (1-1).\n  - *Why:* because.\n\n| a MUST |\n|---|"
    assert faults(f"## 1. Carrier\n\n{body}\n") == []
