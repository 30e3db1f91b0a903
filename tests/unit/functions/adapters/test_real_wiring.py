"""The functions as wired for AWS, real adapters against servers on loopback: one session, connect to end."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.auth.macs import (
    encode_unpadded,
    http_date,
    relay_token,
    resume_mac,
    session_id,
    sign_connect,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening import socks5
from emissary_lib.protocol.opening.exchange import opening_bytes
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Resumed
from emissary_local.net.certificates import create_certificates
from functions.common import wiring
from functions.connect.app import make_handler as connect_handler
from functions.default.app import make_handler as default_handler
from functions.disconnect.app import make_handler as disconnect_handler
from tests.helpers.events import DIALER, DIALER_AGAIN, HOST, KEY, RELAY, RESUME_NONCE, load_event
from tests.unit.functions.adapters.callback_server import CallbackServer
from tests.unit.functions.adapters.conftest import SLOTS, TABLE, Dynamo


@pytest.fixture
def gateway() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        yield server


@pytest.fixture
def lambda_service() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        server.status = 202
        yield server


@pytest.fixture
def environ(
    dynamo: Dynamo,
    gateway: CallbackServer,
    lambda_service: CallbackServer,
) -> dict[str, str]:
    """The variables of a function in a local cloud."""
    return {
        "AWS_ACCESS_KEY_ID": "example",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_SESSION_TOKEN": "example",
        "AWS_ENDPOINT_URL_DYNAMODB": dynamo.url,
        "AWS_ENDPOINT_URL_LAMBDA": lambda_service.url.removesuffix("/emissary"),
        "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": gateway.url,
        "AWS_REGION": "eu-central-1",
        "EMISSARY_TABLE": TABLE,
        "EMISSARY_SLOT_TABLE": SLOTS,
        "EMISSARY_RELAY_FUNCTION": "relay",
        "EMISSARY_AUTH_KEYS": format_keys([KEY]),
        "EMISSARY_ALLOWED_PROXY_TARGETS": '[{"host": "db.internal", "port": 5432}]',
    }


def test_in_an_emulator_a_dialer_is_answered_where_the_events_say(
    environ: dict[str, str], tmp_path: pathlib.Path, dynamo: Dynamo
) -> None:
    """As MiniStack has it: one address for all services, @connections at the API's own, on a port."""
    certificates = create_certificates(tmp_path)
    with CallbackServer(certificates.server_context()) as api:
        del environ["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"]
        environ |= {"AWS_ENDPOINT_URL": dynamo.url, "AWS_CA_BUNDLE": certificates.ca_file}
        endpoint = Endpoint(api.url.replace("https:", "wss:"))
        nonce, date = os.urandom(32), http_date(time.time())
        functions = wiring.Connect(environ), wiring.Default(environ)
        signed = sign_connect(KEY, date=date, nonce=nonce, host=endpoint.host).to_headers()
        dialer = load_event("connect_dialer", headers=signed)
        greeting = Frame(FrameType.OPENING, generation=1, window=65_536, payload=socks5.greeting())
        message = load_event("default_data", body=encode(greeting))
        for event in (dialer, message):
            event["requestContext"] |= {"domainName": endpoint.authority, "stage": "emissary"}
        assert connect_handler(functions[0])(dialer, None)["statusCode"] == 200
        assert default_handler(functions[1])(message, None) == {"statusCode": 200}
        for function in functions:
            function.close()
    assert [(each.method, each.path) for each in api.asked] == [
        ("POST", f"/emissary/@connections/{DIALER.replace('=', '%3D')}")
    ]


def test_a_session_from_door_to_end(
    environ: dict[str, str], dynamo: Dynamo, gateway: CallbackServer, lambda_service: CallbackServer
) -> None:
    nonce, date = os.urandom(32), http_date(time.time())
    functions = wiring.Connect(environ), wiring.Default(environ), wiring.Disconnect(environ)
    connect, default = connect_handler(functions[0]), default_handler(functions[1])
    disconnect = disconnect_handler(functions[2])

    def send(sender: str, frame: Frame) -> None:
        event = load_event("default_data", connection_id=sender, body=encode(frame))
        assert default(event, None) == {"statusCode": 200}

    def posts() -> list[tuple[str, Frame]]:
        found = [(asked.path.rpartition("/")[2], decode(asked.body)) for asked in gateway.asked]
        gateway.asked.clear()
        return found

    signed = sign_connect(KEY, date=date, nonce=nonce, host=HOST).to_headers()
    dialer = load_event("connect_dialer", headers=signed)
    assert connect(dialer, None)["statusCode"] == 200
    assert (
        connect(load_event("connect_dialer", headers=signed, connection_id="x="), None)["statusCode"] == 409
    )

    stream = opening_bytes(key=KEY, date=date, nonce=nonce, target=Target("db.internal", 5432))
    send(DIALER, Frame(FrameType.OPENING, generation=1, window=65_536, payload=stream))
    assert posts() == []
    (invoked,) = lambda_service.asked
    launch: dict[str, Any] = json.loads(invoked.body)
    assert launch["session"] == session_id(nonce)

    claim = {"X-Emissary-Session": launch["session"], "X-Emissary-Relay-Token": launch["relay_token"]}
    assert connect(load_event("connect_relay", headers=claim), None)["statusCode"] == 200
    other = relay_token(KEY, session=launch["session"], random=bytes(16))
    late = {**claim, "X-Emissary-Relay-Token": encode_unpadded(other), "X-Emissary-Epoch": "2"}
    assert connect(load_event("connect_relay", headers=late), None)["statusCode"] == 409

    up = Frame(FrameType.DATA, generation=2, offset=len(stream), payload=bytes(90_000))
    send(DIALER, up)
    requests = dynamo.requests
    send(DIALER, up)
    assert dynamo.requests == requests, "a known peer costs no table request"
    assert posts() == [(RELAY.replace("=", "%3D"), up)] * 2

    proof = {
        "X-Emissary-Date": date,
        "X-Emissary-Session": launch["session"],
        "X-Emissary-Resume-Token": launch["resume_token"],
        "X-Emissary-Mac": encode_unpadded(
            resume_mac(KEY, date=date, nonce=RESUME_NONCE, host=HOST, session=launch["session"], epoch=2)
        ),
    }
    assert connect(load_event("connect_resume", headers=proof), None)["statusCode"] == 200
    send(DIALER_AGAIN, Frame(FrameType.RESUME, generation=3))
    methods = [asked.method for asked in gateway.asked]
    closed = gateway.asked.pop().path.rpartition("/")[2]
    assert (methods, closed) == (["POST", "POST", "DELETE"], DIALER.replace("=", "%3D"))
    where = Resumed(2, 1, DIALER_AGAIN, RELAY)
    assert [(to, Resumed.decode(frame.payload)) for to, frame in posts()] == [
        (connection.replace("=", "%3D"), where) for connection in (RELAY, DIALER_AGAIN)
    ]

    send(RELAY, Frame(FrameType.END, generation=2, payload=End(Code.OK, 400, 500).encode()))
    ended = posts()
    assert {to for to, _ in ended} == {DIALER_AGAIN.replace("=", "%3D"), RELAY.replace("=", "%3D")}
    assert {Ended.decode(frame.payload) for _, frame in ended} == {Ended(Code.OK, 500, 400, "clean")}
    for name in ("disconnect_dialer", "disconnect_relay"):
        assert disconnect(load_event(name), None) == {"statusCode": 200}
    assert posts() == []
    for function in functions:
        function.close()
