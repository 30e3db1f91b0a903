"""Two ways to post the bridge's own frames."""

from __future__ import annotations

from functions.common import logs
from functions.common.errors import PeerError, PeerGoneError
from functions.common.ports import PeerLink


def answer(link: PeerLink, sender: str, text: str) -> None:
    """Answer the sender of a message; if it is gone by now, nobody needs the answer.

    Raises:
        PeerBusyError, PeerUnreachableError: The answer was not posted; the sender should ask again.
    """
    try:
        link.post(sender, text)
    except PeerGoneError:
        pass


def notify(link: PeerLink, connection: str | None, text: str, *, session: str) -> None:
    """Tell a connection something that it would find out by itself, later: best effort."""
    if connection is None:
        return
    try:
        link.post(connection, text)
    except PeerGoneError:
        pass
    except PeerError as exc:
        logs.warning("notice not delivered", session=session, connection_id=connection, cause=str(exc))
