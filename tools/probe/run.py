"""One run: every question asked, one after another, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tools.probe.connection import ProbeError
from tools.probe.probe import Probe
from tools.probe.questions import Question
from tools.probe.verdict import Findings, State, Verdict, not_answered


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one question.

    Attributes:
        question: Which.
        findings: What was found; None if nothing was.
        verdict: What that says.
    """

    question: Question
    findings: Findings | None
    verdict: Verdict


def run(
    probe: Probe, questions: Iterable[Question], tell: Callable[[Question], object] = lambda _question: None
) -> list[Result]:
    """Ask.

    Args:
        probe: The stack.
        questions: Which ones.
        tell: Told of each before it is asked.
    """
    results = []
    for question in questions:
        tell(question)
        results.append(_ask(probe, question))
    return results


def _ask(probe: Probe, question: Question) -> Result:
    if question.needs_account and probe.account is None:
        return Result(question, None, not_answered(f"give --stack; or by hand: {question.by_hand}"))
    try:
        findings = question.experiment(probe)
    except ProbeError as exc:
        return Result(question, None, not_answered(str(exc)))
    except Exception as exc:  # a surprise of AWS's must not take the other answers with it
        return Result(question, None, not_answered(f"{type(exc).__name__}: {exc}"))
    return Result(question, findings, question.judge(findings))


def all_hold(results: Iterable[Result]) -> bool:
    """Whether every assumption that was answered holds."""
    return all(result.verdict.state is not State.FAILS for result in results)
