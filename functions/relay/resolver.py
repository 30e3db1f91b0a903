"""Names to addresses, inside the VPC."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

import dns.exception
import dns.resolver

from emissary_lib.protocol.addresses import literal

#: Resolves a host name or literal address to numeric addresses, best first; empty if there are none.
Resolver = Callable[[str], Sequence[str]]

#: Seconds that each configured server gets before the next one is asked.
_SERVER_TIMEOUT: Final = 1.0


def system_resolver(host: str) -> Sequence[str]:
    """Ask the system's resolver: in Lambda, the VPC's. Blocking."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_rest, address in found))


def name_server(address: str) -> Resolver:
    """Ask one server, for at most a second; empty if it has no answer. Blocking.

    Raises:
        ValueError: ``address`` is no IP address.
    """
    asked = dns.resolver.Resolver(configure=False)
    asked.nameservers = [address]
    asked.lifetime = asked.timeout = _SERVER_TIMEOUT

    def resolve(host: str) -> Sequence[str]:
        try:
            return tuple(asked.resolve_name(host).addresses())
        except (dns.exception.DNSException, OSError):
            return ()

    return resolve


def resolver(servers: Sequence[str], ask: Callable[[str], Resolver] = name_server) -> Resolver:
    """A resolver that asks ``servers`` in order, then the system; without servers, only the system.

    A literal address is its own answer: no server is told of it, and none can answer with another one.
    """
    candidates = [ask(server) for server in servers]

    def resolve(host: str) -> Sequence[str]:
        if literal(host) is not None:
            return (host,)
        for candidate in candidates:
            if addresses := candidate(host):
                return addresses
        return system_resolver(host)

    return resolve
