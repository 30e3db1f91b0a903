"""The relay put together: whatever its event says, it talks to nothing but the template's own API."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib.bridge.launch import Launch
from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.record import replace
from emissary_lib.transport import happy_eyeballs
from functions.relay.wiring import RelayFunction
from tests.helpers.events import load_event
from tests.helpers.patience import HANG
from tests.helpers.servers import BlackHole
from tests.unit.functions.relay.harness import example_launch


class Api(http.server.ThreadingHTTPServer):
    """Refuses every dial-back as API Gateway would, accepts every post, and keeps what it is asked."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, str]] = []

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a relay of this API."""
        base = f"127.0.0.1:{self.server_address[1]}/emissary"
        return {
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": f"http://{base}",
            "EMISSARY_WEBSOCKET_URL": f"ws://{base}",
            "EMISSARY_ALLOWED_PROXY_TARGETS": '[{"host": "other.internal", "port": 5432}]',
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self._answer(409)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("X-Emissary-Session", "")))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_relay_dials_back_to_its_own_api_whatever_the_event_says(api: Api) -> None:
    event = load_event("relay_start")
    event |= {"host": "evil.example", "websocket_url": "ws://evil.example/emissary", "expires": 1e12}
    launch = Launch.parse(event)
    assert RelayFunction(api.environ).relay.serve(launch, 100.0) is None
    assert api.requests == [("GET", "/emissary", launch.session)]


def test_relay_posts_under_its_own_stage_whatever_the_connection_is_called(api: Api) -> None:
    launch = replace(example_launch(), dialer_connection="../../@evil.example/?#")
    RelayFunction(api.environ).relay.poster.post(launch.dialer_connection, b"text")
    assert api.requests == [
        ("POST", "/emissary/@connections/..%2F..%2F%40evil.example%2F%3F%23", ""),
    ]


def test_relay_reaches_its_api_though_the_first_address_swallows_everything(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a VPC whose only way out is an egress-only internet gateway, where IPv4 may come first."""
    there = api.server_address[:2]
    environ = {name: value.replace("127.0.0.1", "localhost") for name, value in api.environ.items()}
    launch = replace(Launch.parse(load_event("relay_start")), expires=1e12)
    monkeypatch.setattr(happy_eyeballs, "CONNECTION_ATTEMPT_DELAY", 0.001)
    with BlackHole() as swallowing:
        addresses = [*[swallowing] * 50, there]  # at 2 s or more each, one after the other, a hang

        def both(*_asked: object, **_options: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", both)
        relay = RelayFunction(environ).relay
        began = time.monotonic()
        assert relay.serve(launch, 100.0) is None
        relay.poster.post("connection=", b"text")
        assert time.monotonic() - began < HANG
    assert [method for method, _path, _session in api.requests] == ["GET", "POST"]


def test_outside_lambda_warming_up_does_nothing() -> None:
    RelayFunction({}).warm()


def test_wrong_settings_are_told_by_the_first_event_not_by_the_start() -> None:
    function = RelayFunction({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001", "EMISSARY_DNS_SERVERS": "x"})
    function.warm()
    with pytest.raises(ConfigError, match="EMISSARY_DNS_SERVERS"):
        _ = function.relay
