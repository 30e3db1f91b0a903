"""``emissary connect``: standard input and output lead to a target."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

from emissary_lib.cli.command import target
from emissary_lib.cli.dialling import add_dialer, show_warnings
from emissary_lib.cli.output import standard_output
from emissary_lib.cli.settings import dialer_of
from emissary_lib.cli.signals import handle_signals
from emissary_lib.exit_status import DIALLING, SIGNALLED, Exit
from emissary_lib.system import signals

SUMMARY: Final = "standard input and output lead to a target"
DESCRIPTION: Final = """\
Connect to the target once: what comes on standard input goes to it, and what it sends to standard output. The
end of standard input ends the stream to the target, whose answer is still awaited. The command ends when the
target has ended its own stream, or when nobody is left to read standard output. So it suits ssh's
ProxyCommand and socat's EXEC.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary connect cache.internal:6379
  ssh -o ProxyCommand='emissary connect %h:%p' ec2-user@bastion.internal
  socat UNIX-LISTEN:/tmp/redis.sock,fork EXEC:'emissary connect cache.internal\\:6379'
"""
EXITS: Final = DIALLING | {Exit.CUT_OFF}

#: Signals that end the command, and with it the session in the VPC, at once.
_FATAL: Final = signals("SIGTERM", "SIGHUP")


class _Fatal(BaseException):
    """A signal is to end the process."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.add_argument("target", type=target, metavar="TARGET", help="host:port inside the VPC")
    add_dialer(parser)


def run(args: argparse.Namespace) -> int:
    """Copy until one side is done."""
    from emissary_lib.cli.copying import copy  # loads what --help can do without
    from emissary_lib.client import drain

    sink = standard_output().fileno()
    # A closed descriptor may be anything by now: the first file or socket that is opened gets its number.
    source = None if sys.stdin is None else sys.stdin.fileno()
    ended_by: list[int] = []

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        ended_by.append(number)
        raise _Fatal

    wanted = [each for each in _FATAL if signal.getsignal(each) is not signal.SIG_IGN]  # as under nohup
    try:
        with show_warnings(sys.stderr), dialer_of(args) as dialer, handle_signals(end, *wanted):
            try:
                sock = dialer.dial((args.target.host, args.target.port), args.timeout)
                if not copy(sock, source, sink):
                    return Exit.READER_GONE
                return Exit.CUT_OFF if drain.finish(dialer) else Exit.OK
            finally:
                drain.wait_until_over(dialer)  # or the relay would hold the target for as long as its grace
    except _Fatal:
        os.kill(os.getpid(), ended_by[0])  # as if it had never been caught: its handler is the former again
        return SIGNALLED + ended_by[0]
