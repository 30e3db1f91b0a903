"""What a session is built with, and what it gives to send."""

from __future__ import annotations

from emissary_lib.protocol.constants import GRACE
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.stream.congestion import InFlightGate, OpenGate
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.payloads import Opened


class SessionConfig(Record):
    """What a session is built with.

    Attributes:
        streams: Sizes and starting positions.
        keepalive: The dialer's watch over its peer; ``None`` for none (the relay).
        probing: The relay's watch; ``None`` for none (the dialer).
        grace: Seconds for which a connection that is gone is waited for.
        flight: Messages in flight: at the start, at most; ``None`` for the side's default.
        own_epoch: Attempts to connect that we have made (docs/protocol.md section 5.1).
        peer_epoch: Those of the peer that we know of.
        opened: The relay's parameters, sent with its first byte; ``None`` for the dialer.
        expires_at: The relay's end, on the clock of ``now``; ``None`` for the dialer.
        early: What has already come of the peer's stream, from ``streams.receive_start`` on.
        gate: A budget of messages in flight shared with other sessions.
    """

    streams: StreamConfig = StreamConfig()
    keepalive: KeepaliveTimes | None = None
    probing: ProbeTimes | None = None
    grace: float = GRACE
    flight: tuple[int, int] | None = None
    own_epoch: int = 1
    peer_epoch: int = 0
    opened: Opened | None = None
    expires_at: float | None = None
    early: bytes = b""
    gate: InFlightGate = OpenGate()


class Outgoing(Record):
    """One text message to send, as ASCII; ``to_bridge`` when ``$default`` handles it, else for the peer."""

    __slots__ = ("data", "to_bridge")

    data: bytes
    to_bridge: bool

    def __init__(self, data: bytes, to_bridge: bool) -> None:
        put = object.__setattr__
        put(self, "data", data)
        put(self, "to_bridge", to_bridge)
