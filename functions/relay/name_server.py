"""Asks one name server, which the VPC's own resolver may know nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import dns.exception
import dns.resolver

from functions.relay.resolver import Resolver

#: Seconds that each configured server gets before the next one is asked.
_SERVER_TIMEOUT: Final = 1.0


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
