"""``emissary forward``: a local port that leads to a target, until somebody ends it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Iterator
from typing import Final, TextIO

from emissary_lib.cli.signals import handled
from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import ListenError
from emissary_lib.protocol.targets.allow_list import Target

#: Where to listen unless told otherwise: for programs of this machine only, at a free port.
LISTEN: Final = ("127.0.0.1", 0)


@contextlib.contextmanager
def listening(
    dialer: Dialer, target: Target, listen: tuple[str, int], timeout: float, *, check: bool
) -> Iterator[tuple[str, int]]:
    """Lead a local address to ``target``; gives the address.

    Args:
        dialer: Dials once for each connection.
        target: Where it leads to.
        listen: Where to listen; port 0 takes a free one.
        timeout: Seconds for each dial.
        check: Dial once before listening, and close again.

    Raises:
        ListenError: The address is in use, or not of this machine: at once.
        EmissaryError: With ``check``: what :meth:`Dialer.dial` raises.
    """
    if check:
        dialer.dial((target.host, target.port), timeout).close()
    forward = dialer.forward((target.host, target.port), listen, timeout)
    try:
        address = forward.__enter__()
    except OSError as exc:
        # Python's own text names the address again; names that do not resolve have negative numbers.
        reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
        raise ListenError(
            f"cannot listen on {shown(listen)}: {reason}; choose another address, or port 0 for a free one"
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
    with handled(lambda number, _frame: stopped.append(number), signal.SIGINT, signal.SIGTERM) as wait:
        if json_line:
            ready = {"host": host, "port": port, "target": str(target), "pid": os.getpid()}
            print(json.dumps(ready), file=out, flush=True)
        else:
            line = f"Listening on {shown(address)}, which leads to {target}. Ctrl-C ends it."
            print(line, file=out, flush=True)
        while not stopped:
            wait()


def shown(address: tuple[str, int]) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def warnings_shown(err: TextIO) -> Iterator[None]:
    """Show the library's warnings, of failed dials above all, as this command's messages."""
    handler = logging.StreamHandler(err)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("emissary: %(message)s"))
    logger = logging.getLogger("emissary_lib")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
