"""The opening: from a set of fragments to an answer, a refusal or a relay (docs/protocol.md section 3.2).

Any invocation can handle any message, so nothing is kept here: each message adds its fragment to the item,
and what is done is a function of the item alone.
"""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import (
    Connection,
    Fragment,
    RecordState,
    SessionRecord,
    has_room,
    may_launch,
)
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import MAX_OPENING_TOTAL
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.exchange import OpeningAnswer, OpeningState, evaluate, within_limit
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import AllowList
from emissary_lib.protocol.wire.frames import Flag, Frame
from functions.common import logs
from functions.common.errors import LimitReachedError
from functions.common.ports import Clock, KeySource, PeerLink, SessionStore
from functions.common.routes.forward import ForwardMessage
from functions.common.routes.launching import LaunchRelay
from functions.common.routes.lookup import Found
from functions.common.routes.posting import reply_to_sender

_MISCONFIGURED = Code.CONFIGURATION_ERROR


class Opening(Record):
    """Handles OPENING messages of a dialer.

    Attributes:
        allow_fault: What is wrong with the allow-list's text, which then permits nothing; else empty.
    """

    store: SessionStore
    link: PeerLink
    launch: LaunchRelay
    keys: KeySource
    allow: AllowList
    forward: ForwardMessage
    clock: Clock
    server_version: str
    allow_fault: str = ""

    def __call__(self, sender: Connection, frame: Frame, message: bytes, request_id: str) -> None:
        """Handle one OPENING message.

        Raises:
            RemoteProtocolError: The dialer has sent too much.
            PeerBusyError, PeerUnreachableError: The answer was not posted.
            LaunchError: The relay could not be invoked.
            KeysUnavailableError: The keys cannot be had.
            StoreError: The table could not be reached.
        """
        session = self._keep(sender, frame)
        if session is None:
            return reply_to_sender(self.link, sender.id, replies.encode_ended(None))
        before_claim = session.state in (RecordState.OPENING, RecordState.INVOKED)
        if not before_claim or session.loss(self.clock()) is not None:
            # OPEN: the relay reads it as DATA. Otherwise the dialer is told that it is over.
            found = Found(sender, session)
            return self.forward.to_peer(found, frame.generation, message, request_id)
        keys = self.keys.keys(session.key_id)
        result = evaluate(
            [(fragment.offset, fragment.payload) for fragment in session.fragments],
            nonce=session.nonce,
            date=session.date,
            host=session.host,
            key_id=session.key_id,
            keys=keys,
            allow=self.allow,
            server_version=self.server_version,
        )
        key = keys.get(session.key_id)
        accepted = result.state is OpeningState.ACCEPTED
        if self.allow_fault and (accepted or result.code is Code.TARGET_NOT_ALLOWED):
            # Also of a shared session, for which the list is not asked: its relay could let nobody through.
            logs.warning(
                "opening refused", session=session.id, code=_MISCONFIGURED.name, reason=self.allow_fault
            )
            self.forward.end.refuse(session.id, _MISCONFIGURED, self.allow_fault, request_id)
            return None
        if key is not None and accepted:
            return self._launch(session, key, result, frame, request_id)
        # Without the key no relay can claim either, so a dialer that waits for one is told too.
        if session.state is RecordState.OPENING or key is None:
            self._reply(sender, session, result)

    def _keep(self, sender: Connection, frame: Frame) -> SessionRecord | None:
        # What lies beyond the limit is left to retransmission, by when the relay has the stream.
        kept = within_limit(frame.offset, frame.payload)
        if kept is None:
            return self.store.session(sender.session)
        fragment = Fragment(*kept)
        session, done = self.store.add_fragment(sender.session, fragment, self.clock())
        if session is not None and not done and not has_room(session, fragment):
            raise RemoteProtocolError(f"an opening of more than {MAX_OPENING_TOTAL} bytes")
        return session

    def _reply(self, sender: Connection, session: SessionRecord, result: OpeningAnswer) -> None:
        if result.server_bytes:
            reply_to_sender(
                self.link, sender.id, replies.encode_opening(result.server_bytes, result.client_offset)
            )
        if result.state is OpeningState.GARBAGE:
            message = replies.encode_reset(result.code, MEANINGS[result.code], session.generation)
            reply_to_sender(self.link, sender.id, message)
        if result.state is not OpeningState.WAITING:
            logs.warning(
                "opening refused",
                session=session.id,
                key_id=session.key_id,
                target=None if result.target is None else str(result.target),
                code=result.code.name,
                reason=MEANINGS[result.code],
            )

    def _launch(
        self, session: SessionRecord, key: Key, result: OpeningAnswer, frame: Frame, request_id: str
    ) -> None:
        now = self.clock()
        target = result.target
        if target is None or not may_launch(session, now):
            return
        asked = bool(frame.flags & Flag.SHORT)
        launch = self.launch.prepare(session, key, result, target, frame.window, now, short=asked)
        try:
            launched, done = self.store.launch(session.id, launch.record)
        except LimitReachedError as exc:
            self.forward.end.refuse(session.id, Code.SESSION_LIMIT, str(exc), request_id)
            return
        if launched is not None and done:  # else another invocation was quicker; the relay is on its way
            self.launch.invoke(launched, launch)
