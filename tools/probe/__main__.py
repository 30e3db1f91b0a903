"""``python -m tools.probe URL``: ask a deployed probe's stack what Emissary assumes about AWS."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError

from tools.probe import account, address, bill, report
from tools.probe.connection import ProbeError
from tools.probe.probe import Pace, Probe
from tools.probe.questions import QUESTIONS, Question
from tools.probe.run import all_hold, run

_NUMBERS = [question.number for question in QUESTIONS]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    pace = Pace()
    parser = argparse.ArgumentParser(
        prog="python -m tools.probe", description="Ask AWS what Emissary assumes about it: docs/probe.md."
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("url", nargs="?", metavar="URL", help="the stack's output Url")
    asked.add_argument(
        "--bill", type=Path, metavar="FILE", help="a day later: complete a run's JSON from the bill ($0.01)"
    )
    parser.add_argument("--stack", metavar="NAME", help="its name: ask with your own credentials too")
    parser.add_argument("--json", action="store_true", help="print JSON, to be sent back")
    parser.add_argument(
        "--only", type=_numbers, action="extend", metavar="NUMBERS", help="some of the questions: 1,2,6"
    )
    parser.add_argument(
        "--sleep", type=_seconds, default=pace.sleep, metavar="SECONDS",
        help="how long a function sleeps to meet API Gateway's 29 s (%(default)g; less where time is scaled)",
    )  # fmt: skip
    parser.add_argument(
        "--idle", type=_seconds, default=pace.idle, metavar="SECONDS",
        help="how long to watch for the 10 idle minutes (%(default)g; less where time is scaled)",
    )  # fmt: skip
    return parser


def _numbers(text: str) -> list[int]:
    """Numbers of questions, with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    known = {str(number): number for number in _NUMBERS}
    if not all(part in known for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of numbers from {_NUMBERS[0]} to {_NUMBERS[-1]}, such as 1,2,6"
        )
    return [known[part] for part in parts]


def _seconds(text: str) -> float:
    """A time that passes, and ends."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def main(
    arguments: list[str] | None = None,
    questions: Sequence[Question] = QUESTIONS,
    connect: Callable[[str], account.Account] = account.connect,
) -> int:
    """Ask and print.

    Args:
        arguments: Of the command line; the process's if None.
        questions: What can be asked.
        connect: Finds a stack by its name.

    Returns:
        0 if all that was answered holds, 1 if not, 2 if nothing could be asked, 130 if it was interrupted.
    """
    given = parser().parse_args(arguments)
    try:
        return read_bill(given.bill) if given.bill else ask(given, questions, connect)
    except ProbeError as exc:
        print(f"probe: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    """Say so; returns the exit status that a shell gives to SIGINT."""
    print("probe: interrupted", file=sys.stderr)
    return 130


def ask(
    given: argparse.Namespace, questions: Sequence[Question], connect: Callable[[str], account.Account]
) -> int:
    """Ask the stack; who interrupts that is shown what was found so far.

    Raises:
        ProbeError: It cannot be reached, or is not the one whose name was given.
    """
    began = time.monotonic()
    owned = connect(given.stack) if given.stack else None
    if owned is not None and not account.is_behind(owned.api, given.url, given.stack):
        print("probe: whether the stack is behind a name of your own is not checked", file=sys.stderr)
    probe = Probe(given.url, Pace(sleep=given.sleep, idle=given.idle), owned)
    with probe.open() as connection:
        connection.call("who")
    asked = [question for question in questions if given.only is None or question.number in given.only]
    results, interrupted = [], False
    try:
        for result in run(probe, asked, _tell):
            results.append(result)
    except KeyboardInterrupt:
        interrupted = True
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    if given.json:
        print(report.as_json(results, url=given.url, day=day, seconds=time.monotonic() - began))
    else:
        print(report.as_text(results, url=given.url))
    if interrupted:
        return _interrupted()
    return 0 if all_hold(results) else 1


def _tell(question: Question) -> None:
    print(f"{question.number:2}  {question.text}", file=sys.stderr)


def read_bill(file: Path) -> int:
    """Complete a run's JSON.

    Raises:
        ProbeError: It is no such file, or the bill cannot be read.
    """
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        completed = bill.completed(run, boto3.client)
    except (OSError, ValueError, BotoCoreError) as exc:
        raise ProbeError(f"cannot complete {file}: {exc}") from exc
    print(json.dumps(address.hidden(completed, ""), indent=2, ensure_ascii=False))
    return 0 if completed["summary"]["does not hold"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
