"""Wraps the prose of a Markdown document to one width; tables, code blocks and headings stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: Longest line of prose, in characters.
WIDTH: Final = 120

#: Begins a list item: its indentation, its mark, its text.
_ITEM: Final = re.compile(r"^( *)([-*+] +|\d+[.)] +)(.*)$")

#: A line that is no prose: blank, a heading, a table's row, a comment.
_FIXED: Final = re.compile(r"^\s*$|^#|^\s*\||^<!--")

#: A word that would begin something else if a line began with it.
_MARK: Final = re.compile(r"[-*+>|]|#+|=+|\d+[.)]|<!--.*")


def wrap(text: str) -> str:
    """The document with its prose wrapped."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    paragraph: list[str] = []
    fence = in_list = False
    for line in lines:
        begins_fence = line.lstrip().startswith("```")
        in_list = bool(_ITEM.match(line)) or (in_list and line[:1] in ("", " "))
        code = not (in_list or paragraph) and line.startswith("    ")
        if fence or begins_fence or code or _FIXED.match(line):
            yield from _wrap(paragraph)
            paragraph = []
            fence ^= begins_fence
            yield line
        elif _ITEM.match(line):
            yield from _wrap(paragraph)
            paragraph = [line]
        else:
            paragraph.append(line)
    yield from _wrap(paragraph)


def _wrap(paragraph: list[str]) -> Iterator[str]:
    """The lines of a paragraph or of a list item's first paragraph."""
    if not paragraph:
        return
    item = _ITEM.match(paragraph[0])
    if item:
        first, rest = item[1] + item[2].rstrip() + " ", " " * len(item[1] + item[2].rstrip() + " ")
        text = " ".join([item[3], *paragraph[1:]])
    else:
        first = rest = " " * (len(paragraph[0]) - len(paragraph[0].lstrip()))
        text = " ".join(paragraph)
    line, begun = first, False
    for word in words(text):
        if begun and len(line) + 1 + len(word) > WIDTH:
            yield line
            line, begun = rest, False
        line += f" {word}" if begun else word
        begun = True
    yield line


def words(text: str) -> list[str]:
    """The text cut where a line may end: not within code, nor before what would begin a list or a heading."""
    found: list[str] = []
    for word in text.split():
        if found and (found[-1].count("`") % 2 or _MARK.fullmatch(word)):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
