"""What the commands that open a local address have in common: arguments, listening, and what is shown."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from emissary_lib.cli.command import seconds
from emissary_lib.cli.dials import LiveLine, show_dials
from emissary_lib.cli.settings import add_settings, dialer_of
from emissary_lib.client import DIAL_TIMEOUT

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.client.dialer import Dialer
    from emissary_lib.client.forward import Forward, ForwardedAddress
    from emissary_lib.client.listening import LocalAddress
    from emissary_lib.protocol.targets.allow_list import Target

    #: A target, and where to listen for it.
    Place = tuple[Target, LocalAddress]

    #: Told of each forward before it listens; ``None`` is any target.
    Watch = Callable[[Target | None, Forward], None]


class Line(Protocol):
    """The last line of a terminal, as of :class:`LiveLine`."""

    @property
    def usable(self) -> bool:
        """Whether there is a terminal."""

    def show(self, *texts: str) -> None:
        """Show what a dial waits for, in words that are ever shorter; ``""`` for nothing."""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """For others to write to the terminal under."""


#: Where to listen unless told otherwise: for programs of this machine only, at a free port.
LISTEN: Final = ("127.0.0.1", 0)


def add_dialling(parser: argparse.ArgumentParser) -> None:
    """Declare the options that the commands which may dial before all else have in common."""
    add_dialer(parser)
    parser.add_argument(
        "--check", action="store_true", help="dial once first; if that fails, end with a status that says why"
    )


def add_dialer(parser: argparse.ArgumentParser) -> None:
    """Declare the options that all commands which dial have in common."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DIAL_TIMEOUT,
        metavar="SECONDS",
        help=f"longest dial (default: {DIAL_TIMEOUT:g})",
    )
    add_settings(parser)


@contextlib.contextmanager
def listen_all(
    args: argparse.Namespace,
    places: Sequence[Place],
    watch: Watch = lambda target, forward: None,
    line: Line | None = None,
) -> Iterator[list[ForwardedAddress]]:
    """Forward as the arguments of :func:`add_dialling` say; failed dials are shown on standard error.

    Args:
        args: The arguments.
        places: As of :func:`forward_all`.
        watch: As of :func:`forward_all`.
        line: As of :func:`show_warnings`.

    Raises:
        ConfigError: The settings are wrong.
        ListenError, EmissaryError: As :func:`forward_all`.
    """
    with show_warnings(sys.stderr, line), dialer_of(args) as dialer:
        with forward_all(dialer, places, args.timeout, check=args.check, watch=watch) as addresses:
            yield addresses


@contextlib.contextmanager
def forward_all(
    dialer: Dialer,
    places: Sequence[Place],
    timeout: float,
    *,
    check: bool,
    watch: Watch = lambda target, forward: None,
) -> Iterator[list[ForwardedAddress]]:
    """Lead a local address to each target; gives the addresses, in order.

    Args:
        dialer: Dials once for each connection.
        places: Targets, and where to listen; port 0 takes a free one.
        timeout: Seconds for each dial.
        check: Dial each once before listening, and close again.
        watch: Told of each forward before it listens.

    Raises:
        ListenError: An address is in use, or not of this machine: at once, and none of the others is left.
        EmissaryError: With ``check``: what :meth:`Dialer.dial` raises.
    """
    if check:
        for target, _local in places:
            dialer.dial((target.host, target.port), timeout).close()
    forwards: list[Forward] = []
    addresses: list[ForwardedAddress] = []
    try:
        for target, local in places:
            forward = dialer.forward((target.host, target.port), local, timeout)
            watch(target, forward)
            addresses.append(begin(forward, local))
            forwards.append(forward)
        yield addresses
    finally:
        for forward in forwards:
            forward.stop()
        for forward in forwards:
            forward.close()


def begin(forward: Forward, local: LocalAddress) -> ForwardedAddress:
    """Have a forward listen, on ``local``.

    Raises:
        ListenError: As :func:`forward_all`.
    """
    from emissary_lib.exceptions import ListenError, LocalResourceError
    from emissary_lib.system import said_by_the_system

    try:
        return forward.__enter__()
    except LocalResourceError:  # an OSError that is not the address's
        raise
    except OSError as exc:
        reason: str | None
        if isinstance(local, tuple):
            # Names that do not resolve have negative numbers, and words of their own.
            known = bool(exc.errno and exc.errno > 0)
            reason = said_by_the_system(exc.errno or 0) if known else exc.strerror
            if not known or exc.errno == errno.EADDRNOTAVAIL:
                advice = "choose another address of this machine"
            elif exc.errno == errno.EACCES:
                advice = "choose a port from 1024 on, or port 0 for a free one"
            else:
                advice = "choose another address, or port 0 for a free one"
        else:
            reason, advice = exc.strerror, "choose another path"
        raise ListenError(f"cannot listen on {format_local(local)}: {reason}; {advice}") from exc


def format_local(local: LocalAddress) -> str:
    """What was asked for, as it is written on the command line."""
    return format_address(local) if isinstance(local, tuple) else os.fspath(local)


def format_address(address: tuple[str, int]) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def show_warnings(err: TextIO, line: Line | None = None) -> Iterator[None]:
    """Show the library's warnings, of failed dials above all, as this command's messages.

    On a terminal, what a dial waits for that takes long stands in its last line until it is over.

    Args:
        err: Where.
        line: What keeps the terminal's last line; ``None`` for one of its own on ``err``.
    """
    kept = line or LiveLine(err)
    handler = _Warnings(err, kept)
    logger = logging.getLogger("emissary_lib")
    logger.addHandler(handler)
    try:
        with show_dials(kept.show) if kept.usable else contextlib.nullcontext():
            yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.StreamHandler[TextIO]):
    def __init__(self, err: TextIO, line: Line) -> None:
        super().__init__(err)
        self._line = line
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("emissary: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with self._line.aside():
            super().emit(record)
