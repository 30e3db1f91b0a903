"""Handlers and relay rest on nothing that only the local cloud gives: tests/helpers/aws_shapes.py."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import botocore.session
import pytest

from emissary_lib.protocol.auth import headers as header_names
from emissary_local.aws.sigv4 import Credentials
from emissary_local.gateway.events import Client, EventWriter, new_id
from emissary_local.lambda_.variables import Endpoints, environment_variables
from emissary_local.template.specs import FunctionSpec
from functions.common import wiring
from functions.common.errors import MessageTooLargeError, PeerBusyError, PeerGoneError, PeerRefusedError
from functions.common.events import GatewayEvent
from functions.common.responses import STATUS, MessageNotHandledError
from tests.helpers import aws_shapes
from tests.helpers.events import EVENTS, HOST, load_event
from tests.helpers.sam_template import ROOT, translate_template
from tests.unit.functions.adapters.callback_server import CallbackServer
from tests.unit.functions.adapters.test_apigateway import make_link
from tests.unit.functions.bridge import Bridge

ROUTES: Final = sorted(aws_shapes.EVENTS)
VARIABLE: Final = re.compile(
    r"(?:EMISSARY|AWS|SSL|POWERTOOLS|LAMBDA)_[A-Z_]+|_X_AMZN_[A-Z_]+|_HANDLER|TZ|LANG|PATH"
)


class Watched(dict[str, Any]):
    """An event that notes which of its members are asked for."""

    def __init__(self, content: Mapping[str, Any], asked: set[str], path: str = "") -> None:
        super().__init__(
            (name, Watched(value, asked, f"{path}{name}.") if isinstance(value, Mapping) else value)
            for name, value in content.items()
        )
        self._asked, self._path = asked, path

    def get(self, name: str, default: Any = None) -> Any:
        self._asked.add(self._path + name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self._asked.add(self._path + name)
        return super().__getitem__(name)


def gateway_events() -> Iterator[dict[str, Any]]:
    for path in sorted(EVENTS.glob("*.json")):
        if not path.stem.startswith("relay_"):
            yield load_event(path.stem)


def handle(event: Mapping[str, Any], bridge: Bridge | None = None) -> Any:
    bridge = bridge or Bridge()
    route = event["requestContext"]["routeKey"]
    handlers = {"$connect": bridge.connect, "$disconnect": bridge.disconnect}
    return handlers.get(route, bridge.message)(event)


def sources(*tops: str, but: str = "") -> Iterator[ast.AST]:
    for top in tops:
        for path in sorted((ROOT / top).rglob("*.py")):
            if but not in path.parts:
                yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def leaf(event: Mapping[str, Any], path: str) -> Any:
    found: Any = event
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


# -- events ----------------------------------------------------------------------------------------


def test_handlers_ask_for_the_listed_members_of_an_event_and_no_other() -> None:
    asked: set[str] = set()
    for event in gateway_events():
        with contextlib.suppress(MessageNotHandledError):
            handle(Watched(event, asked))
    mappings = {"requestContext", "requestContext.identity"}
    found = {path for path in asked - mappings if not path.startswith("headers.")}
    assert found == set(aws_shapes.EVENT)


def test_handlers_ask_for_the_listed_headers_and_no_other() -> None:
    """By their names in the code: all headers of an event are read, and few are looked at."""
    ours = {getattr(header_names, name) for name in dir(header_names) if name.isupper()}
    found = {value for value in ours if isinstance(value, str)}
    looked_at = {
        node.value
        for node in sources("functions", but="adapters")  # which see no event, and name what they send
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(?:Sec|X|Host|User|Origin)(?:-[A-Za-z]+)*", node.value)
    }
    assert found | looked_at == aws_shapes.HEADERS


@pytest.mark.parametrize("route", ROUTES)
def test_a_recorded_event_has_all_that_a_handler_needs(route: str) -> None:
    event = aws_shapes.EVENTS[route]
    for path, use in aws_shapes.EVENT.items():
        assert not use.needed or isinstance(leaf(event, path), str), path
    parsed = GatewayEvent.parse(event)
    assert (parsed.route, parsed.domain, parsed.source) == (route, HOST, "203.0.113.7")
    assert parsed.close_code == (1005 if route == "$disconnect" else None)
    for path, use in aws_shapes.EVENT.items():
        assert any(leaf(each, path) is not None for each in aws_shapes.EVENTS.values()), (path, use.source)


@pytest.mark.parametrize("route", ROUTES)
def test_what_api_gateway_writes_besides_makes_no_difference(route: str) -> None:
    event = json.loads(json.dumps(aws_shapes.EVENTS[route]))
    plain = GatewayEvent.parse(event)
    event["requestContext"] = {**aws_shapes.MORE[route], **event["requestContext"]}
    event["requestContext"]["identity"] |= aws_shapes.MORE_IDENTITY
    assert GatewayEvent.parse({**event, "stageVariables": None}) == plain


@pytest.mark.parametrize("write", [str.lower, str.upper], ids=["lower", "upper"])
def test_headers_count_in_any_case(write: Any) -> None:
    for event in gateway_events():
        if event["requestContext"]["routeKey"] == "$connect":
            bridge, other = Bridge(), Bridge()
            written = {write(name): value for name, value in event["headers"].items()}
            assert handle({**event, "headers": written}, other) == handle(event, bridge)


@pytest.mark.parametrize(
    "kind", ["BFHPhfCWIAMCKlQ=", "a-b_c", "6f9619ff-8b86-d011-b42d-00c04fc964ff", "x/y+z==", "7"]
)
def test_an_id_is_any_text(kind: str) -> None:
    event = load_event("connect_dialer", connection_id=kind, request_id=kind)
    bridge = Bridge()
    assert bridge.connect(event)["statusCode"] == 200
    assert bridge.session.dialer.connection == kind


def keys(value: Any) -> Any:
    """The members of an event and the kinds of their values."""
    if isinstance(value, Mapping):
        return {name: keys(each) for name, each in value.items()}
    return type(value).__name__


def local_events() -> dict[str, Any]:
    client = Client(new_id(), f"{HOST}:8443", HOST, "emissary", "a1b2c3d4e5", "203.0.113.7", None, 1)
    writer = EventWriter(client)
    shown = [(name, aws_shapes.EVENTS["$connect"]["headers"][name]) for name in ("Host", "Sec-WebSocket-Key")]
    upgrade = [*shown, ("Sec-WebSocket-Version", "13"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    written = (
        writer.connect(new_id(), upgrade, "", 1.0, secure=True),
        writer.message("$default", new_id(), new_id(), b"text", 1.0),
        writer.disconnect(new_id(), 1005, "", 1.0),
    )
    events = [json.loads(each) for each in written]
    return {each["requestContext"]["routeKey"]: each for each in events}


@pytest.mark.parametrize("route", ROUTES)
def test_the_local_cloud_s_events_have_what_recorded_ones_have_and_nothing_else(route: str) -> None:
    event, recorded = local_events()[route], aws_shapes.EVENTS[route]
    assert keys(event) == keys(recorded)
    for name in ("connectionId", "requestId", "extendedRequestId"):
        assert re.fullmatch(r"[\w-]{15}=", event["requestContext"][name])
        assert re.fullmatch(r"[\w-]{15}=", recorded["requestContext"][name])
    assert event["requestContext"]["domainName"] == recorded["requestContext"]["domainName"] == HOST


def test_the_events_that_are_replayed_have_what_recorded_ones_have() -> None:
    for event in gateway_events():
        recorded = json.loads(json.dumps(aws_shapes.EVENTS[event["requestContext"]["routeKey"]]))
        if recorded["requestContext"]["routeKey"] == "$connect":
            sent = {
                name: value for name, value in event["headers"].items() if name not in recorded["headers"]
            }
            assert set(sent) <= aws_shapes.HEADERS | {"User-Agent"}
            for several in ("headers", "multiValueHeaders"):
                event[several] = {name: event[several][name] for name in recorded[several]}
        event["requestContext"]["identity"].pop("userAgent", None)
        assert keys(event) == keys(recorded)


# -- context and environment -----------------------------------------------------------------------


def test_functions_use_of_lambda_s_context_what_is_listed() -> None:
    used = {
        node.attr
        for node in sources("functions")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "context"
    }
    assert used - {"get"} == set(aws_shapes.CONTEXT)  # .get is of requestContext, a mapping


def set_by_the_template() -> set[str]:
    resources = translate_template()["Resources"].values()
    return {
        name
        for each in resources
        if each["Type"] == "AWS::Lambda::Function"
        for name in each["Properties"].get("Environment", {}).get("Variables", {})
    }


def test_functions_read_variables_that_the_template_sets_or_that_are_listed() -> None:
    read = {
        node.value
        for node in sources("functions", "emissary_lib/bridge")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value)
    }
    ours = {name for name in read if name.startswith("EMISSARY_")}  # example.env has them
    assert read - set_by_the_template() - ours == set(aws_shapes.ENVIRONMENT)


def test_lambda_gives_each_variable_that_is_needed_and_those_of_emulators_never() -> None:
    assert not aws_shapes.LAMBDA_VARIABLES & aws_shapes.REDIRECTIONS
    assert set(aws_shapes.ENVIRONMENT) <= aws_shapes.LAMBDA_VARIABLES | aws_shapes.REDIRECTIONS
    needed = {name for name, use in aws_shapes.ENVIRONMENT.items() if use.needed}
    assert needed <= aws_shapes.LAMBDA_VARIABLES


def test_the_local_cloud_gives_a_function_what_lambda_gives_and_what_leads_to_it(
    tmp_path: pathlib.Path,
) -> None:
    spec = FunctionSpec("F", "f", "arn", "app.f", "python3.13", tmp_path, 1.0, 128, {"COLOUR": "blue"})
    endpoints = Endpoints("http://127.0.0.1:1", "http://127.0.0.1:2/s", "ws://127.0.0.1:2/s", "ca.pem")
    given = set(environment_variables(spec, Credentials("a", "b", "c", "F"), endpoints, "127.0.0.1:3", "x"))
    assert given - {"COLOUR"} <= aws_shapes.LAMBDA_VARIABLES | aws_shapes.REDIRECTIONS
    assert given >= aws_shapes.REDIRECTIONS


def test_connect_posts_to_nobody_since_its_connection_is_not_there_yet() -> None:
    """Source: AWS re:Post, knowledge-center/410-gone-api-gateway."""
    assert "link" in inspect.signature(wiring.on_message).parameters
    assert "link" not in inspect.signature(wiring.on_connect).parameters


# -- statuses --------------------------------------------------------------------------------------


def test_connect_refuses_with_the_listed_statuses() -> None:
    assert set(STATUS.values()) == aws_shapes.CONNECT_STATUSES


def test_the_statuses_of_connections_are_those_of_the_sdk_s_model() -> None:
    model = botocore.session.Session().get_service_model("apigatewaymanagementapi")
    errors = {
        each.metadata["error"]["httpStatusCode"]: each.name
        for name in model.operation_names
        for each in model.operation_model(name).error_shapes
    }
    assert errors == aws_shapes.CALLBACK_STATUSES


@pytest.mark.parametrize("typed", [True, False], ids=["with its type", "without"])
def test_each_status_of_connections_has_its_meaning_whether_its_type_is_named_or_not(typed: bool) -> None:
    meanings = {
        403: PeerRefusedError,
        410: PeerGoneError,
        413: MessageTooLargeError,
        429: PeerBusyError,
    }
    assert set(meanings) == set(aws_shapes.CALLBACK_STATUSES)
    with CallbackServer() as server:
        link = make_link(server.url)
        for status, meaning in meanings.items():
            server.status = status
            server.error_type = aws_shapes.CALLBACK_STATUSES[status] if typed else ""
            with pytest.raises(meaning) as caught:
                link.post("BFHPhfCWIAMCKlQ=", b"text")
            assert type(caught.value) is meaning
        link.close()
