"""TLS: to the gateway, through the tunnel, and both at once."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

import pytest

from emissary_lib import Dialer
from emissary_lib.exceptions import GatewayUnreachableError
from emissary_local import LocalCloud
from emissary_local.net.certificates import Certificates, create_certificates
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of, relay_returned
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, Service, echo

pytestmark = LINUX_ONLY


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def client(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca_file)


@pytest.fixture
def secure_echo(certificates: Certificates) -> Service:
    context = certificates.server_context()

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            echo(secure)
            with secure.unwrap():  # says goodbye, as TLS wants it
                pass

    return serve


@pytest.fixture(scope="module")
def tls_cloud() -> Iterator[LocalCloud]:
    """A cloud whose addresses are those of AWS: wss:// and https://, under an authority of its own."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, tls=True) as running:
        yield running


def exchange(secure: ssl.SSLSocket, data: bytes) -> bytes:
    secure.sendall(data)
    got = bytearray()
    while len(got) < len(data) and (chunk := secure.recv(65_536)):
        got += chunk
    return bytes(got)


def test_wrapped_socket_carries_tls_end_to_end(
    cloud: LocalCloud, either_dialer: Dialer, client: ssl.SSLContext, secure_echo: Service
) -> None:
    data = os.urandom(15_000)
    with Server(secure_echo) as target:
        sock = either_dialer.dial(target, DIAL)
        sock.settimeout(HANG)
        session = sock.session
        assert session is not None
        # wrap_socket detaches the descriptor: the tunnel has to live on without the object.
        with client.wrap_socket(sock, server_hostname="localhost") as secure:
            assert sock.fileno() == -1
            del sock
            assert secure.version() == "TLSv1.3"
            assert exchange(secure, data) == data
            with secure.unwrap() as plain:  # close_notify both ways: nothing was cut off
                plain.shutdown(socket.SHUT_WR)
                assert plain.recv(1) == b""
        assert relay_returned(cloud, session.id) == "OK"


def test_wrong_name_in_the_targets_certificate_is_found_out(
    dialer: Dialer, client: ssl.SSLContext, secure_echo: Service
) -> None:
    with Server(secure_echo) as target, dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        with pytest.raises(ssl.SSLCertVerificationError):
            client.wrap_socket(sock, server_hostname="db.internal")


def test_gateway_over_tls_carries_tls_in_the_tunnel(
    tls_cloud: LocalCloud, client: ssl.SSLContext, secure_echo: Service
) -> None:
    data = os.urandom(15_000)
    assert tls_cloud.url.startswith("wss://")
    with (
        dialer_of(tls_cloud, ssl_context=tls_cloud.ssl_context) as dialer,
        Server(secure_echo) as target,
    ):
        sock = dialer.dial(target, DIAL)
        sock.settimeout(HANG)
        with client.wrap_socket(sock, server_hostname="localhost") as secure:
            assert exchange(secure, data) == data


def test_gateway_whose_certificate_nobody_vouches_for_is_not_talked_to(tls_cloud: LocalCloud) -> None:
    before = tls_cloud.meter.connects
    with dialer_of(tls_cloud) as dialer:
        with pytest.raises(GatewayUnreachableError, match=r"(?i)certificate"):
            dialer.dial("127.0.0.1:5432", HANG)
    assert tls_cloud.meter.connects == before


def test_megabyte_over_the_gateways_tls(tls_cloud: LocalCloud) -> None:
    data = os.urandom(1_000_000)
    with (
        dialer_of(tls_cloud, ssl_context=tls_cloud.ssl_context) as dialer,
        Server(echo) as target,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        got = bytearray()
        for start in range(0, len(data), 100_000):
            sock.sendall(data[start : start + 100_000])
            while len(got) < start + 100_000:
                got += sock.recv(65_536)
        assert got == data
