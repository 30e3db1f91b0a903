"""SOCKS5 messages: their numbers, how each is written, and how an address is read.

Source: RFC 1928, RFC 1929; the table of codes is docs/protocol.md section 8.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.targets.addresses import literal
from emissary_lib.protocol.targets.allow_list import Target

VERSION: Final = 5
AUTH_VERSION: Final = 1


class Method(enum.IntEnum):
    """How the client may authenticate (RFC 1928 section 3)."""

    NO_AUTHENTICATION = 0x00
    GSSAPI = 0x01
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Command(enum.IntEnum):
    """What the client asks for (RFC 1928 section 4); only CONNECT is served."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03


class AddressType(enum.IntEnum):
    """Form of an address (RFC 1928 section 5)."""

    IPV4 = 0x01
    DOMAIN = 0x03
    IPV6 = 0x04


class AuthStatus(enum.IntEnum):
    """Answer to username and password (RFC 1929 section 2); every other number is a failure too."""

    SUCCESS = 0x00
    FAILURE = 0x01


class ReplyCode(enum.IntEnum):
    """Answer to the request (RFC 1928 section 6)."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08


# docs/protocol.md section 8: every code that is not here is a general failure.
_REPLIES: Final = {
    Code.OK: ReplyCode.SUCCEEDED,
    Code.TARGET_NOT_ALLOWED: ReplyCode.NOT_ALLOWED,
    Code.TARGET_UNREACHABLE: ReplyCode.NETWORK_UNREACHABLE,
    Code.NAME_NOT_FOUND: ReplyCode.HOST_UNREACHABLE,
    Code.TARGET_REFUSED: ReplyCode.CONNECTION_REFUSED,
    Code.TARGET_TIMED_OUT: ReplyCode.TTL_EXPIRED,
    Code.COMMAND_NOT_SUPPORTED: ReplyCode.COMMAND_NOT_SUPPORTED,
    Code.ADDRESS_NOT_SUPPORTED: ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED,
}
_CODES: Final = {reply: code for code, reply in _REPLIES.items()}


def reply_for(code: Code) -> ReplyCode:
    """The reply that tells a SOCKS5 client of an outcome.

    Raises:
        LocalProtocolError: For ``AUTHENTICATION_FAILED``, which is told by the authentication status.
    """
    if code is Code.AUTHENTICATION_FAILED:
        raise LocalProtocolError("AUTHENTICATION_FAILED has no SOCKS5 reply; send authentication status 01")
    return _REPLIES.get(code, ReplyCode.GENERAL_FAILURE)


def code_for(reply_code: ReplyCode) -> Code:
    """The outcome that a reply tells of; ``TARGET_FAILED`` where it stands for several."""
    return _CODES.get(reply_code, Code.TARGET_FAILED)


def greeting(methods: tuple[int, ...] = (Method.USERNAME_PASSWORD,)) -> bytes:
    """The client's first message: the methods it offers."""
    return bytes((VERSION, len(methods), *methods))


def method_choice(method: int) -> bytes:
    """The server's answer to the greeting."""
    return bytes((VERSION, method))


def credentials(username: str | bytes, password: str | bytes) -> bytes:
    """The client's username and password (RFC 1929 section 2).

    Raises:
        LocalProtocolError: If one of them has not 1 to 255 bytes.
    """
    out = bytes((AUTH_VERSION,))
    for part in (username, password):
        data = part.encode() if isinstance(part, str) else part
        if not 1 <= len(data) <= 255:
            raise LocalProtocolError("a SOCKS5 username or password has 1 to 255 bytes")
        out += bytes((len(data),)) + data
    return out


def auth_status(ok: bool) -> bytes:
    """The server's answer to username and password."""
    return bytes((AUTH_VERSION, AuthStatus.SUCCESS if ok else AuthStatus.FAILURE))


def connect(target: Target) -> bytes:
    """The client's request to connect; a literal address goes as one, a name as a name."""
    return bytes((VERSION, Command.CONNECT, 0)) + _address(target.host, target.port)


def reply(code: ReplyCode, bound: tuple[str, int] = ("0.0.0.0", 0)) -> bytes:
    """The server's answer to the request.

    Args:
        code: The outcome.
        bound: Numeric address and port the server is connected to, for BND.ADDR and BND.PORT.

    Raises:
        LocalProtocolError: If the address is not numeric.
    """
    host = bound[0].partition("%")[0]
    if literal(host) is None:
        raise LocalProtocolError(f"a reply's address is numeric; {bound[0]!r} is not")
    return bytes((VERSION, code, 0)) + _address(host, bound[1])


def _address(host: str, port: int) -> bytes:
    address = literal(host)
    if address is None:
        name = host.encode("ascii")
        return bytes((AddressType.DOMAIN, len(name))) + name + struct.pack(">H", port)
    kind = AddressType.IPV4 if address.version == 4 else AddressType.IPV6
    return bytes((kind,)) + address.packed + struct.pack(">H", port)


def address_end(data: bytes, start: int) -> int | None:
    """Where the address and port that begin at ``start`` end; None if that cannot be known yet.

    Raises:
        RemoteProtocolError: For an unknown address type.
    """
    kind = data[start]
    if kind == AddressType.IPV4:
        return start + 1 + 4 + 2
    if kind == AddressType.IPV6:
        return start + 1 + 16 + 2
    if kind == AddressType.DOMAIN:
        return start + 2 + data[start + 1] + 2 if len(data) > start + 1 else None
    raise RemoteProtocolError(f"unknown SOCKS5 address type {kind}")


def read_address(data: bytes) -> tuple[str | None, int]:
    """Host and port of a whole address; None as host where a domain is not even UTF-8."""
    kind, body, port = data[0], data[1:-2], int.from_bytes(data[-2:], "big")
    if kind != AddressType.DOMAIN:
        return str(ipaddress.ip_address(body)), port
    try:
        return body[1:].decode(), port
    except UnicodeDecodeError:
        return None, port
