"""The ways to post, and to close."""

from __future__ import annotations

from functions.common import logs, metrics
from functions.common.errors import PeerBusyError, PeerError, PeerGoneError
from functions.common.metrics import Metric
from functions.common.ports import PeerLink


def try_post(link: PeerLink, connection: str, message: bytes) -> bool:
    """Post a message; whether the connection exists.

    A connection that is gone is tried twice, because a single 410 may be untrue (docs/protocol.md
    section 5.1).

    Raises:
        PeerBusyError, PeerUnreachableError: It was not posted.
    """
    for _try in range(2):
        try:
            link.post(connection, message)
        except PeerGoneError:
            continue
        return True
    return False


def reply_to_sender(link: PeerLink, sender: str, message: bytes) -> None:
    """Answer the sender of a message; if it is gone by now, nobody needs the answer.

    Raises:
        PeerBusyError, PeerUnreachableError: The answer was not posted; the sender should ask again.
    """
    try:
        link.post(sender, message)
    except PeerGoneError:
        pass


def notify(link: PeerLink, connection: str | None, message: bytes, *, session: str) -> None:
    """Tell a connection something that it would find out by itself, later: best effort."""
    if connection is None:
        return
    try:
        link.post(connection, message)
    except PeerGoneError:
        pass
    except PeerError as exc:
        if isinstance(exc, PeerBusyError):
            metrics.count(Metric.PEER_THROTTLED)
        logs.warning("notice not delivered", session=session, connection_id=connection, cause=str(exc))


def close(link: PeerLink, connection: str | None, *, session: str) -> None:
    """Close a connection that was replaced: best effort, since an idle one is cut by the gateway anyway."""
    if connection is None:
        return
    try:
        link.delete(connection)
    except PeerError as exc:
        logs.warning("connection not closed", session=session, connection_id=connection, cause=str(exc))
