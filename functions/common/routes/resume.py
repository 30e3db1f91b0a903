"""RESUME: a client asks where its peer is, and both sides are told (docs/protocol.md section 5.3)."""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import Connection, Loss, RecordState, SessionRecord, may_restore
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.role import Role
from functions.common import logs
from functions.common.errors import PeerError
from functions.common.ports import PeerLink, SessionStore
from functions.common.routes.ending import EndSession
from functions.common.routes.gone import post_or_forget
from functions.common.routes.posting import close, reply_to_sender, try_post


class OnResume(Record):
    """Handles RESUME. It may be repeated: each time it tells what is true then."""

    store: SessionStore
    link: PeerLink
    end: EndSession

    def __call__(self, sender: Connection, request_id: str) -> None:
        """Handle one RESUME.

        That of a connection which another has taken the place of changes nothing, and is not answered.

        Raises:
            PeerBusyError, PeerUnreachableError: The sender was not told; it should ask again.
            StoreError: The table could not be reached.
        """
        session = self._current(sender)
        if session is None or session.state is RecordState.ENDED:
            return reply_to_sender(self.link, sender.id, replies.encode_ended(session))
        if session.side(sender.role).connection != sender.id or self.end.expire(session, request_id):
            return
        if not self._keeps_its_slots(session, sender.role):
            self.end.declare_lost(session.id, Loss(Code.RELAY_GONE, self.end.clock()), request_id)
            return
        told, _ = post_or_forget(
            self.store, self.link, session, sender.role.other, self._tell, self.end.clock
        )
        if told is None or told.state is RecordState.ENDED:
            return reply_to_sender(self.link, sender.id, replies.encode_ended(told))
        # The sender last: what it hears is what has been found out about its peer.
        try_post(self.link, sender.id, replies.encode_resumed(told))
        close(self.link, told.side(sender.role).previous, session=session.id)

    def _keeps_its_slots(self, session: SessionRecord, role: Role) -> bool:
        """Whether a relay that was thought to be gone for good still has its place among the sessions."""
        given = role is Role.RELAY and session.slots_until is not None
        return not given or self.store.renew(session)

    def _current(self, sender: Connection) -> SessionRecord | None:
        """The session; a sender that was forgotten, and is here, is its side's connection again."""
        session = self.store.session(sender.session)
        if session is None or not may_restore(session, sender):
            return session
        session, done = self.store.restore(sender)
        if done and session is not None:
            logs.info("connection restored", session=session.id, role=sender.role.value, epoch=sender.epoch)
        return session

    def _tell(self, session: SessionRecord, peer: str) -> bool:
        """Tell the sender's peer, best effort: the sender asks again until it hears it. Whether it exists."""
        try:
            return try_post(self.link, peer, replies.encode_resumed(session))
        except PeerError as exc:
            logs.warning("notice not delivered", session=session.id, connection_id=peer, cause=str(exc))
            return True
