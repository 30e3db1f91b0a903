"""Two real sessions back to back on a perfect link, and frames written by hand."""

from __future__ import annotations

from typing import Final

from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Event
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.session.session import Outgoing, Session, SessionConfig
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import Opened
from tests.helpers.clock import Clock

#: What a relay tells in OPENED unless a test says otherwise.
PARAMETERS: Final = Opened(Code.OK, 0, 30_000, bytes(range(32)))

#: The relay's life in these tests, in seconds.
LIFE: Final = RELAY_TIME


def client_session(
    now: float,
    *,
    streams: StreamConfig | None = None,
    keepalive: KeepaliveTimes | None = None,
    epochs: tuple[int, int] = (1, 0),
) -> Session:
    """A dialer's session in state OPENING; ``epochs`` are the dialer's and the relay's, as known to it."""
    own, peer = epochs
    config = SessionConfig(
        streams=streams or StreamConfig(), keepalive=keepalive, own_epoch=own, peer_epoch=peer
    )
    return Session(Role.DIALER, config, now=now)


def relay_session(
    now: float,
    *,
    streams: StreamConfig | None = None,
    probing: ProbeTimes | None = None,
    life: float = LIFE,
    epochs: tuple[int, int] = (1, 1),
    capabilities: int = 0,
) -> Session:
    """A relay's session, just claimed; ``epochs`` are the dialer's and the relay's."""
    peer, own = epochs
    config = SessionConfig(
        streams=streams or StreamConfig(),
        probing=probing,
        own_epoch=own,
        peer_epoch=peer,
        opened=replace(PARAMETERS, capabilities=capabilities),
        expires_at=now + life,
    )
    return Session(Role.RELAY, config, now=now)


def session_of(role: Role, now: float, *, streams: StreamConfig | None = None) -> Session:
    """A session of either side in state OPEN, so that a test can run as both."""
    if role is Role.RELAY:
        return relay_session(now, streams=streams)
    session = client_session(now, streams=streams)
    session.finish_opening()
    return session


def frames(session: Session, now: float) -> list[Frame]:
    """What the session sends now, decoded."""
    return [decode(message.data) for message in session.messages_to_send(now)]


def events(session: Session) -> list[Event]:
    """Every event that waits."""
    found = []
    while (event := session.next_event()) is not None:
        found.append(event)
    return found


def give(session: Session, frame: Frame, now: float) -> None:
    """Let the session receive one frame, with a wide window unless the frame names one."""
    session.receive_message(encode(frame if frame.window else replace(frame, window=1 << 20)), now)


def read_all(session: Session, now: float) -> bytes:
    """Everything the user can read now."""
    parts = []
    while view := session.peek():
        parts.append(bytes(view))
        session.consume(len(view), now)
    return b"".join(parts)


class SessionPair:
    """A client and a relay joined by a link that loses nothing and takes no time.

    Attributes:
        client: The dialer's session; in state OPEN.
        relay: The relay's session.
        sent: Every message that crossed, with its sender, in order.
    """

    def __init__(
        self,
        *,
        streams: StreamConfig | None = None,
        relay_streams: StreamConfig | None = None,
        keepalive: KeepaliveTimes | None = None,
    ) -> None:
        self.clock = Clock()
        self.client = client_session(self.clock.now, streams=streams, keepalive=keepalive)
        self.client.finish_opening()
        self.relay = relay_session(self.clock.now, streams=relay_streams or streams)
        self.sent: list[tuple[Role, Frame]] = []

    def of(self, role: Role) -> Session:
        return self.client if role is Role.DIALER else self.relay

    def peer(self, role: Role) -> Session:
        return self.relay if role is Role.DIALER else self.client

    def exchange(self) -> list[tuple[Role, FrameType]]:
        """Carry messages to and fro until both are silent; what crossed, in order."""
        first = len(self.sent)
        while self._carry(Role.DIALER) + self._carry(Role.RELAY):
            pass
        return [(role, FrameType(frame.type)) for role, frame in self.sent[first:]]

    def settle(self) -> list[tuple[Role, FrameType]]:
        """Exchange, and let delayed acknowledgements go out as well."""
        crossed = self.exchange()
        self.clock.advance(0.25)
        for session in (self.client, self.relay):
            session.handle_timeout(self.clock.now)
        return crossed + self.exchange()

    def _carry(self, role: Role) -> int:
        outgoing: list[Outgoing] = self.of(role).messages_to_send(self.clock.now)
        for message in outgoing:
            self.sent.append((role, decode(message.data)))
            if self.sent[-1][1].type is not FrameType.END:
                self.peer(role).receive_message(message.data, self.clock.now)
        return len(outgoing)
