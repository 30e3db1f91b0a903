"""socks5_messages: codes and replies, and what cannot be written. Bytes: test_vectors_opening.py."""

from __future__ import annotations

import pathlib
import re

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.opening.socks5_messages import (
    ReplyCode,
    code_for,
    credentials,
    greeting,
    reply,
    reply_for,
)

PROTOCOL_MD = pathlib.Path(__file__).resolve().parents[4] / "docs" / "protocol.md"


def test_every_code_has_the_reply_of_the_documents_table() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| (\d+|-) \|", PROTOCOL_MD.read_text(), re.MULTILINE)
    assert {int(number) for number, _, _ in rows} == set(Code)
    for number, _, wanted in rows:
        if wanted == "-":
            with pytest.raises(LocalProtocolError, match="authentication status"):
                reply_for(Code(int(number)))
        else:
            assert reply_for(Code(int(number))) == int(wanted)


def test_a_reply_tells_the_outcome_it_was_made_of() -> None:
    for code in ReplyCode:
        assert reply_for(code_for(code)) is code
    assert code_for(ReplyCode.GENERAL_FAILURE) is Code.TARGET_FAILED


@pytest.mark.parametrize(
    ("username", "password"), [("", "p"), ("u", b""), ("u" * 256, "p"), ("u", "p" * 256)]
)
def test_credentials_of_a_length_that_has_no_byte_are_the_callers_error(
    username: str, password: str | bytes
) -> None:
    with pytest.raises(LocalProtocolError, match="1 to 255 bytes"):
        credentials(username, password)


def test_a_reply_carries_no_name() -> None:
    with pytest.raises(LocalProtocolError, match=r"'db\.internal' is not"):
        reply(ReplyCode.SUCCEEDED, ("db.internal", 1))


def test_a_reply_drops_the_zone_of_an_address() -> None:
    assert reply(ReplyCode.SUCCEEDED, ("fe80::1%eth0", 1)) == reply(ReplyCode.SUCCEEDED, ("fe80::1", 1))


def test_a_greeting_may_offer_several_methods() -> None:
    assert greeting((0, 2)).hex() == "05020002"
