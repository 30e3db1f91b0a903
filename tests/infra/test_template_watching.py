"""The alarms and the dashboard: on figures that exist, for every case, and silent while nothing happens."""

from __future__ import annotations

import json
import re
from typing import Any

import botocore.session
import pytest

from emissary_local.template.names import REGION, STACK_NAME
from functions.common.metrics import Metric
from functions.relay.service import TARGET_TIMEOUT
from tests.helpers.sam_template import of_type, outputs, resolve_resources, source

#: The metrics that the functions write (namespace Emissary, one dimension, ``service``).
OURS = {metric.title for metric in Metric}

#: Lambda's and API Gateway's own, which cost nothing.
LAMBDAS = {"Errors", "Throttles", "ConcurrentExecutions"}
#: Source: API Gateway developer guide, "Monitor WebSocket API execution with CloudWatch metrics".
GATEWAYS = {"MessageCount", "ConnectCount", "IntegrationError", "ExecutionError", "ClientError"}

FUNCTIONS = {"<ConnectFunction>", "<DefaultFunction>", "<DisconnectFunction>", "<RelayFunction>"}


def check(namespace: str, metric: str, dimensions: dict[str, str]) -> None:
    """Fail unless somebody writes this metric with just these dimensions."""
    if namespace == "Emissary":
        assert metric in OURS
        assert dimensions == {"service": STACK_NAME}
    elif namespace == "AWS/Lambda":
        assert metric in LAMBDAS
        assert set(dimensions) == {"FunctionName"}
        assert dimensions["FunctionName"] in FUNCTIONS
    else:
        assert namespace == "AWS/ApiGateway"
        assert metric in GATEWAYS
        assert dimensions == {"ApiId": "<WebSocketApi>", "Stage": "emissary"}


