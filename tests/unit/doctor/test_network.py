"""The doctor's own sockets, against servers on loopback."""

from __future__ import annotations

import pathlib
import socket
import ssl
import threading
import time

import pytest

from emissary_lib.doctor import network
from emissary_local.net.certificates import Certificates, create_certificates
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, sink, source, unused_port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


def answering(answer: bytes, asked: list[bytes]) -> Server:
    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65_536))
        connection.sendall(answer)

    return Server(serve)


def test_an_address_resolves_to_itself_once() -> None:
    assert network.resolve("127.0.0.1", HANG) == ("127.0.0.1",)
    assert "127.0.0.1" in network.resolve("localhost", HANG)


@pytest.mark.parametrize("name", ["no-such-name.invalid", "a..b", "x" * 64 + ".example"])
def test_a_name_that_does_not_resolve_is_an_os_error(name: str) -> None:
    with pytest.raises(socket.gaierror):
        network.resolve(name, HANG)


def test_a_name_server_that_does_not_answer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing on loopback stands in for a name server: the C library has its own configuration.
    answer = threading.Event()

    def getaddrinfo(*args: object, **options: object) -> list[object]:
        answer.wait(HANG)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with pytest.raises(TimeoutError, match="did not answer in time"):
            network.resolve("slow.example", 0.05)
    finally:
        answer.set()


def test_a_get_tells_status_and_date() -> None:
    asked: list[bytes] = []
    answer = b"HTTP/1.1 426 Upgrade Required\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX: y\r\n\r\nbody"
    with answering(answer, asked) as (host, port):
        connection = network.connect(host, port, HANG)
        seen = connection.ask("gateway.example", "/emissary", HANG)
        connection.close()
        connection.close()
    assert (seen.status, seen.date) == (426, "Sun, 06 Nov 1994 08:49:37 GMT")
    assert asked[0].startswith(b"GET /emissary HTTP/1.1\r\nHost: gateway.example\r\n")
    assert b"Emissary-" not in asked[0]


def test_an_answer_that_comes_byte_by_byte_does_not_stretch_the_timeout() -> None:
    def drip(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with Server(drip) as (host, port):
        connection = network.connect(host, port, HANG)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.ask("gateway.example", "/", 0.1)
        assert time.monotonic() - began < HANG  # the longest head would take five minutes
        connection.close()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\r\n\r\n"])
def test_an_answer_that_is_no_http_is_a_value_error(answer: bytes) -> None:
    with answering(answer, []) as (host, port):
        connection = network.connect(host, port, HANG)
        with pytest.raises(ValueError, match="does not speak HTTP"):
            connection.ask("gateway.example", "/", HANG)
        connection.close()


def test_a_hang_up_is_an_os_error() -> None:
    with Server(source(b"")) as (host, port):
        connection = network.connect(host, port, HANG)
        with pytest.raises(ConnectionResetError):
            connection.ask("gateway.example", "/", HANG)
        connection.close()


def test_silence_ends_with_the_timeout() -> None:
    with Server(sink) as (host, port):
        connection = network.connect(host, port, HANG)
        with pytest.raises(TimeoutError):
            connection.ask("gateway.example", "/", 0.05)
        connection.close()


def test_a_port_that_nobody_listens_on_is_an_os_error() -> None:
    with unused_port() as (host, port), pytest.raises(ConnectionRefusedError):
        network.connect(host, port, HANG)


def serving_tls(certificates: Certificates) -> Server:
    context = certificates.server_context()

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            sink(secure)

    return Server(serve)


def test_a_handshake_tells_version_authority_and_end(certificates: Certificates) -> None:
    with serving_tls(certificates) as (host, port):
        connection = network.connect(host, port, HANG)
        seen = connection.secure("localhost", ssl.create_default_context(cafile=certificates.ca_file), HANG)
        connection.close()
    assert seen.version == "TLSv1.3"
    assert seen.issuer == "Emissary local cloud (test authority)"
    assert seen.expires is not None
    assert 0.9 * 86_400 < seen.expires - time.time() < 86_400


@pytest.mark.parametrize(("name", "trusts", "number"), [("localhost", False, 20), ("db.example", True, 62)])
def test_a_bad_certificate_has_openssl_s_number(
    certificates: Certificates, name: str, trusts: bool, number: int
) -> None:
    with serving_tls(certificates) as (host, port):
        connection = network.connect(host, port, HANG)
        context = ssl.create_default_context(cafile=certificates.ca_file) if trusts else None
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            connection.secure(name, context, HANG)
        connection.close()
    assert caught.value.verify_code == number


def test_a_server_without_tls_is_no_certificate_s_fault(tmp_path: pathlib.Path) -> None:
    with Server(source(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (host, port):
        connection = network.connect(host, port, HANG)
        with pytest.raises(ssl.SSLError) as caught:
            connection.secure("localhost", None, HANG)
        connection.close()
    assert not isinstance(caught.value, ssl.SSLCertVerificationError)
