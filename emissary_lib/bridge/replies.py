"""The frames that the bridge itself sends (docs/protocol.md sections 2, 3.2, 5 and 6)."""

from __future__ import annotations

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import INITIAL_WINDOW
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.health import Healthy
from emissary_lib.protocol.wire.payloads import Disconnected, Ended, Reset, Resumed

#: Generation before the first claim: the dialer's epoch 1 plus the relay's 0.
_OPENING_GENERATION = 1

#: Bytes of a PROBE that come back in its PROBED.
_PROBE_BYTES = 8


def encode_opening(server_bytes: bytes, ack: int) -> bytes:
    """The server's stream so far, while the opening goes on or was refused."""
    return encode(
        Frame(
            FrameType.DATA,
            generation=_OPENING_GENERATION,
            window=INITIAL_WINDOW,
            ack=ack,
            payload=server_bytes,
        )
    )


def encode_reset(code: Code, reason: str, generation: int = 0) -> bytes:
    """A RESET; a reason that is too long is cut."""
    return encode(Frame(FrameType.RESET, generation=generation, payload=Reset(code, reason).encode()))


def encode_probed(payload: bytes, generation: int) -> bytes:
    """The answer to a PROBE: the first bytes of its own payload."""
    return encode(Frame(FrameType.PROBED, generation=generation, payload=payload[:_PROBE_BYTES]))


def encode_healthy(payload: Healthy, generation: int) -> bytes:
    """The answer to a HEALTH."""
    return encode(Frame(FrameType.HEALTHY, generation=generation, payload=payload.encode()))


def encode_disconnected(role: Role, epoch: int, generation: int) -> bytes:
    """``epoch`` is that of the connection that is gone."""
    payload = Disconnected(role.wire, epoch & 0xFFFF).encode()
    return encode(Frame(FrameType.DISCONNECTED, generation=generation, payload=payload))


def encode_resumed(session: SessionRecord) -> bytes:
    """Where both sides are now."""
    dialer, relay = session.dialer, session.relay
    payload = Resumed(dialer.epoch, relay.epoch, dialer.connection, relay.connection).encode()
    return encode(Frame(FrameType.RESUMED, generation=session.generation, payload=payload))


def encode_ended(session: SessionRecord | None) -> bytes:
    """How the session ended; of one that does not exist, or has no ending, that it is unknown."""
    if session is None or session.ending is None:
        payload = Ended(Code.UNKNOWN_SESSION, 0, 0, MEANINGS[Code.UNKNOWN_SESSION])
        return encode(Frame(FrameType.ENDED, payload=payload.encode()))
    ending = session.ending
    payload = Ended(ending.code, ending.dialer_final, ending.relay_final, ending.text)
    return encode(Frame(FrameType.ENDED, generation=session.generation, payload=payload.encode()))
