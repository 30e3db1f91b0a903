"""Every error a user of Emissary can meet.

::

    EmissaryError(Exception)
    |- ConfigError(ValueError)                     lists every bad setting at once
    |- ProtocolError                               a rule of docs/protocol.md was broken
    |  |- LocalProtocolError                       by this side: a bug
    |  `- RemoteProtocolError                      by the peer
    |     |- FrameError, FlowControlError, UnsupportedVersionError
    |- AuthenticationError(PermissionError)        the key is unknown or wrong
    |  |- ClockSkewError                           only the date was off: set the clock
    |  |- MissingCredentialsError                  a signed header was absent
    |  `- ServerProofError                         the server does not hold the key
    |- TransportError(ConnectionError)             the WebSocket to the gateway failed
    |  |- GatewayUnreachableError                  name, route, TLS: no answer at all
    |  |  `- AnswerLostError                       asked, and cut off before an answer came
    |  |- GatewayRefusedError                      an answer, but not 101; ``http_status``
    |  |- LinkClosedError                          closed after it was open; ``close_code``
    |  `- LinkRefusedError                         a session may not reconnect: it is over
    |- DialError(ConnectionError)                  the target was not reached; ``code``, ``target``
    |  |- TargetNotAllowedError(PermissionError)
    |  |- NameNotFoundError
    |  |- TargetRefusedError(ConnectionRefusedError)
    |  |- TargetUnreachableError
    |  |- SessionLimitError                         as many sessions as the bridge allows are open
    |  |- TargetTimedOutError(TimeoutError)        the target did not answer the relay
    |  `- DialTimeoutError(TimeoutError)           dial's own timeout ran out; ``timings`` say where
    |- TunnelResetError(ConnectionResetError)      an open tunnel was cut off; ``code``
    |  `- RelayDeadlineError                       because the relay reached Lambda's time limit
    |- LocalResourceError(OSError)                 this machine has no descriptor or thread left; ``errno``
    |- ListenError                                 a command: the local address cannot be listened on
    |- CommandError                                emissary exec: its program cannot be started
    |- OutputError                                 a command: its standard output cannot be written
    |  `- ReaderGoneError                          because whoever read it has gone
    |- PackageError(ImportError)                   a package that is needed is not there, or another is
    |- OperationError                              emissary keys, sessions: not done, by AWS or by us
    `- ClosedError                                 used after close(): a bug in the caller

Each also derives from the built-in error in brackets, so drivers that catch ``OSError`` or
``TimeoutError`` work.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from typing import Final

from emissary_lib.protocol.auth.headers import MissingCredentialsError
from emissary_lib.protocol.auth.macs import ClockSkewError, ServerProofError
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.errors import (
    AuthenticationError,
    ConfigError,
    EmissaryError,
    FlowControlError,
    FrameError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    UnsupportedVersionError,
)
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.system import said_by_the_system

__all__ = [
    "AnswerLostError",
    "AuthenticationError",
    "ClockSkewError",
    "ClosedError",
    "CommandError",
    "ConfigError",
    "DialError",
    "DialTimeoutError",
    "EmissaryError",
    "FlowControlError",
    "FrameError",
    "GatewayRefusedError",
    "GatewayUnreachableError",
    "LinkClosedError",
    "LinkRefusedError",
    "ListenError",
    "LocalResourceError",
    "LocalProtocolError",
    "MissingCredentialsError",
    "NameNotFoundError",
    "OperationError",
    "OutputError",
    "PackageError",
    "ProtocolError",
    "ReaderGoneError",
    "RelayDeadlineError",
    "RemoteProtocolError",
    "ServerProofError",
    "SessionLimitError",
    "TargetNotAllowedError",
    "TargetRefusedError",
    "TargetTimedOutError",
    "TargetUnreachableError",
    "TransportError",
    "TunnelResetError",
    "UnsupportedVersionError",
]


class TransportError(EmissaryError, ConnectionError):
    """The WebSocket to the gateway failed."""


class GatewayUnreachableError(TransportError):
    """The gateway gave no answer at all: name resolution, route, TLS or a refused connection."""


class AnswerLostError(GatewayUnreachableError):
    """The connection ended after the upgrade was asked for and before it was answered.

    The gateway may have granted it all the same: what was asked with this nonce or epoch cannot be asked
    again.
    """


class GatewayRefusedError(TransportError):
    """The gateway answered the upgrade request with something else than 101.

    Attributes:
        http_status: The status.
        date: The answer's ``Date`` header, or ``None``.
    """

    def __init__(self, message: str, *, http_status: int, date: str | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.date = date


class LinkClosedError(TransportError):
    """The WebSocket was open and is not any more.

    Attributes:
        close_code: RFC 6455 section 7.4; 1006 if no close frame came.
    """

    def __init__(self, message: str, *, close_code: int = 1006) -> None:
        super().__init__(message)
        self.close_code = close_code


class LinkRefusedError(TransportError):
    """The bridge does not let a side of a session reconnect: the session is over for it.

    Attributes:
        code: Why (docs/protocol.md section 5.2).
        certain: Whether only the bridge answers so; else the gateway may have refused on its own.
    """

    def __init__(self, message: str, *, code: Code = Code.UNKNOWN_SESSION, certain: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.certain = certain


class DialError(EmissaryError, ConnectionError):
    """The target was not reached.

    Attributes:
        target: What was dialled.
        code: Why not (docs/protocol.md section 8).
        reason: The same in words; empty if the message has more to say.
        hint: What to do about it; empty if nothing is known that would help.
    """

    def __init__(self, message: str, *, target: Target, code: Code, reason: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.target = target
        self.code = code
        self.reason = reason
        self.hint = hint


class TargetNotAllowedError(DialError, PermissionError):
    """The target is not on the bridge's allow-list."""


