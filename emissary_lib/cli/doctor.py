"""``emissary doctor``: checks the way to a target, and says what failed and what to do."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final, TextIO

from emissary_lib.cli.command import seconds, target
from emissary_lib.cli.output import GREEN, RED, YELLOW, in_colour, paint, standard_output
from emissary_lib.cli.settings import add_settings, settings_reader
from emissary_lib.doctor.service_probes import SERVICE_PROBES, ServiceProbe, service_probe_for
from emissary_lib.exit_status import DIALLING, DOCTOR, Exit

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.client.settings import SettingsReader
    from emissary_lib.doctor.checks import Result
    from emissary_lib.doctor.run import Dependencies
    from emissary_lib.protocol.targets.allow_list import Target

SUMMARY: Final = "check the way to a target; say what failed and what to do"
DESCRIPTION: Final = """\
Check the way to a target step by step: settings, the gateway's name, TCP, TLS, clocks, $connect, $default,
the bridge's version, proof and health, and with a TARGET the allow-list, the relay, the target's name and
port in the VPC, the round trip, and how the target answers. Each check prints its result and its duration;
the first that fails also prints what to do, and the exit status is its own. Nothing is changed, and no login
is tried.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary doctor
  emissary doctor db.internal:5432
  emissary doctor cache.internal:7000 --service redis --json
"""
EXITS: Final = DIALLING | DOCTOR | {Exit.CUT_OFF}

#: What ``--service`` takes: a protocol, none at all, or whatever the port tells.
SERVICES: Final = ("auto", "none", *SERVICE_PROBES)

#: How a terminal shows the status of a check, where that is worth a colour.
_COLOURS: Final = {"ok": GREEN, "warning": YELLOW, "failed": RED}

#: Longest wait of one check unless told otherwise, in seconds: API Gateway itself waits 29 s for $connect.
TIMEOUT: Final = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument(
        "target",
        type=target,
        nargs="?",
        metavar="TARGET",
        help="host:port inside the VPC; without one, check gateway and bridge only",
    )
    parser.add_argument(
        "--service",
        choices=SERVICES,
        default="auto",
        help="what the target speaks (default: auto, by its port; none to skip that check)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"longest wait of one check (default: {TIMEOUT:g})",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead (docs/doctor.md)")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Run the checks with the settings of this process."""
    return run_doctor(
        args.target,
        reader=settings_reader(args),
        out=standard_output(),
        service=args.service,
        timeout=args.timeout,
        json_line=args.json,
    )


def run_doctor(
    target: Target | None,
    *,
    reader: SettingsReader,
    out: TextIO,
    service: str = "auto",
    timeout: float = TIMEOUT,
    json_line: bool = False,
    dependencies: Dependencies | None = None,
) -> Exit:
    """Run the checks and print the report.

    Args:
        target: What is to be reached inside the VPC; ``None`` to look at gateway and bridge only.
        reader: Finds the settings.
        out: Where to print.
        service: One of :data:`SERVICES`.
        timeout: Longest wait of one check, in seconds.
        json_line: Print one line of JSON at the end instead of text as it comes.
        dependencies: What the checks need from outside; ``None`` for the real network.

    Returns:
        The exit status of the check that failed.
    """
    from emissary_lib.doctor import render
    from emissary_lib.doctor.configuration import Settings
    from emissary_lib.doctor.run import examine
    from emissary_lib.transport.proxy import find_proxy

    settings = Settings(reader, find_proxy, timeout)

    coloured = in_colour(out, os.environ)

    def print_result(result: Result) -> None:
        if json_line:
            return
        status, gap, rest = render.line(result).partition(" ")
        colour = _COLOURS.get(result.finding.status.value)
        shown = paint(status, colour) if coloured and colour else status
        print(f"{shown}{gap}{rest}", file=out, flush=True)

    report = examine(
        settings, target, _service_probe(service, target), dependencies=dependencies, on_result=print_result
    )
    print(render.as_json(report) if json_line else render.summary(report), file=out, flush=True)
    return report.exit


def _service_probe(service: str, target: Target | None) -> ServiceProbe | None:
    if service == "auto":
        return service_probe_for(target.port) if target else None
    return SERVICE_PROBES.get(service)
