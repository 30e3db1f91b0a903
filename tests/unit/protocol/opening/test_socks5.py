"""socks5: both machines, each case whole, byte by byte, and with more behind it."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.socks5 import (
    ClientNegotiation,
    ClientState,
    Credentials,
    Greeting,
    ReplyCode,
    Request,
    ServerEvent,
    ServerNegotiation,
    ServerState,
)

GREETING = bytes.fromhex("050102")
LOGIN = b"\x01\x04user\x04pass"
# The three forms of address of RFC 1928 section 5.
REQUESTS = {
    "050100010a0000051538": Request(1, 1, "10.0.0.5", 5432),
    "050100030264621538": Request(1, 3, "db", 5432),
    "05010003001538": Request(1, 3, "", 5432),
    "0501000302fffe1538": Request(1, 3, None, 5432),
    "05010004fd0000000000000000000000000000050cea": Request(1, 4, "fd00::5", 3306),
    "050200010a0000051538": Request(2, 1, "10.0.0.5", 5432),
    "05010009": Request(1, 9, None, 0),
}


def drain(machine: ServerNegotiation) -> list[ServerEvent]:
    events = []
    while (event := machine.next_event()) is not None:
        events.append(event)
    return events


@pytest.mark.parametrize("request_hex", REQUESTS)
@pytest.mark.parametrize("trailing", [b"", b"early"])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_server_reads_the_whole_exchange_in_any_cut(request_hex: str, trailing: bytes, step: int) -> None:
    stream = GREETING + LOGIN + bytes.fromhex(request_hex)
    machine, events = ServerNegotiation(), []
    for start in range(0, len(stream + trailing), step):
        machine.receive((stream + trailing)[start : start + step])
        events += drain(machine)
    assert events == [Greeting(frozenset({2})), Credentials(b"user", b"pass"), REQUESTS[request_hex]]
    assert (machine.state, machine.used, machine.leftover) == (ServerState.DONE, len(stream), trailing)


def test_a_server_without_authentication_reads_no_credentials() -> None:
    machine = ServerNegotiation(credentials=False)
    machine.receive(bytes.fromhex("050100") + bytes.fromhex("050100030264621538"))
    assert drain(machine) == [Greeting(frozenset({0})), Request(1, 3, "db", 5432)]
    assert machine.state is ServerState.DONE


def test_server_reads_nothing_before_a_message_is_whole() -> None:
    stream = GREETING + LOGIN + bytes.fromhex("050100030264621538")
    ends = {len(GREETING), len(GREETING + LOGIN), len(stream)}
    machine = ServerNegotiation()
    for position in range(1, len(stream) + 1):
        machine.receive(stream[position - 1 : position])
        assert len(drain(machine)) == (1 if position in ends else 0), position
        assert machine.used == max([end for end in ends if end <= position], default=0)


@pytest.mark.parametrize(
    ("good", "bad", "fault"),
    [
        (b"", b"\x04", "SOCKS version is 4, not 5"),
        (b"", b"GET /", "SOCKS version is 71"),
        (GREETING, b"\x05", "version of the username/password request is 5, not 1"),
        (GREETING + LOGIN, b"\x01", "SOCKS version of the request is 1"),
        (GREETING + LOGIN, b"\x05\x01\x01", "reserved byte of the request is 1"),
    ],
)
def test_server_refuses_the_first_wrong_byte(good: bytes, bad: bytes, fault: str) -> None:
    machine = ServerNegotiation()
    machine.receive(good + bad)
    with pytest.raises(RemoteProtocolError, match=fault):
        drain(machine)
    assert machine.used == len(good)
    with pytest.raises(RemoteProtocolError, match=fault):
        machine.next_event()


def test_no_repr_shows_a_password() -> None:
    assert "pass" not in repr(Credentials(b"user", b"pass")).replace("password", "")


OUTCOMES = {
    "05ff": (Code.AUTHENTICATION_FAILED, None, None),
    "05020101": (Code.AUTHENTICATION_FAILED, None, None),
    "05020199": (Code.AUTHENTICATION_FAILED, None, None),
    "05020100050000010a0000051538": (Code.OK, ReplyCode.SUCCEEDED, ("10.0.0.5", 5432)),
    "0502010005050001000000000000": (Code.TARGET_REFUSED, ReplyCode.CONNECTION_REFUSED, ("0.0.0.0", 0)),
    "0502010005020003026462000a": (Code.TARGET_NOT_ALLOWED, ReplyCode.NOT_ALLOWED, ("db", 10)),
    "050201000577000301ff000a": (Code.TARGET_FAILED, ReplyCode.GENERAL_FAILURE, ("", 10)),
    "0502010005040004" + "00" * 15 + "010050": (
        Code.NAME_NOT_FOUND,
        ReplyCode.HOST_UNREACHABLE,
        ("::1", 80),
    ),
}


@pytest.mark.parametrize("stream_hex", OUTCOMES)
@pytest.mark.parametrize("trailing", [b"", b"\x05hello"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_client_reads_the_outcome_in_any_cut(stream_hex: str, trailing: bytes, step: int) -> None:
    stream = bytes.fromhex(stream_hex)
    machine, left = ClientNegotiation(), b""
    for start in range(0, len(stream + trailing), step):
        piece = (stream + trailing)[start : start + step]
        assert (machine.state is ClientState.DONE) == (start >= len(stream))
        left += piece[machine.receive(piece) :]
    assert left == trailing
    assert (machine.code, machine.reply, machine.bound) == OUTCOMES[stream_hex]


@pytest.mark.parametrize(
    ("stream_hex", "fault"),
    [
        ("04", "SOCKS version is 4"),
        ("0500", "chose SOCKS5 method 0, which was not offered"),
        ("050205", "version of the authentication status is 5"),
        ("0502010001", "SOCKS version of the reply is 1"),
        ("05020100050001", "reserved byte of the reply is 1"),
        ("0502010005000002", "unknown SOCKS5 address type 2"),
    ],
)
def test_client_refuses_the_first_wrong_byte(stream_hex: str, fault: str) -> None:
    stream = bytes.fromhex(stream_hex)
    machine = ClientNegotiation()
    assert machine.receive(stream[:-1]) == len(stream) - 1
    with pytest.raises(RemoteProtocolError, match=fault):
        machine.receive(stream[-1:])
