"""``emissary local``: the stack of a template on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TextIO

from emissary_local.errors import LocalCloudError, MissingPackagesError, SettingsError

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_local.cloud import Cloud

SUMMARY: Final = "run the stack on this machine"
DESCRIPTION: Final = """\
Run the whole stack of a template, SAM's or CloudFormation's, on this machine: API Gateway's WebSocket API,
Lambda, DynamoDB, each as strict as AWS. It prints the settings to dial with, and at the end what AWS would
have billed. Linux only.
"""
EPILOG: Final = """\
examples:
  emissary local --target 127.0.0.1:5432
  emissary local --target 127.0.0.1:5432 --seed 7 --fault reorder=0.3 --fault cut_every=30
  emissary local --target 127.0.0.1:5432 --time-scale 0.01 --json
"""
EXITS: Final = frozenset({3})  # wrong settings

#: How often :func:`run_foreground` looks whether the cloud process is alive, in seconds.
LOOK_EVERY: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument(
        "--template",
        default="template.yaml",
        type=_template,
        metavar="FILE",
        help="the template; the functions' code is looked for beside it (default: template.yaml)",
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
        "--cpu-share",
        type=_positive,
        metavar="FACTOR",
        help="hold each function to the share of a processor that comes with its memory (1,769 MB: a whole "
        "one), times this factor (default: as much as there is)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="serve wss:// with a certificate made for this run"
    )
    parser.add_argument(
        "--domain-port",
        action="store_true",
        help="put the port into requestContext.domainName, which has none on AWS: for code that makes the "
        "address of @connections of it",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, one at the end"
    )


def run(args: argparse.Namespace) -> int:
    """Run the stack until a signal comes; returns the exit status.

    Raises:
        EmissaryError: If it cannot start, or its process dies.
        MissingPackagesError: If packages of the local extra are not installed.
    """
    from emissary_local.cloud import Cloud
    from emissary_local.emissary import application_of, error_for_command
    from emissary_local.faults.settings import Faults
    from emissary_local.process import check_requirements

    faults = dict(args.fault)
    if args.reorder is not None:
        faults["reorder"] = args.reorder
    try:
        check_requirements()
        from emissary_local.template.sam import load_document  # needs the local extra

        document = load_document(args.template)
        cloud = Cloud(
            args.template,
            application=application_of(frozenset(document.get("Parameters") or {}), args.target),
            faults=Faults(seed=args.seed, **faults),
            account_concurrency=args.account_concurrency,
            cpu_share=args.cpu_share,
            time_scale=args.time_scale,
            tls=args.tls,
            domain_port=args.domain_port,
        )
        return run_foreground(cloud, json_line=args.json, out=sys.stdout)
    except MissingPackagesError:
        raise
    except LocalCloudError as error:
        raise error_for_command(error) from error


def run_foreground(cloud: Cloud, *, json_line: bool, out: TextIO) -> int:
    """Run ``cloud`` until SIGINT or SIGTERM; then print what it would have cost.

    Args:
        cloud: Not yet started.
        json_line: Print one JSON object a line instead of text: ``url``, ``pid``, the application's facts
            (and ``ca_file`` with TLS) when ready, ``cost``, ``meter``, ``faults`` and ``denials`` (messages)
            at the end.
        out: Where to print.

    Returns:
        The exit status: 0.

    Raises:
        LocalCloudError: If it cannot start, or its process dies.
        ValueError: If called outside the main thread; it handles signals.
    """
    stop = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with cloud:
            print(_greeting(cloud, json_line), file=out, flush=True)
            while not stop.wait(LOOK_EVERY):
                if not cloud.alive:
                    raise LocalCloudError("the cloud process has died")
            meter, met = cloud.meter, cloud.fault_counts
            denied = list(dict.fromkeys(each.message for each in cloud.denials()))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ending = {"cost": meter.cost(), "meter": json.loads(meter.to_json()), "faults": met, "denials": denied}
    counted = "".join(f"\n  {name}: {count}" for name, count in sorted(met.items()))
    bill = f"\n{meter.bill()}" + (f"\nWhat went wrong on purpose:{counted}" if met else "")
    bill += "".join(f"\nRefused: {message}" for message in denied)
    print(json.dumps(ending) if json_line else bill, file=out, flush=True)
    return 0


def _greeting(cloud: Cloud, json_line: bool) -> str:
    application, trust = cloud.application, cloud.ca_file
    if json_line:
        ready = {"url": cloud.url, **application.facts(), "pid": cloud.pid}
        return json.dumps(ready if trust is None else {**ready, "ca_file": trust})
    variables = application.client_variables(cloud.url) or {"WEBSOCKET_URL": cloud.url}
    if trust is not None:
        variables["SSL_CERT_FILE"] = trust
    lines = ["The local cloud is ready. Ctrl-C ends it.", ""]
    lines += [f"  export {name}={shlex.quote(value)}" for name, value in variables.items()]
    notes = application.notes()
    return "\n".join([*lines, "", *notes] if notes else lines)


def _template(text: str) -> str:
    """The path of a file that exists."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"there is no {text} here: run this from the project's folder, or name the file"
        )
    return text


def _target(text: str) -> tuple[str, int]:
    """``HOST:PORT``."""
    from emissary_local.emissary import parse_target

    try:
        return parse_target(text)
    except SettingsError as error:
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
    from emissary_local.faults.settings import Faults

    known = {each.name: each.default for each in fields(Faults) if each.name != "seed"}
    name, equals, value = text.partition("=")
    if not equals or name not in known:
        what = f"there is no fault named {name!r}" if equals else f"{text!r} is no NAME=VALUE"
        raise argparse.ArgumentTypeError(f"{what}; the names are: {', '.join(known)}")
    try:
        read: float | Sequence[str]
        read = tuple(filter(None, value.split(","))) if isinstance(known[name], tuple) else float(value)
        Faults(**{name: read})  # type: ignore[arg-type]
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name}: {value!r} is no number") from None
    return name, read
