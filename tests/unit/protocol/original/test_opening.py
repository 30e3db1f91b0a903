"""opening: a banner that is the original's, SOCKS5 in any pieces, and what is refused."""

from __future__ import annotations

import itertools

import pytest

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.opening.banner import MAX_BANNER, Banner
from emissary_lib.protocol.opening.socks5_messages import connect
from emissary_lib.protocol.original.frames import Payload
from emissary_lib.protocol.original.opening import (
    TRANSITIONS,
    OpeningState,
    OpeningStep,
    OriginalOpening,
    step,
)
from emissary_lib.protocol.targets.allow_list import Target

NONCE = bytes(range(1, 33))
SUCCESS = b"\x05\x02\x01\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x01\x15\x38"


def banner(
    software: str = "emissary-server", version: str = "devel", protocol: int = 1, nonce: bytes = NONCE
) -> bytes:
    return Banner(software, version, protocol, nonce).encode_message()


def begin() -> OriginalOpening:
    return OriginalOpening(Key(7, bytes(16)), "Sun, 22 Nov 2026 12:00:00 GMT", Target("db.internal", 5432))


def state_of(opening: OriginalOpening) -> OpeningState:
    return opening.state


def greeted() -> OriginalOpening:
    opening = begin()
    opening.receive(Payload(banner(), True))
    assert opening.data_to_send()
    return opening


def test_nothing_is_sent_before_the_banner_and_then_all_at_once() -> None:
    opening = begin()
    assert opening.data_to_send() == b""
    whole = banner()
    for at in range(len(whole)):
        opening.receive(Payload(whole[at : at + 1], False))
    assert state_of(opening) is OpeningState.BANNER
    assert opening.data_to_send() == b""
    opening.receive(Payload(b"", True))
    assert state_of(opening) is OpeningState.ANSWERS
    assert opening.banner == Banner("emissary-server", "devel", 1, NONCE)
    assert opening.data_to_send().startswith(b"\x05\x01\x02\x01\x1dSun, 22 Nov")
    assert opening.data_to_send() == b""


def test_unknown_fields_of_a_banner_are_skipped() -> None:
    opening = begin()
    opening.receive(Payload(b"\x30\x96\x01" + banner() + b"\x3a\x03abc", True))
    assert opening.state is OpeningState.ANSWERS


def test_a_banner_of_512_bytes_is_read_and_no_longer_one() -> None:
    longest = banner(version="v" * (MAX_BANNER - len(banner(version="")) - 3))
    assert len(longest) == MAX_BANNER
    opening = begin()
    opening.receive(Payload(longest, True))
    assert opening.state is OpeningState.ANSWERS
    with pytest.raises(RemoteProtocolError, match="more than 512 bytes"):
        begin().receive(Payload(longest + b"\0", False))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "calls itself ''"),
        (banner("emissary-lambda"), "calls itself 'emissary-lambda'"),
        (banner(nonce=bytes(32)), "no nonce"),
        (banner(nonce=NONCE[:31]), "no nonce"),
        (banner(nonce=b""), "no nonce"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "banner"),
        (b"\x0a\xff", "banner"),
    ],
)
def test_what_is_no_banner_of_the_original_s_is_refused(message: bytes, said: str) -> None:
    with pytest.raises(RemoteProtocolError, match=said):
        begin().receive(Payload(message, True))


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_told_as_that(version: int) -> None:
    with pytest.raises(UnsupportedVersionError, match=f"version {version} of the original"):
        begin().receive(Payload(banner(protocol=version), True))


@pytest.mark.parametrize("cut", range(1, len(SUCCESS) + 3))
def test_the_answers_are_read_in_any_two_pieces_and_what_is_behind_them_is_the_target_s(cut: int) -> None:
    stream = SUCCESS + b"220 hello"
    opening, rest = greeted(), b""
    for piece in (stream[:cut], stream[cut:]):
        if opening.done:
            rest += piece
        else:
            opening.receive(Payload(piece, False))
            rest += opening.rest
    assert opening.accepted
    assert not opening.refused
    assert opening.code is Code.OK
    assert rest == b"220 hello"


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (b"\x05\xff", Code.AUTHENTICATION_FAILED),
        (b"\x05\x02\x01\x01", Code.AUTHENTICATION_FAILED),
        *(
            (b"\x05\x02\x01\x00\x05" + bytes([reply]) + b"\x00\x01" + bytes(6), code)
            for reply, code in {
                1: Code.TARGET_FAILED,
                2: Code.TARGET_NOT_ALLOWED,
                3: Code.TARGET_UNREACHABLE,
                4: Code.TARGET_UNREACHABLE,
                5: Code.TARGET_REFUSED,
                6: Code.TARGET_TIMED_OUT,
                7: Code.COMMAND_NOT_SUPPORTED,
                8: Code.ADDRESS_NOT_SUPPORTED,
                9: Code.TARGET_FAILED,
            }.items()
        ),
    ],
)
def test_a_refusal_says_why(answers: bytes, code: Code) -> None:
    opening = greeted()
    for at in range(len(answers)):
        assert not opening.done
        opening.receive(Payload(answers[at : at + 1], True))
    assert opening.refused
    assert opening.done
    assert opening.code is code


@pytest.mark.parametrize(
    ("answers", "accepted"), [(b"\x05\x02\x01\x00", True), (b"\x05\x02\x01\x01", False), (b"\x05\xff", False)]
)
def test_a_question_about_the_key_names_no_target(answers: bytes, accepted: bool) -> None:
    question = OriginalOpening(Key(7, bytes(16)), "Sun, 22 Nov 2026 12:00:00 GMT", None)
    question.receive(Payload(banner(), True))
    dialled = begin()
    dialled.receive(Payload(banner(), True))
    asked = question.data_to_send()
    assert dialled.data_to_send() == asked + connect(Target("db.internal", 5432))
    for at in range(len(answers)):
        assert not question.done
        question.receive(Payload(answers[at : at + 1], True))
    assert (question.accepted, question.refused) == (accepted, not accepted)


@pytest.mark.parametrize("answers", [b"\x04", b"\x05\x00", b"\x05\x02\x05", b"\x05\x02\x01\x00\x05\x00\x01"])
def test_what_is_no_socks5_is_refused(answers: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        greeted().receive(Payload(answers, True))


def test_nothing_more_belongs_to_an_opening_that_is_over() -> None:
    opening = greeted()
    opening.receive(Payload(SUCCESS, True))
    with pytest.raises(LocalProtocolError, match="the opening is open"):
        opening.receive(Payload(b"more", True))


@pytest.mark.parametrize(("state", "what"), [*itertools.product(OpeningState, OpeningStep)])
def test_no_step_is_possible_but_those_of_the_table(state: OpeningState, what: OpeningStep) -> None:
    if (state, what) in TRANSITIONS:
        assert step(state, what) is TRANSITIONS[state, what]
    else:
        with pytest.raises(LocalProtocolError, match="cannot happen in state"):
            step(state, what)
