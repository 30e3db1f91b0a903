"""Both kinds of dialer: each connection with a relay of its own, and with one that it shares."""

from __future__ import annotations

from typing import Any, Final

from emissary_lib.client.dialer import Dialer
from emissary_lib.protocol.auth.keys import Key


class Kind:
    """One of the kinds.

    Args:
        connections: How many share a relay.

    Attributes:
        connections: The same.
        shared: Whether connections share a relay.
    """

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.shared = connections > 1

    def __str__(self) -> str:
        return "shared" if self.shared else "own"

    @property
    def options(self) -> dict[str, Any]:
        """What makes a dialer one of this kind; a relay that carries nothing ends at once."""
        return {"connections_per_relay": self.connections, "relay_idle_seconds": 0}

    def dialer(self, url: str, key: Key, **options: Any) -> Dialer:
        """A dialer of this kind."""
        return Dialer(url, key, **self.options, **options)


OWN: Final = Kind(1)
SHARED: Final = Kind(8)
KINDS: Final = (OWN, SHARED)
