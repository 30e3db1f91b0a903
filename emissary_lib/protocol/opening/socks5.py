"""SOCKS5: a state machine for each side of the exchange, and (re-exported) the messages.

Both machines are fed a byte stream cut in any way. They take whole messages only, keep what is not yet one,
and hand back what follows the last. Neither decides anything: who may come in and where to is for
:mod:`emissary_lib.protocol.opening.exchange`. Source: RFC 1928, RFC 1929, docs/protocol.md section 3.2.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.socks5_messages import (
    AUTH_VERSION,
    VERSION,
    AddressType,
    AuthStatus,
    Command,
    Method,
    ReplyCode,
    address_end,
    auth_status,
    code_for,
    connect,
    credentials,
    greeting,
    method_choice,
    read_address,
    reply,
    reply_for,
)
from emissary_lib.protocol.record import Record, hidden

__all__ = [
    "AddressType",
    "AuthStatus",
    "ClientNegotiation",
    "ClientState",
    "Command",
    "Credentials",
    "Greeting",
    "Method",
    "ReplyCode",
    "Request",
    "ServerEvent",
    "ServerNegotiation",
    "ServerState",
    "auth_status",
    "code_for",
    "connect",
    "credentials",
    "greeting",
    "method_choice",
    "reply",
    "reply_for",
]


class ServerState(enum.Enum):
    """What a :class:`ServerNegotiation` waits for."""

    GREETING = "greeting"
    CREDENTIALS = "credentials"
    REQUEST = "request"
    DONE = "done"


class Greeting(Record):
    """The client offers these methods."""

    methods: frozenset[int]


class Credentials(Record):
    """The client's username and password, as sent."""

    username: bytes
    password: bytes = hidden()


class Request(Record):
    """The client's request.

    Attributes:
        command: 1 for CONNECT; any other number is for the caller to refuse.
        address_type: As sent. If it is unknown, the request's end is too: ``host`` is None and what
            follows the address type is left unread.
        host: Address or name as sent; None if unknown or not text.
        port: As sent; 0 where unknown.
    """

    command: int
    address_type: int
    host: str | None
    port: int


ServerEvent = Greeting | Credentials | Request


class ServerNegotiation:
    """The server's side: turns the client's stream into greeting, credentials and request.

    The server's answers between them are the caller's to send; the client need not wait for them.

    Args:
        credentials: Whether the client's credentials come between its greeting and its request.

    Attributes:
        state: What comes next.
        used: Bytes of the stream that whole messages took so far.
        leftover: Bytes held beyond ``used``; when the state is DONE, all that follows the request.

    Thread safety:
        None; one owner.
    """

    def __init__(self, *, credentials: bool = True) -> None:
        self.state = ServerState.GREETING
        self._after_greeting = ServerState.CREDENTIALS if credentials else ServerState.REQUEST
        self.used = 0
        self.leftover = b""
        # One method per state; it returns None when there are not enough bytes yet.
        self._readers: dict[ServerState, Callable[[bytes], tuple[ServerEvent, int, ServerState] | None]] = {
            ServerState.GREETING: self._greeting,
            ServerState.CREDENTIALS: self._credentials,
            ServerState.REQUEST: self._request,
        }

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the client's stream."""
        self.leftover += data

    def next_event(self) -> ServerEvent | None:
        """The next whole message, or None if more bytes are needed or the state is DONE.

        Raises:
            RemoteProtocolError: If the bytes are not SOCKS5; the state stays as it was.
        """
        read = self._readers.get(self.state)
        found = read(self.leftover) if read is not None else None
        if found is None:
            return None
        event, size, self.state = found
        self.used += size
        self.leftover = self.leftover[size:]
        return event

    def _greeting(self, data: bytes) -> tuple[ServerEvent, int, ServerState] | None:
        _expect(data, 0, VERSION, "SOCKS version")
        if len(data) < 2 or len(data) < 2 + data[1]:
            return None
        size = 2 + data[1]
        return Greeting(frozenset(data[2:size])), size, self._after_greeting

    def _credentials(self, data: bytes) -> tuple[ServerEvent, int, ServerState] | None:
        _expect(data, 0, AUTH_VERSION, "version of the username/password request")
        if len(data) < 2 or len(data) < 3 + data[1]:
            return None
        middle = 2 + data[1]
        size = middle + 1 + data[middle]
        if len(data) < size:
            return None
        return Credentials(data[2:middle], data[middle + 1 : size]), size, ServerState.REQUEST

    def _request(self, data: bytes) -> tuple[ServerEvent, int, ServerState] | None:
        _expect(data, 0, VERSION, "SOCKS version of the request")
        _expect(data, 2, 0, "reserved byte of the request")
        if len(data) < 4:
            return None
        try:
            size = address_end(data, 3)
        except RemoteProtocolError:
            return Request(data[1], data[3], None, 0), 4, ServerState.DONE
        if size is None or len(data) < size:
            return None
        host, port = read_address(data[3:size])
        return Request(data[1], data[3], host, port), size, ServerState.DONE


