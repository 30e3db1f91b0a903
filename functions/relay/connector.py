"""Connects to the target: allow-list, DNS, allow-list again, TCP."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from emissary_lib.transport import happy_eyeballs
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import tune
from functions.relay.resolver import Resolver

#: Seconds that one of several addresses may take before the next one is tried.
_ADDRESS_TIMEOUT: Final = 4.0

#: NAT gateways, load balancers and VPC endpoints forget a flow that is silent for 350 s; and a target that
#: has vanished without a word is known for that after four minutes. No TCP_USER_TIMEOUT: it would end the
#: connection to a target that is there and takes no bytes for a while, behind a lock.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 120, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 4}

_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTDOWN})


class Connected(Record):
    """The outcome.

    Attributes:
        code: ``OK``, or why not.
        sock: The connection; ``None`` without one.
        bound: The address connected to, for the SOCKS5 reply. Noted at once: a connection that the target
            has reset meanwhile does not know it any more.
    """

    code: Code
    sock: socket.socket | None = None
    bound: tuple[str, int] = ("0.0.0.0", 0)


class Connect(Protocol):
    """As :func:`happy_eyeballs.connect`."""

    def __call__(
        self, address: tuple[str, int], timeout: float | None, *, given_up: Callable[[], bool]
    ) -> socket.socket:
        """Connect to ``address``."""


def connect_target(
    target: Target,
    allow: AllowList,
    resolve: Resolver,
    deadline: Deadline,
    connect: Connect = happy_eyeballs.connect,
) -> Connected:
    """Connect to ``target`` at an address that the allow-list admits.

    The name's rule is checked before DNS, so that nobody can have names resolved that are not listed; the
    address after it, and the connection goes to that very address.

    Blocking: at most until the deadline, and for as long as ``resolve`` takes. A deadline that is brought
    forward meanwhile is noticed within a quarter of a second.
    """
    if not allow.permits(target):
        return Connected(Code.TARGET_NOT_ALLOWED)
    addresses = resolve(target.host)
    if not addresses:
        return Connected(Code.NAME_NOT_FOUND)
    admitted = [address for address in addresses if allow.permits_address(target, address)]
    if not admitted:
        return Connected(Code.TARGET_NOT_ALLOWED)
    return _first_connection(admitted, target.port, deadline, connect)


def _first_connection(addresses: Sequence[str], port: int, deadline: Deadline, connect: Connect) -> Connected:
    code = Code.TARGET_TIMED_OUT
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        if deadline.passed():
            break
        share = deadline.within(_ADDRESS_TIMEOUT) if left > 1 else deadline
        try:
            sock = connect((address, port), share.remaining(), given_up=deadline.passed)
        except OSError as exc:
            code = _code_of(exc)
        else:
            _tune(sock)
            return Connected(Code.OK, sock, (address, port))
    return Connected(code)


def _tune(sock: socket.socket) -> None:
    sock.settimeout(None)
    tune(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _code_of(exc: OSError) -> Code:
    if isinstance(exc, ConnectionRefusedError):
        return Code.TARGET_REFUSED
    if isinstance(exc, ConnectionResetError):  # accepted, and reset before we looked
        return Code.TARGET_RESET
    if isinstance(exc, TimeoutError) or exc.errno == errno.ETIMEDOUT:
        return Code.TARGET_TIMED_OUT
    return Code.TARGET_UNREACHABLE if exc.errno in _UNREACHABLE else Code.TARGET_FAILED
