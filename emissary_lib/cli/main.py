"""The ``emissary`` command: reads the command line, runs a command, turns errors into exit statuses."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from emissary_lib._version import __version__
from emissary_lib.cli import config, doctor, execute, forward, keys, sessions
from emissary_lib.cli.command import EXIT_STATUSES, Command, add_parser
from emissary_lib.cli.output import checked_output, complain
from emissary_lib.exceptions import EmissaryError, OutputError
from emissary_lib.exit_status import exit_status

#: The library's own commands, in the order of ``--help``.
COMMANDS: Final[dict[str, Command]] = {
    "exec": execute,
    "forward": forward,
    "doctor": doctor,
    "config": config,
    "keys": keys,
    "sessions": sessions,
}

#: Commands that another package adds where it is installed, by the module that provides them.
OPTIONAL: Final = {"local": "emissary_local.command"}

#: The extra of emissary-lib that brings the packages which a command needs beyond the library's own.
EXTRAS: Final = {"keys": "aws", "sessions": "aws", "local": "local"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``None`` for those of the process.

    Returns:
        The exit status, one of those that ``--help`` lists, or that of the program that ``exec`` has run.

    Raises:
        SystemExit: By argparse: after ``--help`` and ``--version``, and with status 2 on wrong usage.
    """
    try:
        with checked_output():
            return _run(argv)
    except OutputError as error:
        return _complain(error, exit_status(error))


def _run(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    command: Command = args.command
    try:
        return command.run(args)
    except ModuleNotFoundError as error:
        if args.extra is None:
            raise
        return _complain(
            f"the package {error.name} is not installed: pip install 'emissary-lib[{args.extra}]'",
            exit_status(error),
        )
    except EmissaryError as error:
        return _complain(error, exit_status(error))
    except KeyboardInterrupt as error:
        return _complain("interrupted", exit_status(error))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: As :func:`main`.
    """
    given, words = execute.split(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(given)
    args.words = words
    return args


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, but for the program that ``exec`` runs; see :func:`parse`."""
    top = argparse.ArgumentParser(
        prog="emissary",
        description="Reach databases inside a private VPC through API Gateway and Lambda.",
        epilog="Each command explains itself: emissary COMMAND --help\n\n" + EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"emissary {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in {**COMMANDS, **_optional_commands()}.items():
        made = add_parser(
            subparsers,
            name,
            summary=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
        )
        made.set_defaults(command=command, extra=EXTRAS.get(name))
        command.add_arguments(made)
    return top


def _optional_commands() -> dict[str, Command]:
    found: dict[str, Command] = {}
    for name, module in OPTIONAL.items():
        try:
            found[name] = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(str(error.name)):
                raise
    return found


def _complain(error: object, status: int) -> int:
    complain(error)
    return status