class ClientState(enum.Enum):
    """What a :class:`ClientNegotiation` waits for."""

    METHOD = "method"
    AUTH_STATUS = "auth status"
    REPLY = "reply"
    DONE = "done"


class ClientNegotiation:
    """The client's side: reads method choice, authentication status and reply.

    Attributes:
        state: What comes next.
        code: The outcome once the state is DONE: ``AUTHENTICATION_FAILED`` for ``05 FF`` and ``01 xx``,
            else what the reply says. None before.
        reply: The reply's code; None before there is one, and after a failed authentication.
        bound: BND.ADDR and BND.PORT of the reply, or None.

    Thread safety:
        None; one owner.
    """

    def __init__(self) -> None:
        self.state = ClientState.METHOD
        self.code: Code | None = None
        self.reply: ReplyCode | None = None
        self.bound: tuple[str, int] | None = None
        self._buffer = b""
        # One method per state; it returns 0 when there are not enough bytes yet.
        self._readers: dict[ClientState, Callable[[bytes], int]] = {
            ClientState.METHOD: self._method,
            ClientState.AUTH_STATUS: self._auth_status,
            ClientState.REPLY: self._reply,
        }

    def receive(self, data: bytes) -> int:
        """Take the next bytes of the server's stream.

        Returns:
            How many of them were used; the rest, if any, follows the exchange. All are used (or kept for
            later) until the state is DONE, none afterwards.

        Raises:
            RemoteProtocolError: If the bytes are not SOCKS5.
        """
        if self.state is ClientState.DONE:
            return 0
        self._buffer += data
        while (read := self._readers.get(self.state)) is not None:
            size = read(self._buffer)
            if not size:
                return len(data)
            self._buffer = self._buffer[size:]
        left, self._buffer = len(self._buffer), b""
        return len(data) - left

    def _method(self, data: bytes) -> int:
        _expect(data, 0, VERSION, "SOCKS version")
        if len(data) < 2:
            return 0
        if data[1] == Method.NO_ACCEPTABLE:
            self._fail_authentication()
        elif data[1] == Method.USERNAME_PASSWORD:
            self.state = ClientState.AUTH_STATUS
        else:
            raise RemoteProtocolError(f"the server chose SOCKS5 method {data[1]}, which was not offered")
        return 2

    def _auth_status(self, data: bytes) -> int:
        _expect(data, 0, AUTH_VERSION, "version of the authentication status")
        if len(data) < 2:
            return 0
        if data[1] == AuthStatus.SUCCESS:
            self.state = ClientState.REPLY
        else:
            self._fail_authentication()
        return 2

    def _reply(self, data: bytes) -> int:
        _expect(data, 0, VERSION, "SOCKS version of the reply")
        _expect(data, 2, 0, "reserved byte of the reply")
        if len(data) < 4:
            return 0
        size = address_end(data, 3)
        if size is None or len(data) < size:
            return 0
        try:
            self.reply = ReplyCode(data[1])
        except ValueError:
            self.reply = ReplyCode.GENERAL_FAILURE
        host, port = read_address(data[3:size])
        self.code, self.bound = code_for(self.reply), (host or "", port)
        self.state = ClientState.DONE
        return size

    def _fail_authentication(self) -> None:
        self.code = Code.AUTHENTICATION_FAILED
        self.state = ClientState.DONE


def _expect(data: bytes, index: int, wanted: int, what: str) -> None:
    """Fail on the first byte that is wrong, not only when the message is whole."""
    if len(data) > index and data[index] != wanted:
        raise RemoteProtocolError(f"{what} is {data[index]}, not {wanted}")
