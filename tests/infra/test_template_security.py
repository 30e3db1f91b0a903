"""Who may do what in the deployed stack, what is open, and what is logged; on the translated template."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from emissary_local.template.names import ACCOUNT_ID, REGION
from tests.helpers.sam_template import ROOT, of_type, resolve_resources, source

FUNCTIONS = ("ConnectFunction", "DefaultFunction", "DisconnectFunction", "RelayFunction")

#: What only Lambda itself does for a function, and so is in policies of its own, beside the code's.
#: Statement -> may it name every resource? X-Ray knows no resources; Lambda's check of a VPC function's role
#: wants the network interfaces' actions for all of them; what the code could do with them is denied again.
LAMBDAS_OWN = {
    "LogsPolicy": {"WriteLogs": False},
    "TracesPolicy": {"SendTraces": True},
    "NetworkPolicy": {"AttachToVpc": True, "NotByTheCode": True},
}

EVERYTHING = {"RelayIpv6": "true", "AccessLogs": "true", "Tracing": "true", "RelayConcurrency": "7"}


#: Of the access log's variables, those that the template uses: API Gateway refuses any that it does not list.
#: Source: API Gateway developer guide, "Customize WebSocket API access logs" (websocket-api-logging).
LOGGED_BY_THE_GATEWAY = {
    *(
        "requestId",
        "requestTimeEpoch",
        "eventType",
        "routeKey",
        "connectionId",
        "identity.sourceIp",
        "status",
    ),
    *("integration.status", "integrationLatency", "integration.error", "error.message"),
}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def documents(resources: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Every statement of every policy, with the resource it is in."""
    found = []
    for name, role in of_type(resources, "AWS::IAM::Role").items():
        found += [(name, s) for policy in role["Policies"] for s in policy["PolicyDocument"]["Statement"]]
    for name, policy in of_type(resources, "AWS::IAM::ManagedPolicy").items():
        found += [(name, s) for s in policy["PolicyDocument"]["Statement"]]
    return found


def test_no_policy_names_more_than_it_must() -> None:
    wide = {
        (name, statement["Sid"])
        for name, statement in documents(resolve_resources(**EVERYTHING))
        for resource in as_list(statement["Resource"])
        if resource == "*"
    }
    assert wide == {(name, sid) for name, sids in LAMBDAS_OWN.items() for sid, every in sids.items() if every}


def test_a_star_in_a_resource_stands_only_for_connections_of_the_stack_s_own_api() -> None:
    for name, statement in documents(resolve_resources(**EVERYTHING)):
        for resource in as_list(statement["Resource"]):
            assert (
                resource == "*"
                or "*" not in resource
                or re.fullmatch(
                    rf"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:<WebSocketApi>/emissary/(POST|DELETE)/@connections/\*",
                    resource,
                )
            ), (name, resource)


def test_no_statement_grants_a_group_of_actions() -> None:
    for name, statement in documents(resolve_resources(**EVERYTHING)):
        assert statement["Sid"], name
        for action in as_list(statement["Action"]):
            assert "*" not in action, (name, action)