class NameNotFoundError(DialError):
    """The target's name does not resolve inside the VPC."""


class TargetRefusedError(DialError, ConnectionRefusedError):
    """The target's host answered that nothing listens on the port."""


class TargetUnreachableError(DialError):
    """The relay has no route to the target, or connecting failed in another way."""


class SessionLimitError(DialError):
    """As many sessions are open as the bridge allows, of this key or in all; the text says which."""


class TargetTimedOutError(DialError, TimeoutError):
    """The target did not answer the relay in time."""


class DialTimeoutError(DialError, TimeoutError):
    """``dial``'s own timeout ran out.

    Attributes:
        timeout: The budget, in seconds.
        step: What was being waited for, in words.
        timings: Seconds by step, in the order of a dial, all attempts together: ``name``, ``TCP`` (or
            ``proxy``), ``TLS`` and ``upgrade`` of the gateway, ``relay`` with its target, ``pause`` between
            two attempts.
        attempts: How often the gateway was asked.
    """

    def __init__(
        self,
        message: str,
        *,
        target: Target,
        timeout: float,
        step: str,
        timings: Mapping[str, float] | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, target=target, code=Code.TARGET_TIMED_OUT)
        self.timeout = timeout
        self.step = step
        self.timings = dict(timings or {})
        self.attempts = attempts


