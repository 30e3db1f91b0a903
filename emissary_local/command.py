"""``emissary local``: the stack of a SAM template on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.targets.allow_list import Target
from emissary_local.faults.settings import Faults

SUMMARY: Final = "run the stack on this machine"
DESCRIPTION: Final = """\
Run the whole stack of a SAM template on this machine: API Gateway's WebSocket API, Lambda, DynamoDB, each as
strict as AWS. It prints the settings to dial with, and at the end what AWS would have billed. Linux only.
"""
EPILOG: Final = """\
examples:
  emissary local --target 127.0.0.1:5432
  emissary local --target 127.0.0.1:5432 --seed 7 --fault reorder=0.3 --fault cut_every=30
  emissary local --target 127.0.0.1:5432 --time-scale 0.01 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument(
        "--template",
        default="template.yaml",
        type=_template,
        metavar="FILE",
        help="the SAM template; the functions' code is looked for beside it (default: template.yaml)",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        type=_target,
        metavar="HOST:PORT",
        help="a target that may be reached; may be given again",
    )
    parser.add_argument("--seed", type=int, default=0, help="which faults are drawn (default: 0)")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="NAME=VALUE",
        help="something to do wrong on purpose, a setting of emissary_local.Faults (a wrong name lists "
        "them all); may be given again",
    )
    parser.add_argument("--reorder", type=_share, metavar="SHARE", help="the same as --fault reorder=SHARE")
    parser.add_argument(
        "--time-scale",
        type=_positive,
        metavar="FACTOR",
        help="factor on AWS's time limits: 0.01 makes six seconds of ten minutes (default: 1)",
    )
    parser.add_argument(
        "--account-concurrency",
        type=_count,
        default=1000,
        metavar="N",
        help="Lambda executions at once, of all functions together (default: 1000)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="serve wss:// with a certificate made for this run"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, one at the end"
    )


def run(args: argparse.Namespace) -> int:
    """Run the stack until a signal comes; returns the exit status."""
    from emissary_local.cloud import run_foreground

    drawn = dict(args.fault)
    if args.reorder is not None:
        drawn["reorder"] = args.reorder
    return run_foreground(
        args.template,
        [(target.host, target.port) for target in args.target],
        json_line=args.json,
        out=sys.stdout,
        faults=Faults(seed=args.seed, **drawn),
        account_concurrency=args.account_concurrency,
        time_scale=args.time_scale,
        tls=args.tls,
    )


def _template(text: str) -> str:
    """The path of a file that exists."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"there is no {text} here: run this from the project's folder, or name the file"
        )
    return text


def _target(text: str) -> Target:
    """``HOST:PORT``."""
    try:
        return Target.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _fault(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, a setting of :class:`Faults`; values of a list are separated by commas."""
    known = {each.name: each.default for each in fields(Faults) if each.name != "seed"}
    name, equals, value = text.partition("=")
    if not equals or name not in known:
        what = f"there is no fault named {name!r}" if equals else f"{text!r} is no NAME=VALUE"
        raise argparse.ArgumentTypeError(f"{what}; the names are: {', '.join(known)}")
    try:
        read: float | Sequence[str]
        read = tuple(filter(None, value.split(","))) if isinstance(known[name], tuple) else float(value)
        Faults(**{name: read})  # type: ignore[arg-type]
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name}: {value!r} is no number") from None
    return name, read
