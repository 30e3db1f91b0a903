"""A run's results as text, and as JSON to be sent back."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any, Final

from emissary_lib import __version__
from tools.probe.address import hidden, region
from tools.probe.run import Result
from tools.probe.verdict import State

#: Raised when a member of the JSON changes its meaning.
VERSION: Final = 1


def as_json(results: Sequence[Result], *, url: str, day: str, seconds: float) -> str:
    """All of it; neither the URL nor an id of the account is in it, whatever AWS and the SDK have said."""
    members: dict[str, Any] = {
        "probe": VERSION,
        "emissary": __version__,
        "region": region(url),
        "day": day,
        "seconds": round(seconds),
        "summary": _summary(results),
        "questions": [
            {
                "number": result.question.number,
                "question": result.question.text,
                "assumes": result.question.assumes,
                "verdict": result.verdict.state.value,
                "why": hidden(result.verdict.why, url),
                "findings": hidden(result.findings, url),
            }
            for result in results
        ],
    }
    return json.dumps(members, indent=2, ensure_ascii=False)


def as_text(results: Sequence[Result], *, url: str) -> str:
    """For people, without the same; what an assumption's failing means stands where one fails."""
    parts = [_paragraph(result, url) for result in results]
    told = ", ".join(f"{count} {state}" for state, count in _summary(results).items())
    return "\n\n".join([*parts, f"{len(results)} questions: {told}"])


def summary(verdicts: Sequence[str]) -> dict[str, int]:
    """How many verdicts there are of each kind.

    Example:
        >>> summary(["holds", "not answered", "holds"])
        {'holds': 2, 'does not hold': 0, 'not answered': 1}
    """
    return {state.value: verdicts.count(state.value) for state in State}


def _summary(results: Sequence[Result]) -> dict[str, int]:
    return summary([result.verdict.state.value for result in results])


def _paragraph(result: Result, url: str) -> str:
    question, verdict = result.question, result.verdict
    lines = [
        f"{question.number:2}  {verdict.state.value.upper():14} {question.text}",
        _indented("assumed", question.assumes),
        _indented("found", hidden(verdict.why, url)),
    ]
    if verdict.state is State.FAILS:
        lines.append(_indented("so", question.otherwise))
    return "\n".join(lines)


def _indented(name: str, text: str) -> str:
    return textwrap.fill(
        text, width=118, initial_indent=f"    {name + ':':9}", subsequent_indent=" " * 13,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
