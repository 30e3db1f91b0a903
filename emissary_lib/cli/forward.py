"""``emissary forward``: local addresses that lead to targets, until somebody ends it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from emissary_lib.cli.command import let_options_stand_between, target
from emissary_lib.cli.dialling import LISTEN, add_dialling, format_address, format_local, listen_all
from emissary_lib.cli.signals import handle_signals, heeded
from emissary_lib.exit_status import DIALLING, Exit
from emissary_lib.system import signals

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.cli.dialling import Place
    from emissary_lib.cli.report import Report
    from emissary_lib.client.forward import ForwardedAddress
    from emissary_lib.client.listening import LocalAddress
    from emissary_lib.protocol.targets.allow_list import Target

SUMMARY: Final = "local ports or sockets that lead to targets, until Ctrl-C"
DESCRIPTION: Final = """\
Listen on a local address for each target; each connection to it becomes a tunnel of its own. A connection
that fails is reported on standard error; the others go on. One whose program hangs up before it is dialled is
given up, unless the program wrote something and closed in good order. Whoever can connect to the address
reaches the target, so by default it is an address of this machine only. SIGINT or SIGTERM ends the command
and its connections.

A PATH, which has a slash in it, is a Unix socket, for this user alone; a directory stands for the name in it
that PostgreSQL's clients look for (.s.PGSQL. and the target's port), as in psql -h DIRECTORY. A Unix socket
cannot tell its program that a connection was cut off: to the program that is an end of file. localhost is
both 127.0.0.1 and ::1.

On a terminal a line shows connections, bytes and the time left of all targets together, as far as it is wide
enough. With --json there is one line for each event: ready (host, port, target, pid; path of a Unix socket)
of each target, and of connections opened (session, expires_at unless it has no end), going_away (the same),
failed (error, message), given_up and closed. The latter have the target, and as connection a number that is
no other's, whatever its target; sent and received are that connection's bytes. systemd is told when all
listen (Type=notify).

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary forward db.internal:5432 --listen 127.0.0.1:5433
  emissary forward db.internal:5432 --listen localhost:5433 cache.internal:6379 --listen 6380
  emissary forward db.internal:5432 --listen /run/db/
  emissary forward db.internal:5432 --check --json
"""
EXITS: Final = DIALLING | {Exit.PORT}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument("targets", type=target, nargs="+", metavar="TARGET", help="host:port inside the VPC")
    add_dialling(parser)
    parser.add_argument(
        "--listen",
        type=local_address,
        action="append",
        default=[],
        metavar="[HOST:]PORT|PATH",
        help="local address, once for each target in their order, or not at all; port 0 takes a free one "
        f"(default: {format_address(LISTEN)})",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each event")
    let_options_stand_between(parser)


def run(args: argparse.Namespace) -> int:
    """Listen until a signal comes."""
    from emissary_lib.cli import report

    places = pair(args.parser, args.targets, args.listen)
    said = report.choose(sys.stdout, json_events=args.json, environ=os.environ)
    try:
        with listen_all(args, places, said.watch, said.line) as addresses:
            run_until_stopped(list(zip(args.targets, addresses, strict=True)), said)
            for address in addresses:  # whoever asked us to end does not want to wait for dials
                address.forward.give_up_dialling()
    finally:
        said.end()
    return Exit.OK


def pair(
    parser: argparse.ArgumentParser, targets: Sequence[Target], given: Sequence[LocalAddress]
) -> list[Place]:
    """Each target with where to listen for it; ends with the usage if they do not fit."""
    if given and len(given) != len(targets):
        want = ", ".join(map(str, targets))
        parser.error(
            f"{len(targets)} target{'s'[: len(targets) > 1]} ({want}), but --listen {len(given)} times: "
            "give it once for each target, in their order, or not at all"
        )
    for number, local in enumerate(given):
        free = isinstance(local, tuple) and local[1] == 0
        if local in given[:number] and not free:
            parser.error(f"--listen {format_local(local)} was given twice; each target needs its own")
    return list(zip(targets, given or [LISTEN] * len(targets), strict=True))


def run_until_stopped(listening: Sequence[tuple[Target | None, ForwardedAddress]], said: Report) -> None:
    """Say where we listen, and wait for SIGINT, SIGTERM or SIGHUP; what was ignored before stays so."""
    from emissary_lib.cli import systemd

    stopped: list[int] = []
    ends = heeded(signals("SIGINT", "SIGTERM", "SIGHUP"))
    with handle_signals(lambda number, _frame: stopped.append(number), *ends) as wait:
        said.ready(listening)
        systemd.notify(systemd.READY)
        while not stopped:
            wait()
        systemd.notify(systemd.STOPPING)


def local_address(text: str) -> LocalAddress:
    """``HOST:PORT``, ``PORT`` or a path; port 0 is any free one."""
    if "/" in text:
        return text
    host, _colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no HOST:PORT, with a port from 0 to 65535, and no PATH, with a slash in it"
        )
    return host.removeprefix("[").removesuffix("]") or LISTEN[0], int(port)
