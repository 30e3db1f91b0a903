"""One run: every question asked, one after another, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
) -> Iterator[Result]:
    """Ask, one question for each result that is taken: who is interrupted has those that came before.

    Args:
        probe: The stack.
        questions: Which ones.
        tell: Told of each before it is asked.
    """
    for question in questions:
        tell(question)
        yield _ask(probe, question)


def _ask(probe: Probe, question: Question) -> Result:
    if question.needs_account and probe.account is None:
        return Result(question, None, not_answered(f"give --stack; or by hand: {question.by_hand}"))
    findings = None
    try:
        findings = question.experiment(probe)
        verdict = question.judge(findings)
    except ProbeError as exc:
        verdict = not_answered(str(exc))
    except Exception as exc:  # a surprise of AWS's must not take the other answers with it
        verdict = not_answered(f"{type(exc).__name__}: {exc}")
    return Result(question, findings, verdict)


def all_hold(results: Iterable[Result]) -> bool:
    """Whether every assumption that was answered holds."""
    return all(result.verdict.state is not State.FAILS for result in results)
