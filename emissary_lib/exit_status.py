"""The ``emissary`` command's exit statuses: one table for code, ``--help`` and docs/protocol.md section 8."""

from __future__ import annotations

import enum
import functools
from typing import Final

#: Exit status of a process that a signal ended, less the signal, as shells have it.
SIGNALLED: Final = 128

#: Highest number of a signal, on any system.
_LAST_SIGNAL: Final = 64


class Exit(enum.IntEnum):
    """Exit statuses of every command.

    Of ``emissary exec`` they hold as long as its program was not started; then the program's is passed on,
    unless that is 0 and a connection of its own was not dialled, or bytes that it wrote were lost.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    SETTINGS = 3
    KEY = 4
    GATEWAY = 5
    NOT_ALLOWED = 6
    NOT_REACHED = 7
    TIMED_OUT = 8
    CUT_OFF = 9
    NAME_NOT_FOUND = 10
    REFUSED = 11
    UNREACHABLE = 12
    PORT = 13
    NOT_DONE = 14
    LIMIT = 15
    RESOURCES = 16
    OUTPUT = 17
    GATEWAY_NAME = 20
    GATEWAY_TLS = 21
    CLOCK = 22
    CONNECT = 23
    BRIDGE = 24
    VERSION = 25
    PROOF = 26
    RELAY = 27
    SERVICE = 28
    FAULT = 70
    NOT_STARTED = 127
    INTERRUPTED = 130
    READER_GONE = 141


#: One line for each status, for ``--help``.
MEANINGS: Final[dict[Exit, str]] = {
    Exit.OK: "done",
    Exit.FAILED: "failed in a way that has no status of its own; the message says why",
    Exit.USAGE: "wrong usage, or a package is not installed, or another is in its place",
    Exit.SETTINGS: "wrong settings",
    Exit.KEY: "the key was not accepted, or a clock is off",
    Exit.GATEWAY: "the gateway did not answer, or refused",
    Exit.NOT_ALLOWED: "the target is not on the allow-list",
    Exit.NOT_REACHED: "the target was not reached for another reason than 6, 8, 10, 11, 12; or none can be",
    Exit.TIMED_OUT: "the target, or the dial, took too long",
    Exit.CUT_OFF: "an open tunnel was cut off; of exec: bytes that its program wrote were lost",
    Exit.NAME_NOT_FOUND: "the target's name does not resolve",
    Exit.REFUSED: "the target refused the connection",
    Exit.UNREACHABLE: "there is no route to the target",
    Exit.PORT: "the local address cannot be listened on",
    Exit.NOT_DONE: "of keys and sessions: refused by AWS or by us; only what is printed as done is done",
    Exit.LIMIT: "as many sessions are open as the stack allows",
    Exit.RESOURCES: "this machine has no file descriptor or thread left for it",
    Exit.OUTPUT: "what it had to say cannot be written; what it had to do may be done",
    Exit.GATEWAY_NAME: "of doctor: the gateway's name does not resolve",
    Exit.GATEWAY_TLS: "of doctor: TLS to the gateway fails",
    Exit.CLOCK: "of doctor: this machine's clock is too far from the gateway's",
    Exit.CONNECT: "of doctor: the gateway is there, but throttles, fails, or is something else",
    Exit.BRIDGE: "of doctor: the bridge accepts the connection, but does not answer",
    Exit.VERSION: "of doctor: the bridge speaks another version of the protocol",
    Exit.PROOF: "of doctor: the server does not prove that it knows the key",
    Exit.RELAY: "of doctor: no relay starts, or it does not dial back",
    Exit.SERVICE: "of doctor: the target is reached, but does not answer as its service should",
    Exit.FAULT: "a fault of emissary itself; EMISSARY_DEBUG=1 shows where",
    Exit.NOT_STARTED: "of exec: its program cannot be started; else, if not 0, its own, or 128 + its signal",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); of local, forward and socks, which run until then, 0",
    Exit.READER_GONE: "whoever read what it had to say has gone, as with `| head`; nothing is said of that",
}

#: What any command can end with.
COMMON: Final = frozenset(
    {
        Exit.OK,
        Exit.FAILED,
        Exit.USAGE,
        Exit.RESOURCES,
        Exit.OUTPUT,
        Exit.FAULT,
        Exit.INTERRUPTED,
        Exit.READER_GONE,
    }
)

#: What a command that dials can end with because of that.
DIALLING: Final = frozenset(
    {
        Exit.SETTINGS,
        Exit.KEY,
        Exit.GATEWAY,
        Exit.NOT_ALLOWED,
        Exit.NOT_REACHED,
        Exit.TIMED_OUT,
        Exit.NAME_NOT_FOUND,
        Exit.REFUSED,
        Exit.UNREACHABLE,
        Exit.LIMIT,
    }
)

#: What only the doctor can end with.
DOCTOR: Final = frozenset(each for each in Exit if Exit.GATEWAY_NAME <= each <= Exit.SERVICE)


@functools.cache
def statuses() -> tuple[tuple[type[BaseException], Exit], ...]:
    """Which error ends with which status: the first class that fits counts."""
    from emissary_lib import exceptions as errors  # loads what ``--help`` can do without

    return (
        (KeyboardInterrupt, Exit.INTERRUPTED),
        (ImportError, Exit.USAGE),
        (errors.ConfigError, Exit.SETTINGS),
        (errors.AuthenticationError, Exit.KEY),
        (errors.ListenError, Exit.PORT),
        (errors.CommandError, Exit.NOT_STARTED),
        (errors.OperationError, Exit.NOT_DONE),
        (errors.LocalResourceError, Exit.RESOURCES),
        (errors.ReaderGoneError, Exit.READER_GONE),
        (errors.OutputError, Exit.OUTPUT),
        (errors.TargetNotAllowedError, Exit.NOT_ALLOWED),
        (errors.NameNotFoundError, Exit.NAME_NOT_FOUND),
        (errors.TargetRefusedError, Exit.REFUSED),
        (errors.SessionLimitError, Exit.LIMIT),
        (errors.TargetUnreachableError, Exit.UNREACHABLE),
        (errors.TargetTimedOutError, Exit.TIMED_OUT),
        (errors.DialTimeoutError, Exit.TIMED_OUT),
        (errors.DialError, Exit.NOT_REACHED),
        (errors.RemoteProtocolError, Exit.NOT_REACHED),
        (errors.TunnelResetError, Exit.CUT_OFF),
        (errors.TransportError, Exit.GATEWAY),
        (errors.EmissaryError, Exit.FAILED),
        (OSError, Exit.FAILED),
    )


def exit_status(error: BaseException) -> Exit:
    """The status with which a command ends that failed with ``error``."""
    return next((status for kind, status in statuses() if isinstance(error, kind)), Exit.FAULT)


def is_signalled(status: int) -> bool:
    """Whether a process with this status was ended by a signal, as far as its status tells."""
    return SIGNALLED < status <= SIGNALLED + _LAST_SIGNAL
