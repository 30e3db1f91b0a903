"""Which role a WebSocket client plays, for faults that happen to one role, or to both ends of a session.

The gateway itself does not care. What tells the roles apart is the application's to say
(:class:`~emissary_local.application.Application`); without that, every client is a dialer of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientRole:
    """Who opened a connection.

    Attributes:
        side: ``dialer`` or ``relay``: which of a session's two ends.
        session: What both ends of a session have in common; empty if that is not known.
    """

    side: str = "dialer"
    session: str = ""


#: From the headers of an upgrade request, whose names are found in any case, to the role of who sent it.
Classify = Callable[[Mapping[str, str]], ClientRole]


def any_client(headers: Mapping[str, str]) -> ClientRole:
    """Take every client for a dialer."""
    return ClientRole()
