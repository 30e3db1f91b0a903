"""HEALTH: a dialer asks how the bridge is (docs/protocol.md section 3.6)."""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.limits import Limit, Limits
from emissary_lib.bridge.session import Connection, RecordState, SessionRecord
from emissary_lib.protocol.auth.macs import server_mac
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import VERSION
from emissary_lib.protocol.errors import FrameError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.wire.frames import Frame
from emissary_lib.protocol.wire.health import QUESTION_BYTES, Healthy, Usage
from functions.common.ports import KeySource, PeerLink, SessionStore
from functions.common.routes.ending import EndSession
from functions.common.routes.posting import reply_to_sender


class OnHealth(Record):
    """Handles HEALTH. Whoever can send it was let in by $connect, and so holds a key.

    Attributes:
        fault: What is wrong with the bridge's settings, though it runs; else empty.
    """

    store: SessionStore
    link: PeerLink
    keys: KeySource
    end: EndSession
    limits: Limits
    server_version: str
    fault: str = ""

    def __call__(self, sender: Connection, frame: Frame, request_id: str) -> None:
        """Handle one HEALTH; a repeated one is answered again.

        Raises:
            FrameError: It has no question.
            PeerBusyError, PeerUnreachableError: The answer was not posted; the sender should ask again.
            KeysUnavailableError: The keys cannot be had.
            StoreError: The table could not be reached.
        """
        if len(frame.payload) < QUESTION_BYTES:
            raise FrameError(f"HEALTH: {len(frame.payload)} bytes of payload, {QUESTION_BYTES} needed")
        session = self.store.session(sender.session)
        if session is None:
            return reply_to_sender(self.link, sender.id, replies.encode_ended(None))
        if session.state is RecordState.OPENING:
            self.end.finish_check(session.id, request_id)
        reply_to_sender(self.link, sender.id, self._text(session, frame))

    def _text(self, session: SessionRecord, frame: Frame) -> bytes:
        keys = self.keys.keys(session.key_id)
        key = keys.get(session.key_id)
        if key is None:
            code = Code.AUTHENTICATION_FAILED
            return replies.encode_reset(code, f"{MEANINGS[code]}: the key was withdrawn", session.generation)
        return replies.encode_healthy(
            Healthy(
                question=frame.payload[:QUESTION_BYTES],
                proof=server_mac(key, date=session.date, nonce=session.nonce, host=session.host),
                protocol_version=VERSION,
                usage=self._usage(Limit(self.limits.total)),
                key_usage=self._usage(Limit(self.limits.per_key, session.key_id)),
                key_ids=keys.key_ids,
                server_version=self.server_version,
                fault=self.fault,
            ),
            session.generation,
        )

    def _usage(self, limit: Limit) -> Usage:
        return Usage(self.store.in_use(limit, self.end.clock()), limit.most) if limit.most else Usage()