def metrics_of(alarm: dict[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    parts = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
    return [
        (part["Namespace"], part["MetricName"], {each["Name"]: each["Value"] for each in part["Dimensions"]})
        for part in parts or [alarm]
    ]


def alarms(**parameters: str) -> dict[str, dict[str, Any]]:
    return of_type(resolve_resources(**parameters), "AWS::CloudWatch::Alarm")


def dashboard() -> dict[str, Any]:
    (found,) = of_type(resolve_resources(), "AWS::CloudWatch::Dashboard").values()
    body: dict[str, Any] = json.loads(found["DashboardBody"])
    return body


def test_an_alarm_watches_what_is_written_and_rests_when_nothing_happens() -> None:
    for name, alarm in alarms().items():
        for namespace, metric, dimensions in metrics_of(alarm):
            check(namespace, metric, dimensions)
        assert alarm["TreatMissingData"] == "notBreaching", name
        assert "Emissary - " in alarm["AlarmDescription"]


def test_what_must_be_noticed_has_an_alarm() -> None:
    watched = {
        (namespace, metric) for alarm in alarms().values() for namespace, metric, _ in metrics_of(alarm)
    }
    assert watched >= {
        ("Emissary", "AuthFailure"),
        ("Emissary", "RelayError"),
        ("AWS/Lambda", "Errors"),
        ("AWS/Lambda", "Throttles"),
        ("Emissary", "PeerThrottled"),
        ("Emissary", "DialMilliseconds"),
        ("Emissary", "SessionFailed"),
        ("Emissary", "ConnectionMilliseconds"),
        ("Emissary", "ConnectionFailed"),
        ("AWS/ApiGateway", "ClientError"),
        ("AWS/Lambda", "ConcurrentExecutions"),
    }


def test_a_sum_over_several_metrics_counts_those_that_are_silent_as_none() -> None:
    for alarm in alarms().values():
        queries = {query["Id"]: query for query in alarm.get("Metrics", [])}
        if "total" in queries:
            total = queries.pop("total")
            assert total["ReturnData"] is True
            assert total["Expression"] == " + ".join(f"FILL({name}, 0)" for name in queries)
            assert not any(query["ReturnData"] for query in queries.values())


@pytest.mark.parametrize("topic", ["", f"arn:aws:sns:{REGION}:{'1' * 12}:alarms"])
def test_alarms_notify_the_topic_if_there_is_one(topic: str) -> None:
    for alarm in alarms(AlarmTopicArn=topic).values():
        assert alarm.get("AlarmActions") == alarm.get("OKActions") == ([topic] if topic else None)


@pytest.mark.parametrize(
    ("sessions", "relays", "limits"), [(7, 0, {7}), (0, 9, {9}), (7, 9, {7, 9}), (9, 7, {7, 9})]
)
def test_the_limit_of_sessions_is_watched_whichever_it_is(
    sessions: int, relays: int, limits: set[int]
) -> None:
    alarm = alarms(MaxSessions=str(sessions), RelayConcurrency=str(relays))["SessionLimitAlarm"]
    reached, running = alarm["Metrics"]
    condition = re.fullmatch(r"IF\(running >= (\d+) OR running >= (\d+), 1, 0\)", reached["Expression"])
    assert condition is not None
    assert set(map(int, condition.groups())) == limits
    assert (reached["ReturnData"], running["ReturnData"], alarm["Threshold"]) == (True, False, 1)
    assert (running["Id"], running["MetricStat"]["Stat"]) == ("running", "Maximum")


def test_without_a_limit_of_sessions_there_is_none_to_watch() -> None:
    assert "SessionLimitAlarm" not in alarms(MaxSessions="0", RelayConcurrency="0")


def test_a_flood_rings_long_before_it_is_as_strong_as_the_throttle_and_scanners_do_not() -> None:
    """A connect beyond the throttle reaches no function: only the gateway's own figure counts it."""
    alarm = alarms()["GatewayRefusalsAlarm"]
    ((namespace, metric, _),) = metrics_of(alarm)
    assert (namespace, metric, alarm["Statistic"]) == ("AWS/ApiGateway", "ClientError", "Sum")
    (stage,) = of_type(resolve_resources(), "AWS::ApiGatewayV2::Stage").values()
    admitted = stage["RouteSettings"]["$connect"]["ThrottlingRateLimit"] * alarm["Period"]
    assert 50 <= alarm["Threshold"] <= admitted / 100, "one in a hundred more than the throttle lets in"
    assert f"refused {alarm['Threshold']} connects" in alarm["AlarmDescription"]


def test_a_slow_target_rings_though_only_dials_that_succeed_have_a_time() -> None:
    alarm = alarms()["DialLatencyAlarm"]
    assert alarm["Threshold"] / 1000 <= TARGET_TIMEOUT / 2, "later ones have none"
    assert f"longer than {alarm['Threshold'] / 1000:g} s" in alarm["AlarmDescription"]
    assert f"more than {TARGET_TIMEOUT:g} s is a failed session" in alarm["AlarmDescription"]


def test_a_slow_target_rings_whether_its_relay_is_shared_or_not() -> None:
    slower, *each = alarms()["DialLatencyAlarm"]["Metrics"]
    filled = ", ".join(f"FILL({query['Id']}, 0)" for query in each)
    assert slower["Expression"] == f"MAX([{filled}])"
    assert [query["ReturnData"] for query in (slower, *each)] == [True, False, False]
    assert {query["MetricStat"]["Stat"] for query in each} == {"p95"}


def test_the_dashboard_shows_figures_that_are_written() -> None:
    shown = set()
    for widget in dashboard()["widgets"]:
        for row in widget["properties"].get("metrics", []):
            namespace, metric, *rest = [part for part in row if isinstance(part, str)]
            check(namespace, metric, dict(zip(rest[::2], rest[1::2], strict=True)))
            shown.add(metric)
    assert shown == OURS | LAMBDAS | GATEWAYS, "every one has its place"


def test_the_dashboards_widgets_lie_on_its_grid_and_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in dashboard()["widgets"]:
        assert widget["properties"]["region"] == REGION
        assert widget["properties"]["title"]
        place = {
            (widget["x"] + column, widget["y"] + row)
            for column in range(widget["width"])
            for row in range(widget["height"])
        }
        assert not place & taken
        assert all(0 <= column < 24 for column, _ in place)
        taken |= place


def test_the_dashboard_asks_the_functions_log_for_the_audit_records() -> None:
    (query,) = [w["properties"]["query"] for w in dashboard()["widgets"] if w["type"] == "log"]
    assert query.startswith("SOURCE '<LogGroup>' |")
    assert "message = 'session ended' and ispresent(key_id)" in query


def test_the_functions_are_told_where_their_metrics_belong() -> None:
    variables = source()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Emissary"
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


@pytest.mark.parametrize(
    ("partition", "host"),
    [
        ("aws", "us-east-1.console.aws.amazon.com"),
        ("aws-us-gov", "us-east-1.console.amazonaws-us-gov.com"),
        ("aws-cn", "us-east-1.console.amazonaws.cn"),
        ("aws-eusc", "us-east-1.console.amazonaws-eusc.eu"),
    ],
)
def test_the_link_to_the_dashboard_is_that_of_the_partition(partition: str, host: str) -> None:
    url = outputs(partition)["DashboardUrl"]
    assert url == f"https://{host}/cloudwatch/home?region={REGION}#dashboards/dashboard/<Dashboard>"


def test_the_template_can_be_deployed_in_every_partition() -> None:
    """As botocore knows them: a key that a mapping lacks has CloudFormation refuse the whole template."""
    known = botocore.session.get_session().get_data("partitions")["partitions"]
    partitions = {partition["id"] for partition in known}
    assert set(source()["Mappings"]["Console"]) == partitions
    without = {partition for partition in partitions if "DashboardUrl" not in outputs(partition)}
    assert without == {partition for partition in partitions if partition.startswith("aws-iso")}
