"""The project's documents as tests read them: links, code blocks, commands, tables."""

from __future__ import annotations

import argparse
import pathlib
import re
import shlex
from typing import Final

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]

#: Every document that people read, by its path from the root.
DOCUMENTS: Final = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "emissary_local/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read(document: str) -> str:
    """A document's whole text."""
    return (ROOT / document).read_text(encoding="utf-8")


def fenced(document: str, language: str) -> list[str]:
    """Its code blocks of one language; ``""`` for those without one."""
    return [text for name, text in _FENCE.findall(read(document)) if name == language]


def inline(document: str) -> list[str]:
    """What stands between backquotes outside its blocks, each on one line."""
    return [prose(text) for text in re.findall(r"`([^`]+)`", _FENCE.sub("", read(document)))]


def block_commands(document: str, program: str) -> list[list[str]]:
    """The words of each call of a program in the shell blocks, without the program's name."""
    return _calls("\n".join(fenced(document, "sh")).replace("\\\n", " ").splitlines(), program)


def prose_commands(document: str, program: str) -> list[list[str]]:
    """The same of the calls between backquotes, as far as they have a word beside the program's name."""
    return _calls([text for text in inline(document) if text.startswith(f"{program} ")], program)


def commands(document: str, program: str) -> list[list[str]]:
    """The same of all calls."""
    return block_commands(document, program) + prose_commands(document, program)


def _calls(lines: list[str], program: str) -> list[list[str]]:
    found = [_first(shlex.split(line, comments=True)) for line in lines]
    return [words[1:] for words in found if words[:1] == [program]]


def _first(words: list[str]) -> list[str]:
    """Without what the shell has behind a program in the background."""
    return words[: words.index("&")] if "&" in words else words


def anchors(document: str) -> set[str]:
    """The names of its headings in links, made as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", read(document)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(document: str, heading: str) -> str:
    """The text below a heading of the second level."""
    return read(document).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def prose(text: str) -> str:
    """A text on one line, so that a sentence is found wherever its lines break."""
    return " ".join(text.split())


def tables(document: str, heading: str) -> list[list[list[str]]]:
    """The tables of a section: for each its rows below the head, as cells without backquotes."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", section(document, heading), re.MULTILINE):
        rows = [line.strip().strip("|").split(" | ") for line in block.splitlines()]
        found.append([[cell.strip().replace("`", "") for cell in row] for row in rows[2:]])
    return found


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name -> parser; of a command with actions, one for each as well (``keys new``)."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found[name] = command
                found |= {f"{name} {inner}": each for inner, each in subcommands(command).items()}
    return found
