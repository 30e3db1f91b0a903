"""From a connection to its session."""

from __future__ import annotations

from typing import NamedTuple

from emissary_lib.bridge.session import Connection, SessionRecord
from functions.common.ports import SessionStore


class Found(NamedTuple):
    """A connection and the session it belongs to."""

    connection: Connection
    session: SessionRecord


def find(store: SessionStore, connection_id: str) -> Found | None:
    """Two consistent reads; None for a connection of no session, or of one that has been purged.

    The session comes only from what ``$connect`` stored for this connection, never from a message: a
    connection can reach no other session than its own.
    """
    connection = store.connection(connection_id)
    if connection is None:
        return None
    session = store.session(connection.session)
    return None if session is None else Found(connection, session)
