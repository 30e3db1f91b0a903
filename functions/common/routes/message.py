"""``$default``: one message of a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emissary_lib.bridge import replies
from emissary_lib.bridge.session import Connection
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_FRAGMENT
from emissary_lib.protocol.errors import EmissaryError, RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import COPIED, Flag, Frame, FrameType, decode, peek
from emissary_lib.protocol.wire.payloads import End
from functions.common import logs
from functions.common.errors import MessageTooLargeError
from functions.common.events import GatewayEvent
from functions.common.ports import PeerLink, SessionStore
from functions.common.routes.connections import OnConnections
from functions.common.routes.ending import EndSession
from functions.common.routes.forward import ForwardMessage
from functions.common.routes.health import OnHealth
from functions.common.routes.lookup import find
from functions.common.routes.opening import Opening
from functions.common.routes.posting import reply_to_sender
from functions.common.routes.resume import OnResume
from functions.common.short_messages import ShortMessages

#: Who may send what the bridge handles itself (docs/protocol.md section 2).
_SENDERS: Final = {
    FrameType.OPENING: frozenset({Role.DIALER}),
    FrameType.RESUME: frozenset(Role),
    FrameType.END: frozenset(Role),
    FrameType.HEALTH: frozenset({Role.DIALER}),
    FrameType.CONNECTIONS: frozenset({Role.RELAY}),
}


class OnMessage(Record):
    """Copies a message, or handles it. Keeps nothing that the next event depends on."""

    store: SessionStore
    link: PeerLink
    forward: ForwardMessage
    opening: Opening
    resume: OnResume
    end: EndSession
    health: OnHealth
    connections: OnConnections
    short_messages: ShortMessages

    def __call__(self, event: GatewayEvent) -> None:
        """Handle one message. What breaks the protocol is answered in the protocol, and copied to nobody.

        Raises:
            PeerBusyError, PeerUnreachableError, MessageTooLargeError, LaunchError, KeysUnavailableError,
                StoreError: The message was not handled; the sender should send it again.
        """
        # A text without meaning in UTF-8 is no frame either: it is refused as any other.
        sender, message = event.connection_id, event.body.encode("utf-8", "surrogatepass")
        try:
            number, generation = peek(message)
            if number in COPIED:
                return self.forward(sender, generation, message, event.request_id)
            frame = decode(message)
            if frame.type == FrameType.PROBE:
                # A sign of life of this connection and of nothing else: no reason to ask the table.
                return reply_to_sender(
                    self.link, sender, replies.encode_probed(frame.payload, frame.generation)
                )
            self._handle(event, frame, message)
        except UnsupportedVersionError as exc:
            self._refuse(sender, Code.UNSUPPORTED_VERSION, exc)
        except RemoteProtocolError as exc:
            self._refuse(sender, Code.PROTOCOL_ERROR, exc)
        except MessageTooLargeError as exc:
            if len(message) > MAX_FRAGMENT:
                raise  # the sender hears of a failure, and sends it again as shorter ones
            self._refuse(sender, Code.MESSAGE_REFUSED, exc)

    def _handle(self, event: GatewayEvent, frame: Frame, message: bytes) -> None:
        connection = self.store.connection(event.connection_id)
        if connection is None:
            return reply_to_sender(self.link, event.connection_id, replies.encode_ended(None))
        if not isinstance(frame.type, FrameType):
            return  # of a later version, and marked as one that may be skipped
        if connection.role not in _SENDERS.get(frame.type, ()):
            raise RemoteProtocolError(f"{frame.type.name} is not for the {connection.role.value} to send")
        handlers: dict[int, Callable[[], object]] = {
            FrameType.OPENING: lambda: self.opening(connection, frame, message, event.request_id),
            FrameType.RESUME: lambda: self.resume(connection, event.request_id),
            FrameType.END: lambda: self._end(connection, frame, event.request_id),
            FrameType.HEALTH: lambda: self.health(connection, frame, event.request_id),
            FrameType.CONNECTIONS: lambda: self.connections(connection, frame, event.request_id),
        }
        handlers[frame.type]()

    def _end(self, sender: Connection, frame: Frame, request_id: str) -> None:
        if sender.role is Role.RELAY and frame.flags & Flag.SHORT and self.short_messages.note():
            # It slows every session, and a dialer's word is enough: so the log has whose session it was.
            logs.warning("long messages do not pass", session=sender.session)
        session = self.end.take_report(sender, End.decode(frame.payload), request_id).session
        if session is None or session.side(sender.role).connection != sender.id:
            # Forgotten, or replaced, yet here: it is not among those who have just been told.
            reply_to_sender(self.link, sender.id, replies.encode_ended(session))

    def _refuse(self, sender: str, code: Code, exc: EmissaryError) -> None:
        found = find(self.store, sender)
        if found is None:
            return reply_to_sender(self.link, sender, replies.encode_ended(None))
        logs.warning(
            "message refused",
            session=found.session.id,
            role=found.connection.role.value,
            code=code.name,
            cause=str(exc),
        )
        reply_to_sender(self.link, sender, replies.encode_reset(code, str(exc), found.session.generation))
