"""``emissary exec``: a program run with a local port that leads to a target, for as long as it runs."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final, TextIO

from emissary_lib.cli.forward import LISTEN, add_dialling, listen
from emissary_lib.cli.signals import handle_signals, typed_at_our_terminal
from emissary_lib.exit_status import DIALLING, Exit, exit_status

SUMMARY: Final = "run a program with a local port that leads to a target"
DESCRIPTION: Final = """\
Run a program that connects to the target through a local port, which exists for as long as the program runs.
{host} and {port} in its arguments, and EMISSARY_HOST and EMISSARY_PORT in its environment, give the address.
Each connection becomes a tunnel of its own; one that fails is reported on standard error. Signals are passed
on to the program, and its exit status is passed back. What the program wrote before it ended is passed on
first. If the program ends with 0 though a connection of its own was not dialled, the status is that of the
dial; 9 if bytes that it wrote were lost.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary exec db.internal:5432 -- psql -h {host} -p {port} -U app app
  emissary exec db.internal:5432 -- alembic -x host={host} -x port={port} upgrade head
  emissary exec --check db.internal:3306 -- sh -c 'mysql -h $EMISSARY_HOST -P $EMISSARY_PORT -u app app'
"""
EXITS: Final = DIALLING | {Exit.CUT_OFF, Exit.PORT, Exit.NOT_STARTED}

#: What stands between the arguments of ``exec`` and the program that it runs.
_SEPARATOR: Final = "--"

#: Variables that the program finds in its environment.
HOST_VARIABLE: Final = "EMISSARY_HOST"
PORT_VARIABLE: Final = "EMISSARY_PORT"

#: Signals that are passed on.
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Exit status of a program that a signal ended, less the signal, as shells have it.
_SIGNALLED: Final = 128


def split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut a command line of ``exec`` where the program begins: argparse would take options of the program."""
    if "exec" in given[:1] and _SEPARATOR in given:
        at = given.index(_SEPARATOR)
        return list(given[:at]), list(given[at + 1 :])
    return list(given), []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.usage = f"{parser.prog} [-h] [--timeout SECONDS] [--check] TARGET -- COMMAND [ARGUMENT ...]"
    add_dialling(parser)


def run(args: argparse.Namespace) -> int:
    """Listen for as long as the program runs."""
    if not args.words:
        args.parser.error("name the command to run behind --, as in: emissary exec db.internal:5432 -- psql")
    outcome = Outcome()
    stops: list[int] = []
    # As long as the program runs, its signals are passed on; from then on they end our wait.
    with (
        listen(args, LISTEN) as address,
        handle_signals(lambda number, _frame: stops.append(number), *_PASSED_ON),
    ):
        address.forward.on_failure = outcome.note
        status = run_program(args.words, address, os.environ)
        lost = address.forward.finish(stopped=lambda: bool(stops))
    return outcome.status(status, lost=lost, err=sys.stderr)


class Outcome:
    """What became of a program's connections, and what ``exec`` makes of it.

    Thread safety: :meth:`note` from any thread.
    """

    def __init__(self) -> None:
        self._undialled: Exception | None = None
        self._lost = False
        self._harmless: list[Exception] = []

    def note(self, error: Exception) -> None:
        """A connection failed; unless it did no harm, that was reported."""
        from emissary_lib.exceptions import TunnelResetError

        if not isinstance(error, TunnelResetError):
            self._undialled = self._undialled or error
        elif error.whole:
            self._harmless.append(error)
        else:
            self._lost = self._lost or error.lost > 0 or error.untaken

    def status(self, program: int, *, lost: bool, err: TextIO) -> int:
        """The exit status.

        Args:
            program: The program's own; any but 0 is kept.
            lost: Whether bytes of its were lost at its end.
            err: Where to show what may explain a failure of the program's.
        """
        if program:
            for error in self._harmless:
                print(f"emissary: a forwarded connection failed: {error}", file=err)
            return program
        if self._undialled:
            return exit_status(self._undialled)
        return Exit.CUT_OFF if lost or self._lost else Exit.OK


def fill_placeholders(words: Sequence[str], host: str, port: int) -> list[str]:
    """The words with ``{host}`` and ``{port}`` replaced; other braces stay."""
    return [word.replace("{host}", host).replace("{port}", str(port)) for word in words]


def run_program(words: Sequence[str], address: tuple[str, int], environ: Mapping[str, str]) -> int:
    """Run a program that is to connect to ``address``, and wait for its end.

    It has our standard input, output and error. SIGINT, SIGTERM and SIGHUP are passed on to it, but for a
    Ctrl-C, which the terminal sends to both of us.

    Args:
        words: The program and its arguments, with placeholders; see :func:`fill_placeholders`.
        address: Host and port.
        environ: Its environment, beside :data:`HOST_VARIABLE` and :data:`PORT_VARIABLE`.

    Returns:
        Its exit status, or 128 and its signal.

    Raises:
        CommandError: It cannot be started.
        ValueError: If called outside the main thread.

    Blocking: until its end.
    """
    host, port = address
    program: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return  # it only ends the wait
        if program is None:
            early.append(number)
        elif number != signal.SIGINT or not typed_at_our_terminal():
            program.send_signal(number)

    environment = {**environ, HOST_VARIABLE: host, PORT_VARIABLE: str(port)}
    with handle_signals(pass_on, *_PASSED_ON, signal.SIGCHLD) as wait:
        try:
            program = subprocess.Popen(fill_placeholders(words, host, port), env=environment)
        except (OSError, ValueError) as exc:  # ValueError: a zero byte in a word
            from emissary_lib.exceptions import CommandError

            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise CommandError(f"cannot start {words[0]}: {reason}; check its name and PATH") from exc
        for number in early:
            program.send_signal(number)
        while (status := program.poll()) is None:
            wait()
    return _SIGNALLED - status if status < 0 else status
