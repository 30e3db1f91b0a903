"""The end of a session, whoever finds out that it is over (docs/protocol.md section 6)."""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.report import reported_end
from emissary_lib.bridge.session import Connection, EndRecord, Loss, RecordStep, SessionRecord, lease_left
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import GRACE
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.wire.payloads import End
from functions.common import audit
from functions.common.ports import Clock, Outcome, PeerLink, SessionStore
from functions.common.routes.posting import notify


class EndSession(Record):
    """Sets a session to ENDED, once; writes the audit record, once; tells both clients, as often as asked.

    Its slots stay taken for as long as its relay may run: until that has left, if ``$disconnect`` says so.

    Attributes:
        store: The sessions.
        link: To the connections.
        clock: Seconds since 1970 UTC.
        grace: How long a relay without its WebSocket may come back, in seconds.
        nat: Whether the relay's way out is taken to be a NAT gateway, for what a session costs.
    """

    store: SessionStore
    link: PeerLink
    clock: Clock
    grace: float = GRACE
    nat: bool = True

    def take_report(self, sender: Connection, end: End, request_id: str) -> Outcome:
        """A client has sent END."""
        ending = reported_end(sender.role, end, by=request_id, at=self.clock())
        return self._end(sender.session, ending, RecordStep.END)

    def declare_lost(
        self, session_id: str, loss: Loss, request_id: str, step: RecordStep = RecordStep.END
    ) -> Outcome:
        """The bridge has found out that the session cannot go on; how far the streams got is not known.

        Args:
            session_id: The session.
            loss: Why and when.
            request_id: API Gateway's id of the event in which it was found out.
            step: ABANDON to end it only while no relay has claimed it.
        """
        return self._end(session_id, EndRecord(loss.code, 0, 0, request_id, loss.at), step)

    def refuse(self, session_id: str, code: Code, reason: str, request_id: str) -> Outcome:
        """No relay is launched for it; a session that another invocation has launched meanwhile goes on."""
        ending = EndRecord(code, 0, 0, request_id, self.clock(), reason=reason)
        return self._end(session_id, ending, RecordStep.REFUSE)

    def finish_check(self, session_id: str, request_id: str) -> None:
        """The dialer only asks how the bridge is: its session ends, and there is nothing to tell of it."""
        self.store.end(session_id, EndRecord(Code.OK, 0, 0, request_id, self.clock()), RecordStep.CHECK)

    def expire(self, session: SessionRecord, request_id: str) -> bool:
        """End a session that is past its time though nobody has ended it; whether that is so."""
        loss = session.loss(self.clock())
        if loss is None:
            return False
        self.declare_lost(session.id, loss, request_id)
        return True

    def lease_left(self, session: SessionRecord) -> float:
        """Until when a relay may run of whom nothing more is heard, in seconds since 1970 UTC."""
        return lease_left(session, self.clock(), self.grace)

    def _end(self, session_id: str, ending: EndRecord, step: RecordStep) -> Outcome:
        outcome = self.store.end(session_id, ending, step)
        session = outcome.session
        if session is None or session.ending is None:
            return outcome
        if outcome.done:
            audit.record(session, nat=self.nat)
            self.store.release(session, self.lease_left(session))
        message = replies.encode_ended(session)
        for side in (session.dialer, session.relay):
            notify(self.link, side.connection, message, session=session.id)
        return outcome
