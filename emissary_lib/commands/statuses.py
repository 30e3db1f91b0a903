"""Exit statuses of the ``emissary`` command: the one table, for the code, ``--help`` and the tests.

Statuses from 10 on tell errors apart, so that a script need not read their text. Those of ``emissary exec``
are its own only as long as the command was not started; then the command's is passed on.
"""

from __future__ import annotations

from typing import Final

from emissary_lib.commands.errors import CommandError, ListenError
from emissary_lib.exceptions import (
    AuthenticationError,
    ConfigError,
    DialError,
    DialTimeoutError,
    NameNotFoundError,
    ProtocolError,
    TargetNotAllowedError,
    TargetRefusedError,
    TargetTimedOutError,
    TargetUnreachableError,
    TransportError,
    TunnelResetError,
)

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
SETTINGS: Final = 3
AUTHENTICATION: Final = 10
GATEWAY: Final = 11
PROTOCOL: Final = 12
PORT: Final = 13
NOT_ALLOWED: Final = 20
NAME_NOT_FOUND: Final = 21
REFUSED: Final = 22
UNREACHABLE: Final = 23
TIMED_OUT: Final = 24
NOT_REACHED: Final = 25
CUT_OFF: Final = 30
NOT_STARTED: Final = 127
INTERRUPTED: Final = 130

#: Status -> what it means, in the order of ``--help``.
MEANINGS: Final[dict[int, str]] = {
    OK: "done; of demo: everything was verified on the database",
    FAILED: "failed for another reason than those below; the message says why",
    USAGE: "wrong usage",
    SETTINGS: "wrong settings (EMISSARY_URL, EMISSARY_AUTH_KEYS), or a package that is not installed",
    AUTHENTICATION: "the key is unknown or wrong, or a clock is off",
    GATEWAY: "the gateway was not reached, or refused",
    PROTOCOL: "the server does not speak the protocol",
    PORT: "the local address cannot be listened on",
    NOT_ALLOWED: "the target is not on the allow-list",
    NAME_NOT_FOUND: "the target's name does not resolve",
    REFUSED: "the target refused the connection",
    UNREACHABLE: "there is no route to the target",
    TIMED_OUT: "the target did not answer, or the dial took too long",
    NOT_REACHED: "the target was not reached for another reason",
    CUT_OFF: "an open tunnel was cut off",
    NOT_STARTED: "of exec: the command cannot be started; else its own status, or 128 + its signal",
    INTERRUPTED: "interrupted (Ctrl-C); of local and forward, which run until then, the status is 0",
}

#: Error -> status; the first that fits decides.
OF_ERROR: Final[tuple[tuple[type[Exception], int], ...]] = (
    (ConfigError, SETTINGS),
    (AuthenticationError, AUTHENTICATION),
    (ListenError, PORT),
    (CommandError, NOT_STARTED),
    (TargetNotAllowedError, NOT_ALLOWED),
    (NameNotFoundError, NAME_NOT_FOUND),
    (TargetRefusedError, REFUSED),
    (TargetUnreachableError, UNREACHABLE),
    (TargetTimedOutError, TIMED_OUT),
    (DialTimeoutError, TIMED_OUT),
    (DialError, NOT_REACHED),
    (TransportError, GATEWAY),
    (ProtocolError, PROTOCOL),
    (TunnelResetError, CUT_OFF),
)


def status_of(error: Exception) -> int:
    """The exit status for an error that ended a command."""
    return next((status for kind, status in OF_ERROR if isinstance(error, kind)), FAILED)


def table() -> str:
    """The statuses as ``--help`` shows them."""
    lines = [f"  {status:<4} {meaning}" for status, meaning in MEANINGS.items()]
    return "\n".join(["exit status:", *lines, ""])
