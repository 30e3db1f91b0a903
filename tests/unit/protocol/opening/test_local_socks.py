"""The SOCKS5 server for programs of this machine: what it answers, byte for byte, and whom it refuses."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.opening.local_socks import LocalSocks
from emissary_lib.protocol.targets.allow_list import Target

# RFC 1928 sections 3, 4 and 6.
GREETING = bytes.fromhex("050100")
CHOICE = bytes.fromhex("0500")
NONE_ACCEPTABLE = bytes.fromhex("05ff")
NO_ADDRESS = bytes.fromhex("0001000000000000")
NAMED = bytes.fromhex("0501000311") + b"mongo-b.internal." + bytes.fromhex("6989")


def serve(stream: bytes, step: int = 1000) -> tuple[LocalSocks, bytes]:
    server, said = LocalSocks(), b""
    for start in range(0, len(stream), step):
        server.receive_data(stream[start : start + step])
        said += server.data_to_send()
    return server, said


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("request_bytes", "target"),
    [
        (NAMED, Target("mongo-b.internal", 27017)),
        (bytes.fromhex("050100010a0000051538"), Target("10.0.0.5", 5432)),
        (bytes.fromhex("05010004fd0000000000000000000000000000050cea"), Target("fd00::5", 3306)),
        (NAMED[:-1], None),
    ],
    ids=["name", "IPv4", "IPv6", "cut short"],
)
def test_a_request_in_any_cut_gives_its_target(
    request_bytes: bytes, target: Target | None, step: int
) -> None:
    server, said = serve(GREETING + request_bytes, step)
    assert (server.target, server.refusal, said) == (target, "", CHOICE)
    assert server.decided == (target is not None)


def test_a_name_is_handed_on_as_it_is_also_one_that_looks_like_an_address() -> None:
    server, _said = serve(GREETING + b"\x05\x01\x00\x03\x0810.0.0.5\x15\x38")
    assert server.target == Target("10.0.0.5", 5432)


def test_no_authentication_is_chosen_among_the_methods_that_are_offered() -> None:
    server, said = serve(bytes.fromhex("05020200") + NAMED)
    assert server.target is not None
    assert said == CHOICE


def test_what_follows_the_request_is_not_looked_at() -> None:
    server, said = serve(GREETING + NAMED + GREETING + b"GET / HTTP/1.1")
    assert (server.target, said) == (Target("mongo-b.internal", 27017), CHOICE)


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    ("stream", "said", "why"),
    [
        (bytes.fromhex("050102"), NONE_ACCEPTABLE, "offers no SOCKS5 without authentication"),
        (bytes.fromhex("0500"), NONE_ACCEPTABLE, "offers no SOCKS5 without authentication"),
        (
            GREETING + b"\x05\x02" + NAMED[2:],
            CHOICE + b"\x05\x07" + NO_ADDRESS,
            "asks for BIND; only CONNECT",
        ),
        (GREETING + b"\x05\x03" + NAMED[2:], CHOICE + b"\x05\x07" + NO_ADDRESS, "asks for UDP ASSOCIATE"),
        (GREETING + b"\x05\xf0" + NAMED[2:], CHOICE + b"\x05\x07" + NO_ADDRESS, "asks for command 240"),
        (GREETING + b"\x05\x01\x00\x02", CHOICE + b"\x05\x08" + NO_ADDRESS, "of the unknown type 2"),
        (GREETING + b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50", CHOICE + b"\x05\x02" + NO_ADDRESS, "is no text"),
        (GREETING + b"\x05\x01\x00\x03\x00\x00\x50", CHOICE + b"\x05\x02" + NO_ADDRESS, "is no target"),
        (GREETING + b"\x05\x01\x00\x03\x02db\x00\x00", CHOICE + b"\x05\x02" + NO_ADDRESS, "port 0"),
        (GREETING + b"\x04\x01", CHOICE + b"\x05\x01" + NO_ADDRESS, "speaks broken SOCKS5"),
        (GREETING + b"\x05\x01\x01", CHOICE + b"\x05\x01" + NO_ADDRESS, "reserved byte"),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01user\x00name\x00", b"\x00\x5b" + bytes(6), "speaks SOCKS4;"),
        (b"\x16\x03\x01\x02\x00", b"", "speaks TLS;"),
        (b"\x00", b"", "speaks something else"),
        (b"\xe9", b"", "speaks something else"),
    ],
)
def test_whatever_is_not_served_is_refused_as_its_protocol_has_it(
    stream: bytes, said: bytes, why: str, step: int
) -> None:
    server, answer = serve(stream, step)
    assert (server.target, answer) == (None, said)
    assert server.decided
    assert why in server.refusal


@pytest.mark.parametrize(
    "line", [b"GET http://db/ HTTP/1.1\r\n\r\n", b"CONNECT db:5432 HTTP/1.1\r\n\r\n", b"p"]
)
def test_http_is_told_what_this_is(line: bytes) -> None:
    server, said = serve(line, 1)
    head, _blank, body = said.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 400 Bad Request"
    assert b"Content-Length: %d" % len(body) in head.split(b"\r\n")
    assert b"This is a SOCKS5 server" in body
    assert "speaks HTTP; set it to SOCKS5" in server.refusal


def test_nothing_is_said_before_it_is_asked() -> None:
    server, said = serve(b"\x05")
    assert (server.decided, said) == (False, b"")
