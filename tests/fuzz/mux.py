"""What a peer sends in a shared session: bytes, which are HTTP/2 or are not."""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import CutOff, Opened, Requested
from emissary_lib.protocol.mux.limits import MEMORY, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.mux_pair import NOW, PREFACE

#: Few and small, so that all limits are within reach of a few bytes.
LIMITS: Final = MuxLimits(connections=3, window=64, most_window=256, receive_memory=512, send_buffer=100)


def mux_relay(data: bytes) -> None:
    """A dialer that says anything behind its preface."""
    relay = RelayMultiplexer(LIMITS, NOW)
    relay.receive(PREFACE, NOW)
    _converse(relay, data)


def mux_dialer(data: bytes) -> None:
    """A relay that says anything to three requests."""
    dialer = DialerMultiplexer(LIMITS, NOW)
    for port in (1, 2, 3):
        dialer.open(Target("db.internal", port))
    _converse(dialer, data)


def _converse(side: Multiplexer, data: bytes) -> None:
    """The first byte says how the others are cut; the users answer, write, read half, cut off, and go."""
    size = (data[0] if data else 0) + 1
    seen: set[int] = set()
    for start in range(1, len(data), size):
        try:
            side.receive(data[start : start + size], NOW + start / 100)
        except RemoteProtocolError:
            assert (side.connections, side.buffered, side.data_to_send(100)) == (0, (0, 0), b"")
            return
        _act(side, seen, NOW + start / 100)
        assert side.connections <= LIMITS.connections
        assert side.buffered[1] <= LIMITS.receive_memory
        assert sum(side.buffered) < MEMORY


def _act(side: Multiplexer, seen: set[int], now: float) -> None:
    while event := side.next_event():
        match event:
            case Requested(stream, target) if isinstance(side, RelayMultiplexer):
                if target.port % 3:
                    side.accept(stream)
                else:
                    side.refuse(stream, Code.TARGET_REFUSED)
                seen.add(stream)
            case Opened(stream):
                seen.add(stream)
            case CutOff(stream):
                seen.discard(stream)
    for stream in sorted(seen)[-4:]:
        side.send_data(stream, bytes(30))
        side.consume(stream, len(side.peek(stream, 1 << 20)) // 2)
        if side.receive_ended(stream):
            side.send_eof(stream)
            if isinstance(side, RelayMultiplexer):
                side.release_end(stream)
        elif stream % 5 == 0 and side.peek(stream, 1):
            side.reset(stream, Code.TARGET_RESET)
        elif stream % 7 == 0 and side.peek(stream, 1):
            side.user_lost(stream, Code.TARGET_RESET, now)
    side.handle_timeout(now)
    side.data_to_send(1_100)
