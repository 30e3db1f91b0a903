"""Names to addresses, inside the VPC."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from emissary_lib.protocol.targets.addresses import literal

#: Resolves a host name or literal address to numeric addresses, best first; empty if there are none.
Resolver = Callable[[str], Sequence[str]]


def system_resolver(host: str) -> Sequence[str]:
    """Ask the system's resolver: in Lambda, the VPC's. Blocking."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_rest, address in found))


def resolver(servers: Sequence[str], ask: Callable[[str], Resolver] | None = None) -> Resolver:
    """A resolver that asks ``servers`` in order, then the system; without servers, only the system.

    A literal address is its own answer: no server is told of it, and none can answer with another one.

    Args:
        servers: Addresses of name servers.
        ask: Makes a resolver of a server's address; :func:`name_server.name_server` if not given.
    """
    if servers and ask is None:
        # Only then: dnspython takes a third of all that the relay imports. Still within the init phase.
        from functions.relay.name_server import name_server as ask
    candidates = [ask(server) for server in servers] if ask is not None else []

    def resolve(host: str) -> Sequence[str]:
        if literal(host) is not None:
            return (host,)
        for candidate in candidates:
            if addresses := candidate(host):
                return addresses
        return system_resolver(host)

    return resolve
