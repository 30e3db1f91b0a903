"""Copying messages to the peer: what ``$default`` does almost always, hence with almost nothing.

A peer that is remembered costs one post: no table request, no decoding, no log line.
"""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import Connection, RecordState, SessionRecord
from emissary_lib.protocol.record import Record
from functions.common.ports import PeerLink, SessionStore
from functions.common.routes.ending import EndSession
from functions.common.routes.gone import post_or_forget
from functions.common.routes.lookup import Found, find
from functions.common.routes.peers import PeerCache
from functions.common.routes.posting import reply_to_sender, try_post


class ForwardMessage(Record):
    """Copies messages unchanged from a client to its peer (docs/protocol.md sections 2 and 5)."""

    store: SessionStore
    link: PeerLink
    peers: PeerCache
    end: EndSession

    def __call__(self, sender: str, generation: int, message: bytes, request_id: str) -> None:
        """Copy one message.

        While a relay has still to claim the session, the message is dropped, and its sender sends it again.
        Of a peer that is away the sender is told DISCONNECTED, of a session that is over ENDED.

        Raises:
            PeerBusyError, PeerUnreachableError: Not delivered; the sender should try again, more slowly.
            StoreError: The table could not be reached.
        """
        peer = self.peers.get(sender, generation)
        if peer is not None:
            if try_post(self.link, peer, message):
                return
            self.peers.forget(sender, generation)
        found = find(self.store, sender)
        if found is None:
            return reply_to_sender(self.link, sender, replies.encode_ended(None))
        self.to_peer(found, generation, message, request_id, gone=peer)

    def to_peer(
        self, found: Found, generation: int, message: bytes, request_id: str, *, gone: str | None = None
    ) -> None:
        """Copy one message to the current peer, who has just been read.

        Args:
            found: The sender and its session.
            generation: Of the message.
            message: The message.
            request_id: API Gateway's id of the event.
            gone: A connection that has just been found not to exist any more.
        """
        sender, session = found
        if self._away(sender, session, request_id):
            return
        role, end = sender.role.other, self.end
        after, peer = post_or_forget(
            self.store,
            self.link,
            session,
            role,
            lambda _, to: try_post(self.link, to, message),
            end.clock,
            gone=gone,
        )
        if peer is None:
            self._away(sender, after, request_id)
        else:
            self.peers.remember(sender.id, generation, peer)

    def _away(self, sender: Connection, session: SessionRecord | None, request_id: str) -> bool:
        """Whether the peer has no connection; then the sender has been told what there is to tell."""
        if session is None or session.state is RecordState.ENDED:
            reply_to_sender(self.link, sender.id, replies.encode_ended(session))
            return True
        if self.end.expire(session, request_id):
            return True
        role = sender.role.other
        side = session.side(role)
        if side.connection is None and session.state is RecordState.OPEN:
            # Each time, because any message may be lost, and the sender falls silent once it has heard.
            message = replies.encode_disconnected(role, side.epoch, session.generation)
            reply_to_sender(self.link, sender.id, message)
        return side.connection is None
