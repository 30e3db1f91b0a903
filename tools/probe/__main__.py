"""``python -m tools.probe URL``: ask a deployed probe's stack what Emissary assumes about AWS."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError

from tools.probe import account, bill, report
from tools.probe.connection import ProbeError
from tools.probe.probe import Pace, Probe
from tools.probe.questions import QUESTIONS
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
        "--only", type=int, nargs="+", choices=_NUMBERS, metavar="NUMBER", help="some of the questions"
    )
    parser.add_argument(
        "--sleep", type=float, default=pace.sleep, metavar="SECONDS",
        help="how long a function sleeps to meet API Gateway's 29 s (%(default)g; less where time is scaled)",
    )  # fmt: skip
    parser.add_argument(
        "--idle", type=float, default=pace.idle, metavar="SECONDS",
        help="how long to watch for the 10 idle minutes (%(default)g; less where time is scaled)",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Ask and print; returns 0 if all that was answered holds, 1 if not, 2 if nothing could be asked."""
    given = parser().parse_args(arguments)
    try:
        return read_bill(given.bill) if given.bill else ask(given)
    except ProbeError as exc:
        print(f"probe: {exc}", file=sys.stderr)
        return 2


def ask(given: argparse.Namespace) -> int:
    """Ask the stack.

    Raises:
        ProbeError: It cannot be reached.
    """
    began = time.monotonic()
    owned = account.connect(given.stack) if given.stack else None
    probe = Probe(given.url, Pace(sleep=given.sleep, idle=given.idle), owned)
    with probe.open() as connection:
        connection.call("who")
    asked = [question for question in QUESTIONS if given.only is None or question.number in given.only]
    results = run(
        probe, asked, lambda question: print(f"{question.number:2}  {question.text}", file=sys.stderr)
    )
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    if given.json:
        print(report.as_json(results, url=given.url, day=day, seconds=time.monotonic() - began))
    else:
        print(report.as_text(results))
    return 0 if all_hold(results) else 1


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
    print(json.dumps(completed, indent=2, ensure_ascii=False))
    return 0 if completed["summary"]["does not hold"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
