"""Names to addresses, inside the VPC."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

import dns.exception
import dns.resolver

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


def resolver(servers: Sequence[str]) -> Resolver:
    """A resolver that asks ``servers`` in order, then the system; without servers, only the system."""
    if not servers:
        return system_resolver
    resolvers = [_of(server) for server in servers]

    def resolve(host: str) -> Sequence[str]:
        for candidate in resolvers:
            try:
                return tuple(candidate.resolve_name(host).addresses())
            except (dns.exception.DNSException, OSError):
                continue
        return system_resolver(host)

    return resolve


def _of(server: str) -> dns.resolver.Resolver:
    made = dns.resolver.Resolver(configure=False)
    made.nameservers = [server]
    made.lifetime = made.timeout = _SERVER_TIMEOUT
    return made
