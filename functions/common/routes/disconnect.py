"""``$disconnect``: a WebSocket is gone. Best effort on AWS: it may come late, or never."""

from __future__ import annotations

from typing import Final

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import Loss, RecordState, RecordStep, SessionRecord, lease_after_relay
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.role import Role
from functions.common import audit, logs
from functions.common.events import GatewayEvent
from functions.common.ports import Entropy, PeerLink, SessionStore
from functions.common.routes.ending import EndSession
from functions.common.routes.posting import notify

#: Close codes of a WebSocket that was lost: the gateway has cut it (1001), or it broke (1006). Its relay may
#: come back to hear how the session ended. One that leaves says goodbye, which has another code.
_LOST: Final = frozenset({1001, 1006})


class OnDisconnect(Record):
    """Forgets a connection and tells the other side; ends a session whose opening nobody can finish."""

    store: SessionStore
    link: PeerLink
    end: EndSession
    entropy: Entropy

    def __call__(self, event: GatewayEvent) -> None:
        """Handle the end of one WebSocket. The connection's own item stays until it is purged.

        It has to: messages can be handled after the ``$disconnect`` that followed them, and an END among
        them must still find its session.

        Raises:
            StoreError: The table could not be reached.
        """
        connection = self.store.connection(event.connection_id)
        if connection is None:
            return
        role, now = connection.role, self.end.clock()
        session, done = self.store.clear(connection.session, role, connection.id, connection.epoch, now)
        if session is None or not done:
            return
        if session.state is RecordState.ENDED:
            if role is Role.RELAY and event.close_code not in _LOST:
                self.store.release(session, lease_after_relay(session))
            elif _is_killed(session):
                self.store.release(session, self.end.lease_left(session))
            return self._record_if_killed(session)
        logs.info(
            "connection gone",
            session=session.id,
            role=role.value,
            epoch=connection.epoch,
            close_code=event.close_code,
        )
        if role is Role.DIALER and session.state is not RecordState.OPEN:
            loss = Loss(Code.DIALER_GONE, now)
            after = self.end.declare_lost(session.id, loss, event.request_id, RecordStep.ABANDON).session
            if after is None or after.state is RecordState.ENDED:
                return
            session = after  # a relay has claimed it in the meantime: it is told, like any other
        if not self.end.expire(session, event.request_id):
            self._tell_peer(session, role, connection.epoch)

    def _record_if_killed(self, session: SessionRecord) -> None:
        """An operator's command writes the end alone, and no log: the last connection to go does.

        Several may find that they are that: ``$disconnect`` can be repeated, even as the very same event, and
        a client that comes back to hear of the end goes once more. The first of them writes the record.
        """
        left = session.dialer.connection is None and session.relay.connection is None
        if not _is_killed(session) or not left:
            return
        if self.store.note_record(session.id, self.entropy(16).hex()):
            audit.record(session, nat=self.end.nat)

    def _tell_peer(self, session: SessionRecord, role: Role, epoch: int) -> None:
        peer = session.side(role.other).connection
        if peer is None:
            # It stays OPEN, because both may come back. If neither does, nobody is left to report the end:
            # this line then stands for the audit record, and its code is what SessionRecord.loss will say.
            self.store.desert(session, self.end.lease_left(session))
            deserted = session.deserted
            logs.warning(
                "both connections gone",
                session=session.id,
                key_id=session.key_id,
                target=session.target,
                started=session.started,
                code=None if deserted is None else deserted.code.name,
                dialer_left=session.dialer.left,
                relay_left=session.relay.left,
                dialer_epoch=session.dialer.epoch,
                relay_epoch=session.relay.epoch,
            )
        message = replies.encode_disconnected(role, epoch, session.generation)
        notify(self.link, peer, message, session=session.id)


def _is_killed(session: SessionRecord) -> bool:
    return session.ending is not None and session.ending.by_operator
