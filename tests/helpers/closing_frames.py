"""How a session ends, as frames: what it says, and what it is told."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType
from emissary_lib.protocol.wire.payloads import End, Ended, Reset
from tests.helpers.pair import frames


def fin_frame(offset: int, payload: bytes = b"", *, ack: int = 0) -> Frame:
    return Frame(FrameType.DATA, Flag.FIN, 2, 0, offset, ack, payload)


def ended_frame(code: Code, dialer: int = 0, relay: int = 0, reason: str = "") -> Frame:
    return Frame(FrameType.ENDED, 0, 2, 0, 0, 0, Ended(code, dialer, relay, reason).encode())


def reset_frame(code: Code, reason: str = "", *, written: int = 0, handed_over: int = 0) -> Frame:
    return Frame(FrameType.RESET, 0, 2, 0, written, handed_over, Reset(code, reason).encode())


def words(session: Session, now: float) -> list[tuple[int, bytes]]:
    """Types and payloads; without the counts in END, which have a test of their own."""
    return [(frame.type, without_counts(frame)) for frame in frames(session, now)]


def without_counts(frame: Frame) -> bytes:
    if frame.type is not FrameType.END:
        return frame.payload
    end = End.decode(frame.payload)
    return End(end.code, end.sent, end.received).encode()
