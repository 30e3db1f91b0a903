"""A document as it should be: its generated parts from the code, its prose wrapped."""

from __future__ import annotations

import pathlib
import re
from typing import Final

from tools.documents import ROOT, generated, wrapping

_BLOCK: Final = re.compile(r"^<!-- generated: ([\w-]+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)


def paths() -> list[pathlib.Path]:
    """Every document that people read."""
    return [
        path
        for folder in (".", "docs", "docs/guides", "emissary_local")
        for path in sorted((ROOT / folder).glob("*.md"))
    ]


def faults(path: pathlib.Path) -> list[str]:
    """What is wrong with a document, in words; an empty list if nothing is."""
    text = path.read_text(encoding="utf-8")
    found = []
    if render(path) != text:
        found.append("is not up to date; run: python -m tools.documents write")
    if generated.MISSING in text:
        found.append(f"lacks a cell that is written by hand; it says {generated.MISSING} there")
    return [f"{path.name} {each}" for each in found]


def render(path: pathlib.Path) -> str:
    """The text that the document should have.

    Raises:
        ValueError: A generated part has a name that nothing generates.
    """
    return wrapping.wrap(fill(path.read_text(encoding="utf-8")))


def fill(text: str) -> str:
    """The text with its generated parts made anew.

    Raises:
        ValueError: A generated part has a name that nothing generates.
    """

    def make(block: re.Match[str]) -> str:
        name, former = block.groups()
        if name not in generated.PARTS:
            raise ValueError(f"nothing generates {name!r}; there are: {', '.join(generated.PARTS)}")
        return f"<!-- generated: {name} -->\n{generated.PARTS[name](former)}\n<!-- end -->"

    return _BLOCK.sub(make, text)
