"""template.yaml against the code: routes, handlers, rights, variables, times."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge.session import CONNECT_TIME, LONGEST_RELAY_TIME, RELAY_TIME
from emissary_lib.client.config import PING_RANGE, PONG_RANGE
from emissary_lib.protocol.constants import GRACE, OPENING_TIME, PING_INTERVAL, PONG_DEADLINE
from emissary_local.lambda_.service import LONGEST_TIMEOUT
from emissary_local.template.specs import Route, Template
from emissary_local.template.template import read_template
from functions.common import audit, config
from tests.helpers.sam_template import REQUIRED, TEMPLATE, of_type, source, strings

#: API Gateway's longest integration, in seconds (API Gateway WebSocket quotas).
INTEGRATION_TIMEOUT = 29

#: What each function may do, and to what. The whole list: nothing else may be granted.
RIGHTS = {
    "ConnectFunction": {
        ("secretsmanager:GetSecretValue", "secret"),
        ("dynamodb:GetItem", "table"),
        ("dynamodb:PutItem", "table"),
        ("dynamodb:UpdateItem", "table"),
        ("dynamodb:Query", "slots"),
        ("dynamodb:UpdateItem", "slots"),
        ("lambda:InvokeFunction", "relay"),
    },
    "DefaultFunction": {
        ("secretsmanager:GetSecretValue", "secret"),
        ("dynamodb:GetItem", "table"),
        ("dynamodb:UpdateItem", "table"),
        ("dynamodb:Query", "slots"),
        ("dynamodb:UpdateItem", "slots"),
        ("lambda:InvokeFunction", "relay"),
        ("execute-api:ManageConnections", "posts"),
        ("execute-api:ManageConnections", "closings"),
    },
    "DisconnectFunction": {
        ("dynamodb:GetItem", "table"),
        ("dynamodb:UpdateItem", "table"),
        ("dynamodb:UpdateItem", "slots"),
        ("execute-api:ManageConnections", "posts"),
    },
    "RelayFunction": {("execute-api:ManageConnections", "posts")},
}

#: Powertools reads them in every function: namespace and dimension of the metrics.
POWERTOOLS = {"POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_SERVICE_NAME"}

VARIABLES = {
    "ConnectFunction": {
        config.AUTH_KEYS_SECRET,
        config.MAX_SESSIONS,
        config.MAX_SESSIONS_PER_KEY,
        config.RELAY_CONCURRENCY,
        config.ALLOWED_TARGETS,
        config.RELAY_FUNCTION,
        config.RELAY_TIMEOUT,
        config.TABLE,
        config.SLOT_TABLE,
        config.LOG_LEVEL,
    },
    "DefaultFunction": {
        config.AUTH_KEYS_SECRET,
        config.MAX_SESSIONS,
        config.MAX_SESSIONS_PER_KEY,
        config.RELAY_CONCURRENCY,
        config.ALLOWED_TARGETS,
        config.TABLE,
        config.SLOT_TABLE,
        config.RELAY_FUNCTION,
        config.RELAY_TIMEOUT,
        config.RELAY_IPV6,
        config.GRACE_SECONDS,
        config.LOG_LEVEL,
    },
    "DisconnectFunction": {
        config.RELAY_IPV6,
        config.GRACE_SECONDS,
        config.TABLE,
        config.SLOT_TABLE,
        config.LOG_LEVEL,
    },
    "RelayFunction": {
        config.ALLOWED_TARGETS,
        "EMISSARY_DNS_SERVERS",
        config.GRACE_SECONDS,
        "EMISSARY_PING_SECONDS",
        "EMISSARY_PONG_SECONDS",
        "EMISSARY_WEBSOCKET_URL",
        config.LOG_LEVEL,
    },
}


@pytest.fixture(scope="module")
def template() -> Template:
    return read_template(TEMPLATE, REQUIRED)


def statements(template: Template, function: str) -> list[dict[str, Any]]:
    return [s for policy in template.functions[function].policies for s in policy["Statement"]]


def test_each_route_has_its_function(template: Template) -> None:
    assert template.api.routes == {
        "$connect": Route("ConnectFunction"),
        "$default": Route("DefaultFunction"),
        "$disconnect": Route("DisconnectFunction"),
    }
    (api,) = of_type(source()["Resources"], "AWS::Serverless::WebSocketApi").values()
    assert api["RouteSelectionExpression"] == "\\$default", "no message is parsed to be routed"


@pytest.mark.parametrize("name", ["ConnectFunction", "DefaultFunction", "DisconnectFunction"])
def test_each_handler_can_be_imported(template: Template, name: str) -> None:
    module, _, attribute = template.functions[name].handler.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_the_relays_handler_is_where_it_belongs(template: Template) -> None:
    assert template.functions["RelayFunction"].handler == "functions.relay.app.lambda_handler"


def test_both_throttles_are_set_everywhere(template: Template) -> None:
    throttles = [template.api.default_throttle, *template.api.route_throttles.values()]
    assert set(template.api.route_throttles) == {"$connect"}
    for throttle in throttles:
        assert throttle.burst
        assert throttle.rate


@pytest.mark.parametrize("name", RIGHTS)
def test_a_function_may_do_exactly_what_it_does(template: Template, name: str) -> None:
    table, slots = template.tables["SessionTable"], template.tables["SlotTable"]
    connections = rf"arn:aws:execute-api:[^:*]+:\d+:{template.api.api_id}/{re.escape(template.api.stage)}"
    kinds = {
        "table": re.compile(rf"arn:aws:dynamodb:[^:*]+:\d+:table/{re.escape(table.name)}"),
        "slots": re.compile(rf"arn:aws:dynamodb:[^:*]+:\d+:table/{re.escape(slots.name)}"),
        "secret": re.compile(r"arn:aws:secretsmanager:[^:*]+:\d+:secret:[^:*]*KeySecret[^:*]*"),
        "relay": re.compile(re.escape(template.functions["RelayFunction"].arn)),
        "posts": re.compile(rf"{connections}/POST/@connections/\*"),
        "closings": re.compile(rf"{connections}/DELETE/@connections/\*"),
    }
    granted = set()
    for statement in statements(template, name):
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        resource = statement["Resource"]
        (kind,) = (kind for kind, pattern in kinds.items() if pattern.fullmatch(resource))
        actions = statement["Action"]
        granted |= {(action, kind) for action in ([actions] if isinstance(actions, str) else actions)}
    assert granted == RIGHTS[name]


@pytest.mark.parametrize("name", VARIABLES)
def test_a_function_gets_exactly_the_variables_it_reads(template: Template, name: str) -> None:
    assert set(template.functions[name].environment) == VARIABLES[name] | POWERTOOLS


def test_every_variable_that_the_code_reads_is_given_to_somebody() -> None:
    read = {value for name, value in vars(config).items() if name.isupper() and "EMISSARY" in str(value)}
    # The keys themselves are for local use only: on AWS they are in the secret.
    assert read <= set().union(*VARIABLES.values()) | {config.AUTH_KEYS}


def test_the_relay_has_no_key_and_no_table(template: Template) -> None:
    relay = template.functions["RelayFunction"]
    for_handlers = {config.AUTH_KEYS, config.AUTH_KEYS_SECRET, config.TABLE, config.SLOT_TABLE}
    assert not for_handlers & set(relay.environment)
    said = " ".join(strings([dict(relay.environment), list(relay.policies)]))
    assert len(template.tables) == 2
    assert not any(table.name in said for table in template.tables.values())
    assert "secret" not in said


def test_only_the_relay_is_in_the_vpc() -> None:
    resources = source()["Resources"]
    in_vpc = {name for name, resource in resources.items() if "VpcConfig" in resource["Properties"]}
    assert in_vpc == {"RelayFunction"}


def test_times_fit_into_each_other(template: Template) -> None:
    relay = template.functions["RelayFunction"]
    assert relay.timeout == RELAY_TIME
    assert source()["Parameters"]["RelayTimeout"]["MaxValue"] == LONGEST_RELAY_TIME == LONGEST_TIMEOUT
    assert template.functions["ConnectFunction"].timeout == CONNECT_TIME
    assert relay.event_age == OPENING_TIME
    assert relay.retry_attempts == 0
    for name in ("ConnectFunction", "DefaultFunction", "DisconnectFunction"):
        assert template.functions[name].timeout < INTEGRATION_TIMEOUT


def test_the_relay_waits_for_a_lost_side_as_long_as_the_protocol_says_unless_told_otherwise(
    template: Template,
) -> None:
    grace = template.functions["RelayFunction"].environment["EMISSARY_GRACE_SECONDS"]
    assert float(grace) == GRACE


@pytest.mark.parametrize("timeout", [61, LONGEST_RELAY_TIME])
def test_the_bridge_keeps_a_place_for_as_long_as_the_relay_lives_and_may_come_back(timeout: float) -> None:
    given = {**REQUIRED, "RelayTimeout": f"{timeout:g}", "RelayGraceSeconds": "7"}
    functions = read_template(TEMPLATE, given).functions
    assert functions["RelayFunction"].timeout == timeout
    for name in ("ConnectFunction", "DefaultFunction"):
        assert functions[name].environment[config.RELAY_TIMEOUT] == f"{timeout:g}"
    for name in ("DefaultFunction", "DisconnectFunction", "RelayFunction"):
        assert functions[name].environment[config.GRACE_SECONDS] == "7"


@pytest.mark.parametrize(
    ("name", "default", "limits"),
    [("Ping", PING_INTERVAL, PING_RANGE), ("Pong", PONG_DEADLINE, PONG_RANGE)],
)
def test_the_relay_takes_what_a_dialer_takes_and_has_the_protocols_unless_told_otherwise(
    template: Template, name: str, default: float, limits: tuple[float, float]
) -> None:
    given = template.functions["RelayFunction"].environment[f"EMISSARY_{name.upper()}_SECONDS"]
    assert float(given) == default
    parameter = source()["Parameters"][f"Relay{name}Seconds"]
    assert (parameter["MinValue"], parameter["MaxValue"]) == limits


def test_the_estimate_counts_the_memory_that_is_deployed(template: Template) -> None:
    assert template.functions["RelayFunction"].memory == audit._RELAY_MEMORY * 1024
    assert template.functions["DefaultFunction"].memory == audit._DEFAULT_MEMORY * 1024


def test_each_table_has_the_keys_and_the_expiry_the_store_uses(template: Template) -> None:
    hash_key, sort_key = {"KeyType": "HASH"}, {"KeyType": "RANGE"}
    keys = {name: table.definition["KeySchema"] for name, table in template.tables.items()}
    assert keys == {
        "SessionTable": [{"AttributeName": items.KEY, **hash_key}],
        "SlotTable": [{"AttributeName": items.LIMIT, **hash_key}, {"AttributeName": items.SLOT, **sort_key}],
    }
    assert {table.ttl_attribute for table in template.tables.values()} == {"purge_at"}


def test_keys_are_in_no_parameter_and_nothing_names_an_account() -> None:
    parsed = source()
    assert not any(
        "Keys" in name or parameter.get("NoEcho") for name, parameter in parsed["Parameters"].items()
    )
    assert not re.search(r"\b\d{12}\b", TEMPLATE.read_text())


def test_the_dial_back_address_is_the_apis_own(template: Template) -> None:
    url = template.functions["RelayFunction"].environment["EMISSARY_WEBSOCKET_URL"]
    assert re.fullmatch(
        rf"wss://{template.api.api_id}\.execute-api\.[a-z0-9-]+\.amazonaws\.com/emissary", url
    )
    assert template.api.stage == "emissary"


def test_the_web_socket_url_is_an_output() -> None:
    assert "WebSocketUrl" in source()["Outputs"]
