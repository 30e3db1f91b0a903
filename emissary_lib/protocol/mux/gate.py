"""Looks at the header of each HTTP/2 frame before the library sees it.

What a peer may cost us is bounded here: the library would collect a frame of 16 MB before it refuses it, and
answer any number of PINGs. What section 11.2 of docs/protocol.md rules out ends here too, so that behind the
gate a header block is one frame and DATA has no padding.
"""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.errors import FrameError, RemoteProtocolError
from emissary_lib.protocol.mux.limits import (
    CONTROL_FRAMES,
    MAX_FRAME,
    MAX_HEADER_BLOCK,
    MAX_SETTINGS,
    MAX_SETTINGS_FRAMES,
    Allowance,
)

#: Bytes of a frame's header (RFC 9113 section 4.1), and of one setting (section 6.5.1).
HEADER: Final = 9
_SETTING: Final = 6

# Types (RFC 9113 section 6; ALTSVC: RFC 7838 section 4).
_DATA, _HEADERS, _PRIORITY, RST_STREAM, _SETTINGS, _PUSH_PROMISE, _CONTINUATION, _ALTSVC = (
    0,
    1,
    2,
    3,
    4,
    5,
    9,
    10,
)
_FORBIDDEN: Final = {
    _PRIORITY: "PRIORITY",
    _PUSH_PROMISE: "PUSH_PROMISE",
    _CONTINUATION: "CONTINUATION",
    _ALTSVC: "ALTSVC",
}
# Flags.
_ACK, _END_HEADERS, _PADDED, _PRIORITY_FLAG = 0x01, 0x04, 0x08, 0x20


class FrameGate:
    """Checks the peer's bytes, in whatever pieces they come.

    Args:
        preface: Bytes in front of the first frame, which are not looked at: the dialer's preface has 24.
        now: Seconds on a monotonic clock.

    Thread safety: none.
    """

    def __init__(self, preface: int, now: float) -> None:
        self._skip = preface
        self._header = b""
        self._settings = 0
        self._control = Allowance(*CONTROL_FRAMES, now)

    @property
    def between_frames(self) -> bool:
        """Whether the last byte was a frame's last."""
        return not self._skip and not self._header

    def sent(self) -> None:
        """We have sent DATA, a request or an answer, for which the peer may send a frame of another type."""
        self._control.earn()

    def check(self, data: bytes, now: float) -> None:
        """Look at the next bytes.

        Raises:
            FrameError: A frame that is too long, or of a form that section 11.2 rules out.
            RemoteProtocolError: More frames than section 11.6 allows.
        """
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                skipped = min(self._skip, end - position)
                self._skip -= skipped
                position += skipped
                continue
            piece = data[position : position + HEADER - len(self._header)]
            self._header += piece
            position += len(piece)
            if len(self._header) == HEADER:
                header, self._header = self._header, b""
                self._skip = int.from_bytes(header[:3], "big")
                self._check_header(self._skip, header[3], header[4], now)

    def _check_header(self, length: int, kind: int, flags: int, now: float) -> None:
        if length > MAX_FRAME:
            raise FrameError(f"an HTTP/2 frame of {length} bytes; at most {MAX_FRAME} are allowed")
        if kind in _FORBIDDEN:
            raise FrameError(f"the HTTP/2 frame {_FORBIDDEN[kind]} is not allowed")
        if kind in (_DATA, _HEADERS) and flags & _PADDED:
            raise FrameError("an HTTP/2 frame with padding")
        if kind == _DATA and length:
            return
        if kind == _HEADERS and (
            length > MAX_HEADER_BLOCK or flags & _PRIORITY_FLAG or not flags & _END_HEADERS
        ):
            raise FrameError(
                f"an HTTP/2 header block of {length} bytes with flags {flags:#04x}; it has to be one frame "
                f"of at most {MAX_HEADER_BLOCK} bytes without a priority"
            )
        if kind == _SETTINGS and not flags & _ACK:
            self._settings += 1
            if self._settings > MAX_SETTINGS_FRAMES or length > MAX_SETTINGS * _SETTING:
                raise RemoteProtocolError("the peer floods the shared session with HTTP/2 SETTINGS")
        if not self._control.spend(now):
            raise RemoteProtocolError(
                "the peer floods the shared session with HTTP/2 frames that carry nothing"
            )
