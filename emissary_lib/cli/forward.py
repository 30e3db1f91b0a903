"""``emissary forward``: a local port that leads to a target, until somebody ends it."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from emissary_lib.cli.command import positive, target
from emissary_lib.cli.dials import LiveLine, show_dials
from emissary_lib.cli.settings import add_settings, dialer_of
from emissary_lib.cli.signals import handle_signals
from emissary_lib.client import DIAL_TIMEOUT
from emissary_lib.exit_status import DIALLING, Exit

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.client.dialer import Dialer
    from emissary_lib.client.forward import ForwardedAddress
    from emissary_lib.protocol.targets.allow_list import Target

SUMMARY: Final = "a local port that leads to a target, until Ctrl-C"
DESCRIPTION: Final = """\
Listen on a local address; each connection to it becomes a tunnel of its own to the target. A connection that
fails is reported on standard error; the others go on. Whoever can connect to the address reaches the target,
so by default it is an address of this machine only. SIGINT or SIGTERM ends the command and its connections.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary forward db.internal:5432 --listen 127.0.0.1:5433
  emissary forward db.internal:5432 --check --json
"""
EXITS: Final = DIALLING | {Exit.PORT}

#: Where to listen unless told otherwise: for programs of this machine only, at a free port.
LISTEN: Final = ("127.0.0.1", 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument("target", type=target, metavar="TARGET", help="host:port inside the VPC")
    add_dialling(parser)
    parser.add_argument(
        "--listen",
        type=_listen_address,
        default=LISTEN,
        metavar="[HOST:]PORT",
        help=f"local address; port 0 takes a free one (default: {format_address(LISTEN)})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready: host, port, target, pid"
    )


def add_dialling(parser: argparse.ArgumentParser) -> None:
    """Declare the options that ``forward`` and ``exec`` have in common."""
    parser.add_argument(
        "--timeout",
        type=positive,
        default=DIAL_TIMEOUT,
        metavar="SECONDS",
        help=f"longest dial (default: {DIAL_TIMEOUT:g})",
    )
    parser.add_argument(
        "--check", action="store_true", help="dial once first; if that fails, end with a status that says why"
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Listen until a signal comes."""
    with listen(args, [args.target], args.listen) as (address,):
        run_until_stopped(address, args.target, json_line=args.json, out=sys.stdout)
        address.forward.give_up_dialling()  # whoever asked us to end does not want to wait for that
    return Exit.OK


@contextlib.contextmanager
def listen(
    args: argparse.Namespace, targets: Sequence[Target], local: tuple[str, int]
) -> Iterator[list[ForwardedAddress]]:
    """Forward as the options of :func:`add_dialling` say; failed dials are shown on standard error.

    Gives the local address of each target.

    Raises:
        ConfigError: The settings are wrong.
        ListenError, EmissaryError: As :func:`forward_to`.
    """
    with (
        show_warnings(sys.stderr),
        dialer_of(args) as dialer,
        contextlib.ExitStack() as listening,
    ):
        yield [
            listening.enter_context(forward_to(dialer, target, local, args.timeout, check=args.check))
            for target in targets
        ]


@contextlib.contextmanager
def forward_to(
    dialer: Dialer, target: Target, local: tuple[str, int], timeout: float, *, check: bool
) -> Iterator[ForwardedAddress]:
    """Lead a local address to ``target``; gives the address.

    Args:
        dialer: Dials once for each connection.
        target: Where it leads to.
        local: Where to listen; port 0 takes a free one.
        timeout: Seconds for each dial.
        check: Dial once before listening, and close again.

    Raises:
        ListenError: The address is in use, or not of this machine: at once.
        EmissaryError: With ``check``: what :meth:`Dialer.dial` raises.
    """
    from emissary_lib.exceptions import ListenError

    if check:
        dialer.dial((target.host, target.port), timeout).close()
    forward = dialer.forward((target.host, target.port), local, timeout)
    try:
        address = forward.__enter__()
    except OSError as exc:
        # Python's own text names the address again; names that do not resolve have negative numbers.
        reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
        raise ListenError(
            f"cannot listen on {format_address(local)}: {reason}; choose another address, or port 0 for a "
            "free one"
        ) from exc
    try:
        yield address
    finally:
        forward.close()


def run_until_stopped(address: tuple[str, int], target: Target, *, json_line: bool, out: TextIO) -> None:
    """Say where we listen, and wait for SIGINT or SIGTERM.

    Args:
        address: Where.
        target: Where it leads to.
        json_line: Say so as one line of JSON: ``host``, ``port``, ``target``, ``pid``.
        out: Where to say it.
    """
    host, port = address
    stopped: list[int] = []
    with handle_signals(lambda number, _frame: stopped.append(number), signal.SIGINT, signal.SIGTERM) as wait:
        if json_line:
            ready = {"host": host, "port": port, "target": str(target), "pid": os.getpid()}
            print(json.dumps(ready), file=out, flush=True)
        else:
            line = f"Listening on {format_address(address)}, which leads to {target}. Ctrl-C ends it."
            print(line, file=out, flush=True)
        while not stopped:
            wait()


def format_address(address: tuple[str, int]) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def show_warnings(err: TextIO) -> Iterator[None]:
    """Show the library's warnings, of failed dials above all, as this command's messages.

    On a terminal, what a dial waits for that takes long stands in its last line until it is over.
    """
    line = LiveLine(err)
    handler = _Warnings(err, line)
    logger = logging.getLogger("emissary_lib")
    logger.addHandler(handler)
    try:
        with show_dials(line.show) if line.usable else contextlib.nullcontext():
            yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.StreamHandler[TextIO]):
    def __init__(self, err: TextIO, line: LiveLine) -> None:
        super().__init__(err)
        self._line = line
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("emissary: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with self._line.aside():
            super().emit(record)


def _listen_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``PORT``; port 0 is any free one."""
    host, _colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT, with a port from 0 to 65535")
    return host.removeprefix("[").removesuffix("]") or LISTEN[0], int(port)
