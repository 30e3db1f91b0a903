"""Copying messages to the peer: what ``$default`` does almost always, hence with almost nothing.

A peer that is remembered costs one post: no table request, no decoding, no log line.
"""

from __future__ import annotations

from dataclasses import dataclass

from functions.common import answers
from functions.common.errors import PeerGoneError
from functions.common.ports import Clock, PeerLink, SessionStore
from functions.common.routes.ending import EndSession
from functions.common.routes.lookup import Found, find
from functions.common.routes.peers import PeerCache
from functions.common.routes.posting import answer
from functions.common.session import State


@dataclass(frozen=True, slots=True)
class Forward:
    """Copies messages unchanged from a client to its peer (docs/protocol.md sections 2 and 5)."""

    store: SessionStore
    link: PeerLink
    peers: PeerCache
    end: EndSession
    clock: Clock

    def __call__(self, sender: str, generation: int, text: str, request_id: str) -> None:
        """Copy one message.

        Without a peer the message is dropped, and its sender sends it again. If the session is over, the
        sender is told ENDED instead.

        Raises:
            PeerBusyError, PeerUnreachableError: Not delivered; the sender should try again, more slowly.
            StoreError: The table could not be reached.
        """
        peer = self.peers.get(sender, generation)
        if peer is not None:
            try:
                return self.link.post(peer, text)
            except PeerGoneError:
                self.peers.forget(sender, generation)
        found = find(self.store, sender)
        if found is None:
            return answer(self.link, sender, answers.ended(None))
        self.to_peer(found, generation, text, request_id, gone=peer)

    def to_peer(
        self, found: Found, generation: int, text: str, request_id: str, *, gone: str | None = None
    ) -> None:
        """Copy one message to the current peer, who has just been read.

        Args:
            found: The sender and its session.
            generation: Of the message.
            text: The message.
            request_id: API Gateway's id of the event.
            gone: A connection that has just been found not to exist any more.
        """
        connection, session = found
        if session.state is State.ENDED:
            return answer(self.link, connection.id, answers.ended(session))
        code = session.loss(self.clock())
        if code is not None:
            self.end.lost(session.id, code, request_id)
            return
        role = connection.role.other
        peer = session.side(role).connection
        if peer is None:
            return
        if peer != gone:
            try:
                self.link.post(peer, text)
            except PeerGoneError:
                pass
            else:
                return self.peers.remember(connection.id, generation, peer)
        # The current connection is gone and $disconnect has not said so, which it need not. In this version
        # nobody comes back to a session, so it is over.
        self.end.lost(session.id, role.gone, request_id)
