"""What the commands share: how one is given to argparse, and values that several of them read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from emissary_lib.exit_status import COMMON, MEANINGS

if TYPE_CHECKING:  # what only some commands read is loaded where they do: --help must not wait for it
    from emissary_lib.protocol.targets.allow_list import Target

Commands = argparse._SubParsersAction


class Command(Protocol):
    """A module that provides one command."""

    @property
    def SUMMARY(self) -> str:
        """One line for the list of commands."""

    @property
    def DESCRIPTION(self) -> str:
        """What the command does."""

    @property
    def EPILOG(self) -> str:
        """Examples that can be pasted."""

    @property
    def EXITS(self) -> Collection[int]:
        """Every exit status that it can have beside those of all commands."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options and arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Run it; returns the exit status.

        Raises:
            EmissaryError: It failed; ``main`` prints the message and finds the exit status.
        """


def add_parser(
    commands: Commands[Any],
    name: str,
    *,
    summary: str,
    description: str,
    epilog: str,
    exits: Collection[int],
) -> argparse.ArgumentParser:
    """Add a command, or an action of one, whose help ends with its exit statuses."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{epilog}\n{format_exits(exits)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(parser=parser)
    return parser


def format_exits(exits: Collection[int]) -> str:
    """These exit statuses and those of all commands, as they stand at the end of a help."""
    shown = {*exits, *COMMON}
    lines = [f"  {status.value:<4} {meaning}\n" for status, meaning in MEANINGS.items() if status in shown]
    return "exit status:\n" + "".join(lines)


def target(text: str) -> Target:
    """``HOST:PORT``."""
    from emissary_lib.protocol.errors import ConfigError
    from emissary_lib.protocol.targets.allow_list import Target

    try:
        return Target.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def seconds(text: str) -> float:
    """A time that a dial may take."""
    from emissary_lib.client.dialer import MAX_TIMEOUT

    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    if value > MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{text} is more than {MAX_TIMEOUT} seconds")
    return value


def key_id(text: str) -> int:
    """A key's id."""
    from emissary_lib.protocol.auth.keys import MAX_KEY_ID

    if not (text.isascii() and text.isdigit() and int(text) <= MAX_KEY_ID):
        raise argparse.ArgumentTypeError(f"{text!r} is no key id; want a number from 0 to {MAX_KEY_ID}")
    return int(text)


def let_options_stand_between(parser: argparse.ArgumentParser) -> None:
    """Let options stand between the targets: argparse takes all of them from one place, or complains."""
    plain = parser.parse_known_args

    def parse(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        parser.parse_known_args = plain  # type: ignore[method-assign]  # which the other one calls
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.parse_known_args = parse  # type: ignore[assignment,method-assign]

    parser.parse_known_args = parse  # type: ignore[assignment,method-assign]
