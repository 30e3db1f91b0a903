"""opening: the bridge's answer depends on the set of fragments alone; the dialer checks before it trusts.

The rows of docs/protocol.md's table are checked in test_vectors_opening.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from emissary_lib.protocol.auth import macs as auth
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_OPENING_BYTES
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.opening import banner, socks5
from emissary_lib.protocol.opening.exchange import (
    OpeningAnswer,
    OpeningReader,
    OpeningState,
    ServerProofError,
    assemble,
    evaluate,
    opening_bytes,
    within_limit,
)
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList, Target

DATE = "Sun, 22 Nov 2026 12:00:00 GMT"
NONCE = b"n" * 32
HOST = "api.example.com"
KEY, OTHER = auth.Key(1, b"k" * 16), auth.Key(2, b"o" * 16)
TARGET = Target("db.internal", 5432)
STREAM = opening_bytes(key=KEY, date=DATE, nonce=NONCE, target=TARGET)


LISTED = '{"host": "db.internal", "port": 5432}'


def answer(
    fragments: Iterable[tuple[int, bytes]],
    *,
    key_id: int = 1,
    keys: Iterable[auth.Key] = (KEY, OTHER),
    listed: str = LISTED,
) -> OpeningAnswer:
    return evaluate(
        fragments,
        nonce=NONCE,
        date=DATE,
        host=HOST,
        key_id=key_id,
        keys=auth.KeyRing(keys),
        allow=AllowList.parse(listed),
        server_version="0.1.0",
    )


@pytest.mark.parametrize(
    ("fragments", "stream"),
    [
        ([], b""),
        ([(1, b"b")], b""),
        ([(0, b"abc"), (3, b"de")], b"abcde"),
        ([(3, b"de"), (0, b"abc")], b"abcde"),
        ([(0, b"abc"), (4, b"e")], b"abc"),
        ([(0, b"abcd"), (2, b"cdef")], b"abcdef"),
        ([(0, b"abcdef"), (2, b"cd")], b"abcdef"),
        ([(0, b"abc"), (0, b"abc"), (0, b"")], b"abc"),
        ([(0, b"ab"), (0, b"abcd")], b"abcd"),
        ([(1, b"XYZ"), (0, b"ab")], b"abYZ"),
        ([(0, b"zz"), (0, b"aa")], b"aa"),
    ],
)
def test_fragments_are_put_together_up_to_the_first_gap(
    fragments: list[tuple[int, bytes]], stream: bytes
) -> None:
    assert assemble(fragments) == assemble(reversed(fragments)) == stream


def test_bytes_beyond_the_limit_are_left_to_retransmission() -> None:
    assert within_limit(MAX_OPENING_BYTES - 2, b"abc") == (MAX_OPENING_BYTES - 2, b"ab")
    assert within_limit(MAX_OPENING_BYTES, b"abc") is None
    assert within_limit(0, b"") is None
    found = answer([(0, STREAM + b"x" * 10_000)])
    assert len(STREAM) + len(found.early) == MAX_OPENING_BYTES


def test_an_accepted_opening_names_key_and_target_and_keeps_early_bytes() -> None:
    found = answer([(0, STREAM + b"ear"), (len(STREAM) + 2, b"rly"), (len(STREAM) + 9, b"later")])
    assert found.state is OpeningState.ACCEPTED
    assert (found.target, found.key_id, found.code) == (TARGET, 1, Code.OK)
    assert (found.client_offset, found.early) == (len(STREAM), b"early")


#: Of a list that says nothing of the reserved name, and of ones that name it.
LISTS = [
    "[]",
    LISTED,
    '{"host": "emissary.mux.invalid", "port": [1, 5432]}',
    '{"host": "*.mux.invalid", "port": "2-65535"}',
]


@pytest.mark.parametrize("listed", LISTS)
def test_a_shared_session_is_let_through_whatever_the_allow_list_says(listed: str) -> None:
    stream = opening_bytes(key=KEY, date=DATE, nonce=NONCE, target=SHARED_TARGET)
    found = answer([(0, stream + b"PRI *")], listed=listed)
    assert (found.state, found.target, found.key_id) == (OpeningState.ACCEPTED, SHARED_TARGET, 1)
    assert (found.client_offset, found.early) == (len(stream), b"PRI *")


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("port", [2, 5432, 65_535])
def test_no_rule_lets_the_reserved_name_through_on_another_port(listed: str, port: int) -> None:
    stream = opening_bytes(key=KEY, date=DATE, nonce=NONCE, target=Target(SHARED_TARGET.host, port))
    found = answer([(0, stream + b"PRI *")], listed=listed)
    assert (found.state, found.code, found.early) == (OpeningState.REFUSED, Code.TARGET_NOT_ALLOWED, b"")
    assert found.server_bytes.endswith(socks5.reply(socks5.ReplyCode.NOT_ALLOWED))


def test_the_reserved_name_is_judged_only_after_the_key() -> None:
    stream = opening_bytes(key=auth.Key(1, b"x" * 16), date=DATE, nonce=NONCE, target=SHARED_TARGET)
    assert answer([(0, stream)]).code is Code.AUTHENTICATION_FAILED


def test_a_password_of_another_valid_key_than_the_doors_is_refused() -> None:
    stream = opening_bytes(key=OTHER, date=DATE, nonce=NONCE, target=TARGET)
    found = answer([(0, stream)])
    assert (found.state, found.code) == (OpeningState.REFUSED, Code.AUTHENTICATION_FAILED)
    assert (found.key_id, found.target) == (None, None)
    assert answer([(0, stream)], key_id=2).state is OpeningState.ACCEPTED


def test_a_key_withdrawn_since_the_door_ends_the_session_without_a_banner() -> None:
    found = answer([(0, STREAM)], keys=[OTHER])
    assert (found.state, found.code) == (OpeningState.GARBAGE, Code.AUTHENTICATION_FAILED)
    assert found.server_bytes == b""


def test_what_was_refused_stays_refused_when_garbage_follows() -> None:
    found = answer([(0, b"\x05\x01\x00garbage")])
    assert (found.state, found.code) == (OpeningState.REFUSED, Code.AUTHENTICATION_FAILED)
    assert found.server_bytes.endswith(b"\x05\xff")


def test_no_repr_shows_bytes_of_the_streams() -> None:
    assert "early" not in repr(answer([(0, STREAM + b"early")])).replace("early=", "")


def reader() -> OpeningReader:
    return OpeningReader(KEY, DATE, NONCE, HOST)


def server_stream(reply: socks5.ReplyCode = socks5.ReplyCode.SUCCEEDED) -> bytes:
    return answer([(0, STREAM)]).server_bytes + socks5.reply(reply)


@pytest.mark.parametrize("step", [1, 2, 50, 10_000])
@pytest.mark.parametrize("trailing", [b"", b"hello"])
def test_reader_takes_the_servers_stream_in_any_cut(step: int, trailing: bytes) -> None:
    stream, end = server_stream() + trailing, len(server_stream())
    banner_end = len(stream) - len(trailing) - 14
    side, user = reader(), b""
    for start in range(0, len(stream), step):
        assert (side.banner is not None) == (start >= banner_end)
        assert side.done == (start >= end)
        user += side.receive(stream[start : start + step])
    assert (side.banner is not None, side.done, user) == (True, True, trailing)
    assert (side.code, side.reply) == (Code.OK, socks5.ReplyCode.SUCCEEDED)
    assert side.receive(b"more") == b"more"
    assert side.banner is not None
    assert side.banner.server_software == "emissary-lambda"


def test_reader_tells_a_refusal_of_the_target() -> None:
    side = reader()
    side.receive(server_stream(socks5.ReplyCode.CONNECTION_REFUSED))
    assert (side.done, side.code) == (True, Code.TARGET_REFUSED)


@pytest.mark.parametrize("refusal", ["05ff", "05020101"])
def test_reader_tells_a_refusal_of_the_key(refusal: str) -> None:
    proof = answer([(0, b"\x05\x01\x02")]).server_bytes[:-2]
    side = reader()
    side.receive(proof + bytes.fromhex(refusal))
    assert (side.banner is not None, side.done, side.code) == (True, True, Code.AUTHENTICATION_FAILED)
    assert side.reply is None


def test_there_is_no_outcome_before_the_end() -> None:
    side = reader()
    side.receive(server_stream()[:-1])
    assert side.banner is not None
    assert not side.done
    with pytest.raises(LocalProtocolError, match="before it is done"):
        _ = side.code


def greeted(*, version: int = 2, nonce: bytes = NONCE, key: auth.Key = KEY, label: str = "server") -> bytes:
    make = auth.server_mac if label == "server" else lambda *a, **k: auth.sign_connect(*a, **k).mac
    mac = make(key, date=DATE, nonce=NONCE, host=HOST)
    return banner.Banner("emissary-lambda", "0.1.0", version, nonce, mac).encode()


@pytest.mark.parametrize(
    ("stream", "error", "fault"),
    [
        (greeted(version=3), UnsupportedVersionError, "speaks version 3"),
        (greeted(nonce=b"N" * 32), ServerProofError, "another session's nonce"),
        (greeted(key=OTHER), ServerProofError, "did not prove that it knows key id 1"),
        (greeted(label="door"), ServerProofError, "did not prove"),
        (b"\x00", UnsupportedVersionError, "speaks version 0"),
        (b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 100, RemoteProtocolError, "banner"),
        (b"\xff" * 10, RemoteProtocolError, "64 bits"),
    ],
)
def test_reader_trusts_no_server_that_did_not_prove_itself(
    stream: bytes, error: type[Exception], fault: str
) -> None:
    side = reader()
    with pytest.raises(error, match=fault):
        side.receive(stream)
    assert side.banner is None
