"""``emissary exec``: a program run with a local port that leads to a target, for as long as it runs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

from emissary_lib.cli.signals import handled, typed_at_our_terminal
from emissary_lib.exceptions import CommandError

#: What the program finds in its environment.
HOST_VARIABLE: Final = "EMISSARY_HOST"
PORT_VARIABLE: Final = "EMISSARY_PORT"

#: Signals that are passed on.
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Exit status of a program that a signal ended, less the signal, as shells have it.
_SIGNALLED: Final = 128


def filled(words: Sequence[str], host: str, port: int) -> list[str]:
    """The words with ``{host}`` and ``{port}`` replaced; other braces stay."""
    return [word.replace("{host}", host).replace("{port}", str(port)) for word in words]


def run_command(words: Sequence[str], address: tuple[str, int], environ: Mapping[str, str]) -> int:
    """Run a program that is to connect to ``address``, and wait for its end.

    It has our standard input, output and error. SIGINT, SIGTERM and SIGHUP are passed on to it, but for a
    Ctrl-C, which the terminal sends to both of us.

    Args:
        words: The program and its arguments, with placeholders; see :func:`filled`.
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
    with handled(pass_on, *_PASSED_ON, signal.SIGCHLD) as wait:
        try:
            program = subprocess.Popen(filled(words, host, port), env=environment)
        except (OSError, ValueError) as exc:  # ValueError: a zero byte in a word
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise CommandError(f"cannot start {words[0]}: {reason}; check its name and PATH") from exc
        for number in early:
            program.send_signal(number)
        while (status := program.poll()) is None:
            wait()
    return _SIGNALLED - status if status < 0 else status