class TunnelResetError(EmissaryError, ConnectionResetError):
    """An open tunnel was cut off; bytes may be missing, and the outcome of a running statement is unknown.

    Attributes:
        code: Why (docs/protocol.md section 8).
        whole: Whether the target reset a connection on which nothing was missing but its own end of stream:
            the program had ended its stream, or said goodbye in TLS, and each had all that the other wrote.
        lost: Bytes that the program wrote and that did not arrive, as far as is known once it is all over.
        untaken: Whether all of them reached the relay, and nobody knows whether the target has them.
    """

    def __init__(
        self, message: str, *, code: Code, whole: bool = False, lost: int = 0, untaken: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.whole = whole
        self.lost = lost
        self.untaken = untaken

    def __str__(self) -> str:
        text = super().__str__()
        if self.lost:
            return f"{text}. {self.lost} bytes that the program had written did not arrive"
        if self.untaken:
            return f"{text}. The last bytes that the program had written may not have arrived"
        return text


class RelayDeadlineError(TunnelResetError):
    """The relay reached the end of its Lambda invocation."""


class LocalResourceError(EmissaryError, OSError):
    """This machine has nothing left that a dial takes: file descriptors, threads, memory.

    Attributes:
        errno: What the system said; ``None`` of a thread.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class ListenError(EmissaryError):
    """A command cannot listen on the local address that it was given."""


class CommandError(EmissaryError):
    """The program that ``emissary exec`` was to run cannot be started."""


class OperationError(EmissaryError):
    """What an operator asked of the stack was not done: AWS refused, or it would do harm."""


class OutputError(EmissaryError):
    """What a command has to say cannot be written to its standard output."""


class ReaderGoneError(OutputError):
    """Whoever read a command's standard output has gone, as ``head`` does."""


class PackageError(EmissaryError, ImportError):
    """A package that Emissary needs is not installed, or another one stands in its place."""


class ClosedError(EmissaryError):
    """Used after ``close()``."""


#: What the system says when a process, or the machine, has nothing left.
NOTHING_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def local_resource_error(cause: OSError | RuntimeError) -> LocalResourceError:
    """The error for a socket, or a thread, that this machine did not give."""
    number = cause.errno if isinstance(cause, OSError) else None
    said = said_by_the_system(number) if number else str(cause)
    return LocalResourceError(
        f"this machine gives no more of what is needed: {said}; close what is not needed, dial less at once, "
        "or raise the limits (ulimit -n for open files, ulimit -u for threads and processes)",
        errno=number,
    )


#: What is known of a target that was not reached: the error, what it means, and what to do about it.
_DIAL_ERRORS: dict[Code, tuple[type[DialError], str, str]] = {
    Code.TARGET_NOT_ALLOWED: (
        TargetNotAllowedError,
        "it is not on the bridge's allow-list",
        "add it there (template parameter AllowedTargets), by the very name or address that is dialled",
    ),
    Code.NAME_NOT_FOUND: (
        NameNotFoundError,
        "the name does not resolve inside the VPC",
        "check its spelling, the VPC's DNS (a private hosted zone must have this VPC), and the template "
        "parameter DnsServers",
    ),
    Code.TARGET_REFUSED: (
        TargetRefusedError,
        "the host refused the connection",
        "check that the service runs and listens on that port, not on loopback alone",
    ),
    Code.TARGET_UNREACHABLE: (
        TargetUnreachableError,
        "there is no route from the relay's subnets",
        "check their route tables, peering and network ACLs",
    ),
    Code.TARGET_TIMED_OUT: (
        TargetTimedOutError,
        "it did not answer the relay",
        "check the target's security groups (they must admit the relay's, output RelaySecurityGroupId), "
        "network ACLs, and the template parameter TargetPorts",
    ),
}


_BROKEN_RULES: dict[Code, type[RemoteProtocolError]] = {
    kind.code: kind for kind in (RemoteProtocolError, UnsupportedVersionError, FlowControlError)
}


#: What to do first about a limit of sessions: whoever shares relays needs fewer.
SHARE_RELAYS: Final = "let more connections share a relay (EMISSARY_CONNECTIONS_PER_RELAY)"

#: What to do about a bridge that says that its settings are wrong.
RECONFIGURE: Final = "whoever runs the stack corrects that template parameter and deploys again"


def dial_error(target: Target, code: Code, reason: str = "") -> EmissaryError:
    """The error for a dial that the bridge or the relay answered with ``code``.

    Args:
        target: What was dialled.
        code: Why it was not reached.
        reason: What the bridge says of it, where that is more than the code does.
    """
    if code is Code.AUTHENTICATION_FAILED:
        return AuthenticationError(
            f"dialling {target}: the bridge did not accept the key; check EMISSARY_AUTH_KEYS on both sides"
        )
    if broken := _BROKEN_RULES.get(code):
        return broken(f"dialling {target}: {reason or MEANINGS[code]}")
    if code is Code.SESSION_LIMIT:
        return SessionLimitError(
            f"cannot reach {target}: {reason or MEANINGS[code]}; close some of them or wait for their end "
            f"(emissary sessions list), {SHARE_RELAYS}, or raise the limit (template parameters MaxSessions, "
            "RelayConcurrency, MaxSessionsPerKey)",
            target=target,
            code=code,
        )
    if code is Code.CONFIGURATION_ERROR:
        why, hint = f"the bridge's settings are wrong: {reason or 'its log says which'}", RECONFIGURE
        return DialError(
            f"cannot reach {target}: {why}; {hint}", target=target, code=code, reason=why, hint=hint
        )
    kind, why, hint = _DIAL_ERRORS.get(code, (DialError, MEANINGS[code], ""))
    text = f"cannot reach {target}: {why}" + (f"; {hint}" if hint else "")
    return kind(text, target=target, code=code, reason=why, hint=hint)


_BUG = "a bug, unless dialer and stack are of different releases: compare those, and report it"
_LINKS = (
    "dial again; if that recurs, see what cuts connections on the way (a proxy, a VPN, a sleeping machine)"
)
_STACK = "dial again; if that recurs, see the logs of bridge and relay"

#: What to do about an open tunnel that was cut off.
_RESET_ADVICE: dict[Code, str] = {
    Code.PROTOCOL_ERROR: _BUG,
    Code.UNSUPPORTED_VERSION: "bring dialer and stack to the same release",
    Code.FLOW_CONTROL_ERROR: _BUG,
    Code.TARGET_RESET: "see the target's log for why it closed the connection",
    Code.DIALER_RESET: "this program, or whoever used its socket, closed it with bytes unread; dial again",
    Code.DIALER_GONE: _LINKS,
    Code.RELAY_GONE: _STACK,
    Code.LINK_DEAD: _LINKS,
    Code.KILLED: "ask the operator before dialling again",
    Code.AUTHENTICATION_FAILED: "put that right, then dial again",
    Code.MESSAGE_REFUSED: "put that right, then dial again",
}


def _format_limit(limit: float | None) -> str:
    """A relay's limit, as users know it: what it had of that once it was open is some seconds less."""
    if limit is None:
        return "time limit"
    minutes = math.ceil(limit / 60)
    return f"{minutes}-minute limit" if 0 < minutes * 60 - limit < 30 < limit else f"limit of {limit:.0f} s"


def reset_error(
    target: Target, code: Code, reason: str, *, limit: float | None = None, whole: bool = False
) -> TunnelResetError:
    """The error for an open tunnel that was cut off.

    Args:
        target: What was dialled.
        code: Why it was cut off.
        reason: What the one who did it says.
        limit: Seconds that the relay gave the tunnel when it opened it; ``None`` if that is not known.
        whole: Whether each side has all that the other wrote.
    """
    if code is Code.RELAY_DEADLINE:
        return RelayDeadlineError(
            f"the tunnel to {target} ended: relay reached its {_format_limit(limit)} (template parameter "
            "RelayTimeout); dial again, and split work that takes longer. "
            "The outcome of a statement that was running is unknown",
            code=code,
        )
    cut_off = f"the tunnel to {target} was cut off: {reason or MEANINGS[code]} ({code.name}). "
    if whole and code is Code.TARGET_RESET:
        return TunnelResetError(
            f"{cut_off}Nothing is missing: each side had all that the other wrote, as where a server ends "
            "the connection itself",
            code=code,
            whole=True,
        )
    return TunnelResetError(
        f"{cut_off}The outcome of a statement that was running is unknown; {_RESET_ADVICE.get(code, _STACK)}",
        code=code,
    )
