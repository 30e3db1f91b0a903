"""Bytes through the whole stack: small ones, first ones, last ones, none lost and none changed."""

from __future__ import annotations

import http.client
import os
import select
import socket

import pytest

from emissary_lib import Dialer, DialError, TunnelResetError
from emissary_lib.protocol.codes import Code
from emissary_local import LocalCloud
from tests.helpers.kinds import OWN, Kind
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    audit_records,
    dialer_of,
    only_connection_ended,
    relay_returned,
)
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, echo, greeter, resetter, sink, source
from tests.helpers.tunnels import read_to_end

pytestmark = LINUX_ONLY


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, or as many as come before the end."""
    got = bytearray()
    while len(got) < size and (data := sock.recv(min(65_536, size - len(got)))):
        got += data
    return bytes(got)


def test_single_newlines_arrive_as_they_were_sent(dialer: Dialer) -> None:
    # Another tunnel turns a lone 0x0A into 0x0D.
    with Server(echo) as target, dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        for _ in range(20):
            sock.sendall(b"\n")
            assert sock.recv(10) == b"\n"


def test_every_byte_value_comes_back(either_dialer: Dialer) -> None:
    data = bytes(range(256)) + b"\r\n\0\xff" + os.urandom(1000)
    with Server(echo) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        sock.sendall(data)
        assert receive(sock, len(data)) == data


def test_name_is_resolved_inside(dialer: Dialer) -> None:
    with Server(echo) as (_host, port), dialer.dial(f"localhost:{port}", DIAL) as sock:
        sock.settimeout(HANG)
        sock.sendall(b"by name")
        assert receive(sock, 7) == b"by name"


def test_target_that_speaks_first_is_heard_before_anything_is_sent(either_dialer: Dialer) -> None:
    with Server(greeter(b"220 ready\r\n")) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        assert receive(sock, 11) == b"220 ready\r\n"
        sock.sendall(b"EHLO\r\n")
        assert receive(sock, 6) == b"EHLO\r\n"


def test_target_that_closes_first_is_read_to_its_end(either_dialer: Dialer) -> None:
    data = os.urandom(300_000)
    with Server(source(data)) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        assert read_to_end(sock) == data
        sock.sendall(b"one direction may outlive the other")


def test_target_that_resets_at_once_is_a_reset_and_not_an_empty_answer(
    either_dialer: Dialer, kind: Kind, cloud: LocalCloud
) -> None:
    sessions: list[str] = []

    def read(target: tuple[str, int]) -> None:
        with either_dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            assert sock.session is not None
            sessions.append(sock.session.id)
            sock.recv(1)

    # A relay that is slow to look finds the connection reset before it has told of it.
    with Server(resetter(0)) as target, pytest.raises((TunnelResetError, DialError)) as caught:
        read(target)
    error = caught.value
    assert isinstance(error, TunnelResetError | DialError)
    assert error.code is Code.TARGET_RESET
    if isinstance(error, TunnelResetError):
        assert only_connection_ended(cloud, *sessions) == "TARGET_RESET"
        assert audit_record(cloud, *sessions)["code"] == ("OK" if kind.shared else "TARGET_RESET")


def test_reset_in_the_middle_names_the_target_as_its_cause(either_dialer: Dialer, cloud: LocalCloud) -> None:
    with Server(resetter(5)) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        session = sock.session
        assert session is not None
        sock.sendall(b"12345")
        with pytest.raises(TunnelResetError, match="outcome of a statement that was running is unknown"):
            sock.recv(1)
        assert only_connection_ended(cloud, session.id) == "TARGET_RESET"


def test_of_a_program_that_has_said_goodbye_in_tls_and_has_not_closed_yet_nothing_is_lost(
    either_dialer: Dialer,
) -> None:
    last = b"QUIT" + bytes.fromhex("17 03 03 00 13") + bytes(19)
    with Server(resetter(len(last))) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        sock.sendall(last)
        with pytest.raises(TunnelResetError) as caught:
            sock.recv(1)
    error = caught.value
    assert (error.code, error.whole, error.lost, error.untaken) == (Code.TARGET_RESET, True, 0, False)


def test_clean_session_has_one_audit_record_with_its_bytes(own_dialer: Dialer, cloud: LocalCloud) -> None:
    with Server(echo) as target:
        with own_dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            session = sock.session
            assert session is not None
            opening = (session.counters.bytes_sent, session.counters.bytes_received)
            sock.sendall(b"x" * 12_345)
            assert len(receive(sock, 12_345)) == 12_345
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert relay_returned(cloud, session.id) == "OK"
    record = audit_record(cloud, session.id)
    assert len(audit_records(cloud, session.id)) == 1
    assert (record["code"], record["reason"]) == ("OK", "clean")
    assert (record["key_id"], record["target"]) == (cloud.key.key_id, f"{target[0]}:{target[1]}")
    # Each stream's final offset: the SOCKS5 exchange, the bytes, and one for its end.
    assert record["dialer_bytes"] == opening[0] + 12_345 + 1
    assert record["relay_bytes"] == opening[1] + 12_345 + 1
    assert 0 < record["duration_s"] == round(record["ended"] - record["started"], 3)
    assert 0 < record["estimated_cost_usd"] < 0.001


def test_closed_socket_ends_the_session_without_a_word_to_the_target_but_its_end(
    either_dialer: Dialer, cloud: LocalCloud
) -> None:
    with Server(sink) as target:
        sock = either_dialer.dial(target, DIAL)
        session = sock.session
        assert session is not None
        sock.close()
        assert relay_returned(cloud, session.id) == "OK"


def test_socket_works_where_sockets_do(dialer: Dialer) -> None:
    with Server(echo) as target, dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        assert select.select([], [sock], [], HANG)[1] == [sock]
        sock.sendall(b"line one\nline two\n")
        assert select.select([sock], [], [], HANG)[0] == [sock]
        with sock.makefile("rb") as file:
            assert file.readline() == b"line one\n"
            assert file.readline() == b"line two\n"


def answer_http(connection: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")


def test_http_client_runs_over_create_connection(dialer: Dialer) -> None:
    with Server(answer_http) as (host, port):
        client = http.client.HTTPConnection(host, port)
        client.sock = dialer.create_connection((host, port), DIAL)
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"
        client.close()


def test_forwarded_port_serves_several_connections(either_dialer: Dialer) -> None:
    with Server(echo) as target, either_dialer.forward(target, timeout=DIAL) as address:
        socks = [socket.create_connection(address, HANG) for _ in range(3)]
        for number, sock in enumerate(socks):
            sock.settimeout(DIAL)
            sock.sendall(b"connection %d" % number)
        for number, sock in enumerate(socks):
            assert receive(sock, 12) == b"connection %d" % number
            sock.close()


def test_capacity_of_the_smallest_size_carries_everything(cloud: LocalCloud) -> None:
    data = os.urandom(500_000)
    with dialer_of(cloud, capacity=65_536) as dialer, Server(source(data)) as target:
        with dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            assert read_to_end(sock) == data


@pytest.mark.slow
def test_the_same_dial_with_a_new_process_for_every_invocation() -> None:
    # Nothing may depend on what an earlier invocation has left in memory.
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, fresh_environments=True) as cloud:
        with dialer_of(cloud, **OWN.options) as dialer, Server(echo) as target:
            with dialer.dial(target, DIAL) as sock:
                sock.settimeout(HANG)
                for number in range(5):
                    sock.sendall(b"%d" % number)
                    assert receive(sock, 1) == b"%d" % number
                session = sock.session
                assert session is not None
            assert relay_returned(cloud, session.id) == "OK"
        assert cloud.logs("DefaultFunction").count("INIT_REPORT") >= 7  # an opening, five messages, END
