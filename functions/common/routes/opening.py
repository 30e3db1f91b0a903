"""The opening: from a set of fragments to an answer, a refusal or a relay (docs/protocol.md section 3.2).

Any invocation can handle any message, so nothing is kept here: each message adds its fragment to the item,
and what is done is a function of the item alone.
"""

from __future__ import annotations

from emissary_lib.bridge import replies
from emissary_lib.bridge.launch import Launch
from emissary_lib.bridge.limits import NO_LIMITS, Limits
from emissary_lib.bridge.session import (
    RELAY_TIME,
    Connection,
    Fragment,
    LaunchRecord,
    RecordState,
    SessionRecord,
    has_room,
    may_launch,
)
from emissary_lib.protocol.auth.headers import RELAY_TOKEN_RANDOM, SECRET_LENGTH
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import relay_token, token_hash
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import MAX_OPENING_TOTAL
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.exchange import OpeningAnswer, OpeningState, evaluate, within_limit
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import AllowList
from emissary_lib.protocol.wire.frames import Flag, Frame
from functions.common import logs
from functions.common.errors import LimitReachedError
from functions.common.ports import Clock, Entropy, KeySource, PeerLink, RelayLauncher, SessionStore
from functions.common.routes.forward import ForwardMessage
from functions.common.routes.lookup import Found
from functions.common.routes.posting import reply_to_sender
from functions.common.short_messages import ShortMessages

_MISCONFIGURED = Code.CONFIGURATION_ERROR


class Opening(Record):
    """Handles OPENING messages of a dialer.

    Attributes:
        allow_fault: What is wrong with the allow-list's text, which then permits nothing; else empty.
    """

    store: SessionStore
    link: PeerLink
    launcher: RelayLauncher
    keys: KeySource
    allow: AllowList
    forward: ForwardMessage
    clock: Clock
    entropy: Entropy
    server_version: str
    short_messages: ShortMessages
    limits: Limits = NO_LIMITS
    relay_time: float = RELAY_TIME
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
        # Before anything is written: it may fail. What a dialer remembers counts for this relay alone: found
        # out by no session, it must not be remembered here for another day.
        short = self.short_messages.known() or bool(frame.flags & Flag.SHORT)
        claim_token = relay_token(key, session=session.id, random=self.entropy(RELAY_TOKEN_RANDOM))
        resume_token = self.entropy(SECRET_LENGTH)
        launch = LaunchRecord(
            str(target),
            token_hash(claim_token),
            token_hash(resume_token),
            now,
            self.limits.of(session.key_id),
            session.slots,
            self.relay_time,
        )
        try:
            launched, done = self.store.launch(session.id, launch)
        except LimitReachedError as exc:
            self.forward.end.refuse(session.id, Code.SESSION_LIMIT, str(exc), request_id)
            return
        if launched is None or not done:
            return  # another invocation was quicker; the relay is on its way
        event = Launch(
            session=launched.id,
            target=target,
            relay_token=claim_token,
            resume_token=resume_token,
            server_bytes=result.server_bytes,
            client_offset=result.client_offset,
            early=result.early,
            window=frame.window,
            # Empty if the dialer has left meanwhile: the relay takes no such event.
            dialer_connection=launched.dialer.connection or "",
            dialer_epoch=launched.dialer.epoch,
            expires=launched.expires,
            host=launched.host,
            key_id=launched.key_id,
            short=short,
        )
        self.launcher.launch(event.to_event())
        # Who and to where: all that the log has of a session whose end nobody reports.
        logs.info(
            "relay launched",
            session=session.id,
            key_id=session.key_id,
            source=session.source,
            target=str(target),
        )
