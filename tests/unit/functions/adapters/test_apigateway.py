"""Posting to connections over a real socket: signature, statuses, kept connections and their death."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from emissary_lib.protocol.errors import ConfigError
from emissary_local.net.certificates import create_certificates
from functions.common.adapters.apigateway import PostToConnection, callback_endpoint
from functions.common.adapters.sigv4 import Credentials
from functions.common.adapters.trust import trust
from functions.common.errors import (
    MessageTooLargeError,
    PeerBusyError,
    PeerGoneError,
    PeerRefusedError,
    PeerUnreachableError,
)
from tests.helpers.events import DIALER
from tests.helpers.patience import HANG, wait_until
from tests.unit.functions.adapters.callback_server import CallbackServer

CREDENTIALS = Credentials("AKIDEXAMPLE", "example secret", "example session token")
PATH = "/emissary/@connections/Uv8abcE0FiACDIA%3D"


def make_link(url: str, timeout: float = HANG) -> PostToConnection:
    return PostToConnection(url, region="eu-central-1", credentials=CREDENTIALS, timeout=timeout)


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        yield server


@pytest.fixture
def link(server: CallbackServer) -> Iterator[PostToConnection]:
    link = make_link(server.url)
    yield link
    link.close()


def test_a_post_carries_the_text_to_the_escaped_path_signed(
    server: CallbackServer, link: PostToConnection
) -> None:
    link.post(DIALER, b"text")
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", PATH, b"text")
    assert asked.headers["x-amz-security-token"] == "example session token"
    # The same request, signed by botocore at the same second, has the same signature.
    expected = AWSRequest("POST", server.url.removesuffix("/emissary") + PATH, data=b"text")
    expected.context["timestamp"] = asked.headers["x-amz-date"]
    signer = SigV4Auth(BotocoreCredentials(*CREDENTIALS), "execute-api", "eu-central-1")
    expected.headers["X-Amz-Date"] = asked.headers["x-amz-date"]
    expected.headers["X-Amz-Security-Token"] = "example session token"
    canonical = signer.canonical_request(expected)
    assert "%253D" in canonical, "the path is escaped twice where it is signed"
    signature = signer.signature(signer.string_to_sign(expected, canonical), expected)
    assert asked.headers["authorization"].endswith(f"Signature={signature}")
    assert "/eu-central-1/execute-api/aws4_request" in asked.headers["authorization"]


def test_connections_are_kept(server: CallbackServer, link: PostToConnection) -> None:
    for _ in range(5):
        link.post(DIALER, b"text")
    assert len({asked.client_port for asked in server.asked}) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (410, PeerGoneError),
        (429, PeerBusyError),
        (400, PeerRefusedError),
        (403, PeerRefusedError),
        (500, PeerUnreachableError),
    ],
)
def test_each_refusal_has_its_error(
    server: CallbackServer, link: PostToConnection, status: int, error: type[Exception]
) -> None:
    server.status, server.error_type = status, "SomeException:http://internal/"
    with pytest.raises(error, match=f"status {status}, SomeException$") as caught:
        link.post(DIALER, b"text")
    assert type(caught.value) is error
    server.status = 200
    link.post(DIALER, b"text")
    assert len({asked.client_port for asked in server.asked}) == 1, "a refusal does not cost the connection"


def test_a_message_that_is_too_large_is_named_with_its_size(
    server: CallbackServer, link: PostToConnection
) -> None:
    server.status, server.error_type = 413, "PayloadTooLargeException"
    text = r"status 413, PayloadTooLargeException: the gateway takes no message of 50001 bytes; .*128 KB"
    with pytest.raises(MessageTooLargeError, match=text):
        link.post(DIALER, b"x" * 50_001)


def test_delete_closes_a_connection_and_is_content_if_it_is_gone(
    server: CallbackServer, link: PostToConnection
) -> None:
    link.delete(DIALER)
    server.status = 410
    link.delete(DIALER)
    assert [(asked.method, asked.path) for asked in server.asked] == [("DELETE", PATH)] * 2


def test_a_kept_connection_that_died_in_use_is_replaced_once(
    server: CallbackServer, link: PostToConnection
) -> None:
    link.post(DIALER, b"first")
    server.hang_up = 1
    link.post(DIALER, b"second")
    assert [asked.body for asked in server.asked] == [b"first", b"second", b"second"]
    server.hang_up = 2
    with pytest.raises(PeerUnreachableError, match="RemoteDisconnected"):
        link.post(DIALER, b"third")
    assert [asked.body for asked in server.asked[3:]] == [b"third", b"third"]


def test_a_fresh_connection_that_dies_is_not_tried_again(
    server: CallbackServer, link: PostToConnection
) -> None:
    server.hang_up = 1
    with pytest.raises(PeerUnreachableError):
        link.post(DIALER, b"text")
    assert len(server.asked) == 1


def test_a_connection_closed_while_idle_is_not_used() -> None:
    """After a freeze the gateway has long closed what we kept: no request is wasted on it."""
    wasted: list[bytes] = []
    closed = threading.Event()

    def answer(peer: socket.socket) -> None:
        received = b""
        while not received.endswith(b"\r\n\r\ntext"):
            received += peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def serve() -> None:
        first, _address = listener.accept()
        with first:
            answer(first)
            first.shutdown(socket.SHUT_WR)  # closed for the client, but we still hear what it sends
            closed.set()
            wasted.append(first.recv(65_536))
        second, _address = listener.accept()
        with second:
            answer(second)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        link = make_link(f"http://127.0.0.1:{listener.getsockname()[1]}/emissary")
        link.post(DIALER, b"text")
        assert closed.wait(HANG)
        link.post(DIALER, b"text")
        thread.join(HANG)
        link.close()
    assert wasted == [b""]


def test_a_gateway_that_does_not_answer_is_given_up_after_the_timeout(server: CallbackServer) -> None:
    server.silent = True
    link = make_link(server.url, timeout=0.05)
    with pytest.raises(PeerUnreachableError, match="TimeoutError"):
        link.post(DIALER, b"text")
    link.close()
    wait_until(lambda: server.asked, "the request has come")
    assert len(server.asked) == 1, "a timeout is not followed by a second one"


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses, and stays ours
        link = make_link(f"http://127.0.0.1:{taken.getsockname()[1]}/emissary")
        with pytest.raises(PeerUnreachableError, match="ConnectionRefusedError"):
            link.post(DIALER, b"text")


def test_several_threads_post_at_once(server: CallbackServer, link: PostToConnection) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: link.post(DIALER, b"%d" % number * 50_000), range(8)))
        list(pool.map(lambda number: link.post(DIALER, b"%d" % number * 50_000), range(8)))
    bodies = sorted(asked.body for asked in server.asked)
    assert bodies == sorted([str(number).encode() * 50_000 for number in range(8)] * 2)


def test_tls_is_checked_against_the_given_authority(tmp_path: Path) -> None:
    certificates = create_certificates(tmp_path)
    with CallbackServer(certificates.server_context()) as server:
        link = PostToConnection(
            server.url,
            region="eu-central-1",
            credentials=CREDENTIALS,
            tls=trust({"AWS_CA_BUNDLE": certificates.ca_file}),
        )
        link.post(DIALER, b"text")
        link.post(DIALER, b"text")
        assert len(server.asked) == 2
        link.close()


@pytest.mark.parametrize("endpoint", ["", "wss://example/stage", "https:///stage", "example/stage"])
def test_a_wrong_endpoint_is_a_config_error(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="callback endpoint"):
        make_link(endpoint)


def test_the_endpoint_is_the_events_own_unless_the_sdks_own_variable_redirects_it() -> None:
    assert callback_endpoint("api.example", "emissary", {}) == "https://api.example/emissary"
    local = {"AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": "http://127.0.0.1:8/emissary/"}
    assert callback_endpoint("api.example", "emissary", local) == "http://127.0.0.1:8/emissary"


@pytest.mark.parametrize("more", [{}, {"AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": ""}])
def test_the_address_of_every_service_is_not_that_of_the_callbacks(more: dict[str, str]) -> None:
    emulator = {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566", **more}
    assert callback_endpoint("api.example", "emissary", emulator) == "https://api.example/emissary"


def test_trust_checks_names_and_certificates() -> None:
    context = trust({})
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