def test_no_role_but_those_of_the_template_and_nothing_from_aws() -> None:
    resources = resolve_resources(**EVERYTHING)
    roles = of_type(resources, "AWS::IAM::Role")
    assert set(roles) == {f"{name.removesuffix('Function')}Role" for name in FUNCTIONS}
    for name, role in roles.items():
        (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
        attached = {"<LogsPolicy>", "<TracesPolicy>"} | (
            {"<NetworkPolicy>"} if name == "RelayRole" else set()
        )
        assert set(role["ManagedPolicyArns"]) == attached, (
            "no managed policy of AWS: they name every resource"
        )
    for name, function in of_type(resources, "AWS::Lambda::Function").items():
        assert function["Role"] == f"<{name.removesuffix('Function')}Role.Arn>"


def test_lambdas_own_rights_are_the_listed_ones() -> None:
    policies = of_type(resolve_resources(**EVERYTHING), "AWS::IAM::ManagedPolicy")
    found = {name: {s["Sid"] for s in p["PolicyDocument"]["Statement"]} for name, p in policies.items()}
    assert found == {name: set(sids) for name, sids in LAMBDAS_OWN.items()}


def test_the_relays_code_may_not_do_what_attaching_it_to_the_vpc_takes() -> None:
    statements = {s["Sid"]: s for name, s in documents(resolve_resources()) if name == "NetworkPolicy"}
    allowed, denied = statements["AttachToVpc"], statements["NotByTheCode"]
    assert (allowed["Effect"], denied["Effect"]) == ("Allow", "Deny")
    assert allowed["Action"] == denied["Action"]
    assert denied["Condition"] == {"ArnLike": {"lambda:SourceFunctionArn": "arn:aws:lambda:*:*:function:*"}}


def test_each_function_may_only_be_invoked_by_its_route_and_the_relay_by_its_schedule() -> None:
    permissions = of_type(resolve_resources(), "AWS::Lambda::Permission").values()
    invoked = {p["FunctionName"].strip("<>").removesuffix(".Arn") for p in permissions}
    assert invoked == set(FUNCTIONS)
    api = f"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:<WebSocketApi.ApiId>/emissary/"
    for permission in permissions:
        if permission["Principal"] == "events.amazonaws.com":
            assert permission["SourceArn"] == "<RelayFunctionKeepAlive.Arn>"
            assert permission["FunctionName"] == "<RelayFunction>"
        else:
            assert permission["Principal"] == "apigateway.amazonaws.com"
            route = permission["FunctionName"].removesuffix("Function.Arn>").removeprefix("<").lower()
            assert permission["SourceArn"] == f"{api}${route}"


@pytest.mark.parametrize("logs", ["true", "false"])
def test_no_log_of_the_gateway_holds_a_payload(logs: str) -> None:
    (stage,) = of_type(resolve_resources(AccessLogs=logs), "AWS::ApiGatewayV2::Stage").values()
    for settings in (stage["DefaultRouteSettings"], *stage["RouteSettings"].values()):
        assert settings["DataTraceEnabled"] is False
        assert settings["LoggingLevel"] == "OFF"
    assert ("AccessLogSettings" in stage) is (logs == "true")


def test_an_access_log_line_is_json_with_the_request_and_without_what_was_said() -> None:
    (stage,) = of_type(resolve_resources(AccessLogs="true"), "AWS::ApiGatewayV2::Stage").values()
    settings = stage["AccessLogSettings"]
    line = json.loads(settings["Format"])
    assert settings["DestinationArn"] == "<AccessLogGroup.Arn>"
    assert line["requestId"] == "$context.requestId", "API Gateway demands it"
    assert len(settings["Format"]) < 3_000
    assert "\n" not in settings["Format"]
    for value in line.values():
        assert value.removeprefix("$context.") in LOGGED_BY_THE_GATEWAY
        assert not re.search("body|payload|header|query|authorizer", value, re.IGNORECASE)


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_lambda_logs_nothing_of_its_own_for_a_message_and_filters_no_metric(level: str) -> None:
    """A line of metrics has no level, which is INFO to Lambda, whatever the code itself logs."""
    functions = of_type(resolve_resources(LogLevel=level), "AWS::Lambda::Function")
    settings = functions["DefaultFunction"]["LoggingConfig"]
    assert (settings["LogFormat"], settings["SystemLogLevel"]) == ("JSON", "WARN")
    assert settings["ApplicationLogLevel"] == ("DEBUG" if level == "DEBUG" else "INFO")
    for name in set(FUNCTIONS) - {"DefaultFunction"}:
        assert set(functions[name]["LoggingConfig"]) == {"LogGroup"}


def test_every_log_group_has_a_retention() -> None:
    groups = of_type(resolve_resources(AccessLogs="true", LogRetentionDays="30"), "AWS::Logs::LogGroup")
    assert {name: group["RetentionInDays"] for name, group in groups.items()} == {
        "LogGroup": "30",
        "AccessLogGroup": "30",
    }
    for function in of_type(resolve_resources(), "AWS::Lambda::Function").values():
        assert function["LoggingConfig"]["LogGroup"] == "<LogGroup>", (
            "no group that Lambda makes, kept for ever"
        )


def test_both_throttles_are_set_for_strangers_apart_from_everybody() -> None:
    (stage,) = of_type(resolve_resources(), "AWS::ApiGatewayV2::Stage").values()
    assert set(stage["RouteSettings"]) == {"$connect"}
    for settings in (stage["DefaultRouteSettings"], stage["RouteSettings"]["$connect"]):
        assert int(settings["ThrottlingBurstLimit"]) > 0
        assert int(settings["ThrottlingRateLimit"]) > 0
    assert stage["RouteSettings"]["$connect"] != stage["DefaultRouteSettings"]


def test_each_table_is_encrypted_forgets_by_itself_and_is_not_backed_up() -> None:
    tables = of_type(resolve_resources(), "AWS::DynamoDB::Table")
    assert set(tables) == {"SessionTable", "SlotTable"}
    for table in tables.values():
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["TimeToLiveSpecification"] == {"AttributeName": "purge_at", "Enabled": True}
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": False}


def test_a_failed_launch_is_kept_nowhere() -> None:
    """Its event holds tokens."""
    (launches,) = of_type(resolve_resources(), "AWS::Lambda::EventInvokeConfig").values()
    assert (launches["MaximumRetryAttempts"], launches["MaximumEventAgeInSeconds"]) == (0, 60)
    assert not launches["DestinationConfig"]
    for function in of_type(resolve_resources(), "AWS::Lambda::Function").values():
        assert "DeadLetterConfig" not in function


def test_checkov_is_told_why_for_each_check_it_skips() -> None:
    file = ROOT / ".checkov.yaml"
    skipped = yaml.safe_load(file.read_text(encoding="utf-8"))["skip-check"]
    text = file.read_text(encoding="utf-8")
    assert len(skipped) == len(set(skipped))
    for check in skipped:
        assert re.search(rf"^  # \S.*(\n  # .*)*\n  - {check}$", text, re.MULTILINE), f"{check}: no reason"


def test_nothing_outlives_the_stack_unasked() -> None:
    for name, resource in source()["Resources"].items():
        if resource["Type"] in (
            "AWS::DynamoDB::Table", "AWS::Logs::LogGroup", "AWS::SecretsManager::Secret",
        ):  # fmt: skip
            assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Delete", name
