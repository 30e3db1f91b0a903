"""What a session is built with."""

from __future__ import annotations

from dataclasses import dataclass, field

from emissary_lib.protocol.duplex import StreamConfig
from emissary_lib.protocol.flight import FlightGate, OpenGate
from emissary_lib.protocol.keepalive import KeepaliveTimes
from emissary_lib.protocol.payloads import Opened


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session is built with.

    Attributes:
        streams: Sizes and starting positions.
        keepalive: The dialer's watch over its peer; ``None`` for no watch (the relay).
        flight: Messages in flight: at the start, at most; ``None`` for the side's default.
        generation: The one that frames carry at first.
        opened: The relay's parameters, sent with its first byte; ``None`` for the dialer.
        expires_at: The relay's end, on the clock of ``now``; OPENED tells what remains until then.
        early: What has already come of the peer's stream, from ``streams.receive_start`` on.
        gate: A budget of messages in flight shared with other sessions.
    """

    streams: StreamConfig = field(default_factory=StreamConfig)
    keepalive: KeepaliveTimes | None = None
    flight: tuple[int, int] | None = None
    generation: int = 1
    opened: Opened | None = None
    expires_at: float = 0.0
    early: bytes = b""
    gate: FlightGate = field(default_factory=OpenGate)
