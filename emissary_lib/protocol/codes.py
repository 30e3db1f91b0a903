"""Why something ended: the one table shared by wire, exceptions and logs.

Source: docs/protocol.md section 8, whose table is generated from this one.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Outcome of a dial, or reason for an end (u16 on the wire)."""

    OK = 0
    PROTOCOL_ERROR = 1
    UNSUPPORTED_VERSION = 2
    FLOW_CONTROL_ERROR = 3
    TARGET_RESET = 4
    DIALER_RESET = 5
    RELAY_DEADLINE = 6
    DIALER_GONE = 7
    RELAY_GONE = 8
    LINK_DEAD = 9
    OPENING_EXPIRED = 10
    UNKNOWN_SESSION = 11
    INCOMPLETE = 12
    BRIDGE_ERROR = 13
    KILLED = 14
    MESSAGE_REFUSED = 15
    TARGET_NOT_ALLOWED = 32
    NAME_NOT_FOUND = 33
    TARGET_REFUSED = 34
    TARGET_UNREACHABLE = 35
    TARGET_TIMED_OUT = 36
    TARGET_FAILED = 37
    COMMAND_NOT_SUPPORTED = 38
    ADDRESS_NOT_SUPPORTED = 39
    AUTHENTICATION_FAILED = 40
    SESSION_LIMIT = 41
    CONFIGURATION_ERROR = 42


#: One sentence for each code: what happened, for error messages and logs.
MEANINGS: dict[Code, str] = {
    Code.OK: "clean",
    Code.PROTOCOL_ERROR: "the peer broke a rule of the protocol",
    Code.UNSUPPORTED_VERSION: "a frame of another version",
    Code.FLOW_CONTROL_ERROR: "bytes past the window or the final size",
    Code.TARGET_RESET: "the target reset its TCP connection",
    Code.DIALER_RESET: "the program on the dialer's side reset its socket, or exited",
    Code.RELAY_DEADLINE: "the relay reached the end of its invocation",
    Code.DIALER_GONE: "the dialer's WebSocket went away",
    Code.RELAY_GONE: "the relay's WebSocket went away",
    Code.LINK_DEAD: "no answer to PING in time",
    Code.OPENING_EXPIRED: "no relay claimed the session in time",
    Code.UNKNOWN_SESSION: "the bridge knows no such session",
    Code.INCOMPLETE: "ended with bytes missing",
    Code.BRIDGE_ERROR: "the bridge failed",
    Code.KILLED: "an operator ended the session",
    Code.MESSAGE_REFUSED: "the gateway refuses to pass on a message, and would go on refusing it",
    Code.TARGET_NOT_ALLOWED: "not on the allow-list",
    Code.NAME_NOT_FOUND: "the target's name does not resolve",
    Code.TARGET_REFUSED: "the target refused the connection",
    Code.TARGET_UNREACHABLE: "no route to the target",
    Code.TARGET_TIMED_OUT: "the target did not answer in time",
    Code.TARGET_FAILED: "connecting failed for another reason",
    Code.COMMAND_NOT_SUPPORTED: "a SOCKS5 command other than CONNECT",
    Code.ADDRESS_NOT_SUPPORTED: "an unknown address type",
    Code.AUTHENTICATION_FAILED: "the key, or the date that was signed with it, was not accepted",
    Code.SESSION_LIMIT: "as many sessions as are allowed are open",
    Code.CONFIGURATION_ERROR: "the bridge's settings are wrong; the text names them",
}

_BY_NUMBER = {int(code): code for code in Code}


def code_of(number: int) -> Code:
    """The code with this number; one that a later version added reads as ``PROTOCOL_ERROR``."""
    return _BY_NUMBER.get(number, Code.PROTOCOL_ERROR)
