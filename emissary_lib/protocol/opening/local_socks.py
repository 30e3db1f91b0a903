"""The server's side of SOCKS5 towards programs of this machine: no authentication, CONNECT only.

Fed the client's stream in any cut; says what to answer, and which target is asked for. What is not SOCKS5 but
something that people point at such a port by mistake, SOCKS4 or HTTP, is refused in its own language.
Source: RFC 1928; for SOCKS4 https://www.openssh.com/txt/socks4.protocol
"""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.socks5 import Greeting, Request, ServerNegotiation
from emissary_lib.protocol.opening.socks5_messages import (
    AddressType,
    Command,
    Method,
    method_choice,
    reply,
    reply_for,
)
from emissary_lib.protocol.targets.allow_list import Target, TargetError

_SOCKS4: Final = 4

#: "Request rejected or failed".
_SOCKS4_REJECTED: Final = bytes((0, 0x5B)) + bytes(6)

#: First byte of a TLS handshake's record (RFC 8446 section 5.1).
_TLS: Final = 22

_HTTP_TEXT: Final = (
    b"This is a SOCKS5 server, not an HTTP proxy. Give programs its address as socks5h://HOST:PORT.\n"
)
_HTTP_REFUSED: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_HTTP_TEXT), _HTTP_TEXT)
)

_ADVICE: Final = "set it to SOCKS5 with names resolved by the proxy (socks5h://)"


class LocalSocks:
    """One client's handshake, up to its request or its refusal; the reply to the request is the caller's.

    Attributes:
        target: What the client wants to be connected to; ``None`` until then, and if it was refused.
        refusal: Why the client was refused, for a log; empty unless it was.

    Thread safety:
        None; one owner.
    """

    def __init__(self) -> None:
        self.target: Target | None = None
        self.refusal = ""
        self._negotiation = ServerNegotiation(credentials=False)
        self._to_send = b""
        self._greeted = False

    @property
    def decided(self) -> bool:
        """Whether there is a target or a refusal; nothing that comes afterwards is looked at."""
        return self.target is not None or bool(self.refusal)

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the client's stream; what follows the request is dropped.

        So whoever wants that for the target reads the handshake byte by byte.
        """
        self._negotiation.receive(data)
        try:
            while not self.decided and (event := self._negotiation.next_event()):
                if isinstance(event, Request):
                    self._judge(event)
                else:
                    assert isinstance(event, Greeting)  # this server asks for no credentials
                    self._greet(event)
        except RemoteProtocolError as error:
            self._refuse_garbage(self._negotiation.leftover[0], error)

    def data_to_send(self) -> bytes:
        """What to send to the client now; each byte is given once."""
        data, self._to_send = self._to_send, b""
        return data

    def _greet(self, greeting: Greeting) -> None:
        if Method.NO_AUTHENTICATION in greeting.methods:
            self._greeted = True
            self._to_send += method_choice(Method.NO_AUTHENTICATION)
        else:
            why = "offers no SOCKS5 without authentication; take username and password out of its settings"
            self._refuse(why, method_choice(Method.NO_ACCEPTABLE))

    def _judge(self, request: Request) -> None:
        if request.command != Command.CONNECT:
            names = {int(each): each.name.replace("_", " ") for each in Command}
            asked = names.get(request.command, f"command {request.command}")
            self._refuse_request(Code.COMMAND_NOT_SUPPORTED, f"asks for {asked}; only CONNECT is served")
        elif request.address_type not in tuple(AddressType):
            why = f"asks for an address of the unknown type {request.address_type}"
            self._refuse_request(Code.ADDRESS_NOT_SUPPORTED, why)
        elif request.host is None:
            self._refuse_request(Code.TARGET_NOT_ALLOWED, "asks for a name that is no text")
        else:
            try:
                self.target = Target(request.host, request.port)
            except TargetError as error:  # no rule of an allow-list can name it
                self._refuse_request(Code.TARGET_NOT_ALLOWED, f"asks for what is no target: {error}")

    def _refuse_request(self, code: Code, why: str) -> None:
        self._refuse(why, reply(reply_for(code)))

    def _refuse_garbage(self, first: int, error: RemoteProtocolError) -> None:
        if self._greeted:
            self._refuse(f"speaks broken SOCKS5: {error}", reply(reply_for(Code.PROTOCOL_ERROR)))
        elif first == _SOCKS4:
            self._refuse(f"speaks SOCKS4; {_ADVICE}", _SOCKS4_REJECTED)
        elif chr(first).isascii() and chr(first).isalpha():
            self._refuse(f"speaks HTTP; {_ADVICE}", _HTTP_REFUSED)
        else:
            spoken = "TLS" if first == _TLS else "something else than SOCKS5"
            self._refuse(f"speaks {spoken}; {_ADVICE}", b"")

    def _refuse(self, why: str, answer: bytes) -> None:
        self.refusal = why
        self._to_send += answer
