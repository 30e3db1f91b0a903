"""CONNECTIONS: the relay of a shared session tells how many it has (docs/protocol.md section 11.7)."""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import Connection, RecordState
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.wire.frames import Frame
from emissary_lib.protocol.wire.payloads import Connections
from functions.common.ports import PeerLink, SessionStore
from functions.common.routes.ending import EndSession
from functions.common.routes.posting import reply_to_sender


class OnConnections(Record):
    """Handles CONNECTIONS. Nothing depends on it but what an operator sees."""

    store: SessionStore
    link: PeerLink
    end: EndSession

    def __call__(self, sender: Connection, frame: Frame, request_id: str) -> None:
        """Handle one CONNECTIONS. It is not answered, unless the session is over.

        Raises:
            FrameError: It is cut short.
            PeerBusyError, PeerUnreachableError: The sender was not told that it is over.
            StoreError: The table could not be reached.
        """
        session, _ = self.store.note_connections(sender.session, Connections.decode(frame.payload))
        if session is None or session.state is RecordState.ENDED:
            reply_to_sender(self.link, sender.id, replies.encode_ended(session))
        else:
            self.end.expire(session, request_id)
