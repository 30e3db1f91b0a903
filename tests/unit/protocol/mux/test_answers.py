"""Our codes in HTTP/2's words."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FrameError, LocalProtocolError
from emissary_lib.protocol.mux.answers import Position, answer_headers, read_answer, read_reset, reset_error

DIALLING = [code for code in Code if code >= 32]


@pytest.mark.parametrize("code", DIALLING)
def test_every_code_of_a_dial_comes_back_as_itself(code: Code) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer_headers(code)]
    assert headers[0][1] in (b"403", b"500", b"502", b"504")
    assert read_answer(headers) is code


def test_success_is_one_field() -> None:
    assert answer_headers(Code.OK) == [(":status", "200")]
    assert read_answer([(b":status", b"200")]) is Code.OK


@pytest.mark.parametrize("code", [code for code in Code if 0 < code < 32])
def test_no_other_code_is_an_answer(code: Code) -> None:
    with pytest.raises(LocalProtocolError, match=f"{code.name} is no answer"):
        answer_headers(code)


@pytest.mark.parametrize(
    "text", [None, b"", b"x", b"-33", b"\xb2", b"0", b"4", b"31", b"60000", b"999999999"]
)
def test_a_code_that_is_missing_or_makes_no_sense_is_a_failure(text: bytes | None) -> None:
    headers = [(b":status", b"502")] + ([(b"emissary-code", text)] if text is not None else [])
    assert read_answer(headers) is Code.TARGET_FAILED


def test_a_reset_is_what_http_2_calls_it() -> None:
    assert reset_error(Code.TARGET_RESET) is ErrorCodes.CONNECT_ERROR
    assert reset_error(Code.DIALER_RESET) is ErrorCodes.CANCEL
    assert reset_error(Code.RELAY_DEADLINE) is ErrorCodes.INTERNAL_ERROR
    assert [read_reset(error) for error in (0xA, 8, 2, 12_345)] == [
        Code.TARGET_RESET, Code.DIALER_RESET, Code.PROTOCOL_ERROR, Code.PROTOCOL_ERROR
    ]  # fmt: skip


@pytest.mark.parametrize("code", list(Code))
def test_a_position_comes_back_as_itself_and_bytes_behind_it_are_ignored(code: Code) -> None:
    position = Position(1 << 40, 7, code)
    raw = position.encode(5)
    assert Position.decode(raw[9:]) == Position.decode(raw[9:] + b"later") == position
    for cut in range(18):
        with pytest.raises(FrameError, match=f"POSITION: {cut} bytes of payload, 18 needed"):
            Position.decode(raw[9 : 9 + cut])
