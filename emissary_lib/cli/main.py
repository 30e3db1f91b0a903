"""The ``emissary`` command: reads the command line, runs a command, turns errors into exit statuses.

It loads the command that was chosen and no other, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from emissary_lib._version import __version__
from emissary_lib.cli.command import Command, add_parser, format_exits
from emissary_lib.cli.output import checked_output, complain
from emissary_lib.exit_status import Exit


class Entry(NamedTuple):
    """A command, as far as it is known without being loaded.

    Attributes:
        module: Provides it: see :class:`~emissary_lib.cli.command.Command`.
        summary: The module's ``SUMMARY``.
        extra: The extra of emissary-lib that brings the packages which it needs beyond the library's own.
    """

    module: str
    summary: str
    extra: str | None = None


#: Every command, in the order of ``--help``.
COMMANDS: Final = {
    "exec": Entry("emissary_lib.cli.execute", "run a program with a local port that leads to a target"),
    "forward": Entry("emissary_lib.cli.forward", "local ports or sockets that lead to targets, until Ctrl-C"),
    "socks": Entry(
        "emissary_lib.cli.socks", "a local SOCKS5 server that leads to every target, until Ctrl-C"
    ),
    "connect": Entry("emissary_lib.cli.connect", "standard input and output lead to a target"),
    "doctor": Entry("emissary_lib.cli.doctor", "check the way to a target; say what failed and what to do"),
    "config": Entry("emissary_lib.cli.config", "show the settings in force, and where each comes from"),
    "keys": Entry("emissary_lib.cli.keys", "the shared keys in Secrets Manager: new, list, retire", "aws"),
    "sessions": Entry("emissary_lib.cli.sessions", "list open and past sessions; end a session", "aws"),
    "completion": Entry(
        "emissary_lib.cli.completion", "a script that has a shell complete this command's words"
    ),
    "local": Entry("emissary_local.command", "run the stack on this machine", "local"),
}

#: Commands that are given words which are none of their own arguments: a program, a line to complete.
_TAKING_WORDS: Final = ("exec", "completion")

#: What stands before those words.
_SEPARATOR: Final = "--"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``None`` for those of the process.

    Returns:
        The exit status, one of those that ``--help`` lists, or that of the program that ``exec`` has run.

    Raises:
        SystemExit: By argparse: after ``--help`` and ``--version``, and with status 2 on wrong usage.
    """
    entry: Entry | None = None
    try:
        with checked_output():
            args = parse(argv)
            entry = args.entry
            command: Command = args.command
            return command.run(args)
    except SystemExit:
        raise
    except BaseException as error:
        return _fail(error, entry)


def _fail(error: BaseException, entry: Entry | None) -> int:
    """Say what became of a command; returns its exit status."""
    from emissary_lib.cli.failure import DEBUG, explain  # loads what --help can do without

    failure = explain(error, entry and entry.extra)
    if os.environ.get(DEBUG):
        import traceback

        complain("".join(traceback.format_exception(error)))
    if failure.message:
        complain(failure.message)
    return failure.status


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: As :func:`main`.
    """
    given, words = list(sys.argv[1:] if argv is None else argv), []
    chosen = next((word for word in given if not word.startswith("-")), "")
    if chosen in _TAKING_WORDS and _SEPARATOR in given:  # argparse would take options among them for its own
        at = given.index(_SEPARATOR)
        given, words = given[:at], given[at + 1 :]
    top = parser({chosen})
    if given and given[0].startswith("-") and given[0].partition("=")[0] not in top._option_string_actions:
        top.error(
            f"{given[0]} stands before the command; options stand behind it: emissary COMMAND {given[0]}"
        )
    if chosen and chosen not in COMMANDS:
        import difflib  # takes time that no other command line has to wait for

        near = difflib.get_close_matches(chosen, offered(), n=1)
        top.error(f"there is no command {chosen}" + (f"; did you mean {near[0]}?" if near else ""))
    args, unknown = top.parse_known_args(given)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of that command
    args.words = words
    return args


def offered() -> dict[str, Entry]:
    """The commands whose package is installed."""
    return {
        name: entry
        for name, entry in COMMANDS.items()
        if importlib.util.find_spec(entry.module.partition(".")[0])
    }


def parser(loaded: Collection[str] | None = None) -> argparse.ArgumentParser:
    """The parser of the command line, but for the program that ``exec`` runs; see :func:`parse`.

    Args:
        loaded: Commands that are to be complete; of the others it knows the name and the summary. ``None``
            for all of them.
    """
    top = argparse.ArgumentParser(
        prog="emissary",
        description="Reach databases inside a private VPC through API Gateway and Lambda.",
        epilog=f"Each command explains itself: emissary COMMAND --help\n\n{format_exits(list(Exit))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"emissary {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, entry in offered().items():
        if loaded is not None and name not in loaded:
            subparsers.add_parser(name, help=entry.summary)
            continue
        command: Command = importlib.import_module(entry.module)
        made = add_parser(
            subparsers,
            name,
            summary=entry.summary,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
            exits=command.EXITS,
        )
        made.set_defaults(command=command, entry=entry)
        command.add_arguments(made)
    return top
