"""Our codes in HTTP/2's words: statuses of answers, errors of resets, and the frame that says what is lost.

Source: docs/protocol.md sections 11.3 and 11.4, whose tables are generated from these; RFC 9113 section 7 has
the errors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from h2.errors import ErrorCodes

from emissary_lib.protocol.codes import Code, code_of
from emissary_lib.protocol.errors import FrameError, LocalProtocolError
from emissary_lib.protocol.record import Record

#: Header field of an answer that holds the code, in decimal (11.3-4).
CODE_HEADER: Final = "emissary-code"

#: Codes from this one on happen while dialling (docs/protocol.md section 8).
_FIRST_REFUSAL: Final = Code.TARGET_NOT_ALLOWED

#: The status of an answer with each code; 500 for all that are not here.
STATUSES: Final = {
    Code.OK: 200,
    Code.TARGET_NOT_ALLOWED: 403,
    Code.NAME_NOT_FOUND: 502,
    Code.TARGET_REFUSED: 502,
    Code.TARGET_UNREACHABLE: 502,
    Code.TARGET_TIMED_OUT: 504,
    Code.TARGET_FAILED: 502,
}
_OTHER_STATUS: Final = 500

#: The RST_STREAM error of each code that has one of its own; INTERNAL_ERROR for all that are not here.
#:
#: CONNECT_ERROR is what RFC 9113 section 8.5 has a proxy say of a TCP connection that was reset.
RESET_ERRORS: Final = {Code.TARGET_RESET: ErrorCodes.CONNECT_ERROR, Code.DIALER_RESET: ErrorCodes.CANCEL}
_OTHER_ERROR: Final = ErrorCodes.INTERNAL_ERROR
_CODES: Final[dict[int, Code]] = {int(error): code for code, error in RESET_ERRORS.items()}

#: HTTP/2 type of a POSITION frame: of those for experiments (RFC 9113 section 11.2).
POSITION_TYPE: Final = 0xF0

_POSITION: Final = struct.Struct(">QQH")
_FRAME_HEADER: Final = struct.Struct(">HBBBL")
_SETTING: Final = struct.Struct(">HL")

#: A SETTINGS frame with MAX_CONCURRENT_STREAMS 0 (11.2-9; RFC 9113 sections 6.5 and 6.5.2).
NO_MORE_STREAMS: Final = _FRAME_HEADER.pack(0, _SETTING.size, 0x04, 0, 0) + _SETTING.pack(0x03, 0)


def answer_headers(code: Code) -> list[tuple[str, str]]:
    """The header fields of an answer.

    Raises:
        LocalProtocolError: For a code that does not happen while dialling.
    """
    if code is not Code.OK and code < _FIRST_REFUSAL:
        raise LocalProtocolError(f"{code.name} is no answer to a request")
    status = (":status", str(STATUSES.get(code, _OTHER_STATUS)))
    return [status] if code is Code.OK else [status, (CODE_HEADER, str(int(code)))]


def read_answer(headers: Iterable[tuple[bytes, bytes]]) -> Code:
    """The outcome that an answer tells of; ``TARGET_FAILED`` where it is not plain."""
    fields = dict(headers)
    if fields[b":status"] == b"200":
        return Code.OK
    text = fields.get(CODE_HEADER.encode(), b"")
    code = code_of(int(text)) if len(text) <= 5 and text.isdigit() else Code.TARGET_FAILED
    return code if code >= _FIRST_REFUSAL else Code.TARGET_FAILED


def reset_error(code: Code) -> ErrorCodes:
    """The error of the RST_STREAM that cuts a connection off for this reason."""
    return RESET_ERRORS.get(code, _OTHER_ERROR)


def read_reset(error: int) -> Code:
    """Why a connection was cut off, where RST_STREAM alone tells."""
    return _CODES.get(error, Code.PROTOCOL_ERROR)


class Position(Record):
    """POSITION: how far a connection has got, and whether it is cut off.

    Attributes:
        written: Bytes that the sender's user has written.
        taken: Bytes of the receiver's stream that the sender's user has taken, the end counted as one.
        code: Why the connection is cut off; ``OK``: it is not.
    """

    written: int
    taken: int
    code: Code

    def encode(self, stream: int) -> bytes:
        """The whole HTTP/2 frame."""
        header = _FRAME_HEADER.pack(0, _POSITION.size, POSITION_TYPE, 0, stream)
        return header + _POSITION.pack(self.written, self.taken, self.code)

    @classmethod
    def decode(cls, payload: bytes) -> Position:
        """Read the payload.

        Raises:
            FrameError: It is cut short.
        """
        if len(payload) < _POSITION.size:
            raise FrameError(f"POSITION: {len(payload)} bytes of payload, {_POSITION.size} needed")
        written, taken, number = _POSITION.unpack_from(payload)
        return cls(written, taken, code_of(number))
