"""docs/operations.md: its figures, prices, metrics, records and messages are those of code and template."""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from typing import Any, Final

import pytest

from emissary_lib.bridge.session import (
    LAUNCH_MARGIN,
    LEAVE_MARGIN,
    LONGEST_RELAY_TIME,
    RECORD_TIME,
    RELAY_TIME,
    LaunchRecord,
)
from emissary_lib.client import RELAY_IDLE_SECONDS
from emissary_lib.client.dialer import DIAL_TIMEOUT, MAX_IN_FLIGHT
from emissary_lib.client.handshake import LIMIT_WAIT
from emissary_lib.client.relays import LIFE_LEFT
from emissary_lib.prices import LAMBDA_LOG_BYTES, Prices, us_east_1
from emissary_lib.protocol import constants
from emissary_lib.protocol.constants import MAX_MESSAGE_RATE, OPENING_TIME
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET
from functions.common import audit, logs
from functions.common.adapters import keys
from functions.common.metrics import NAMESPACE, Metric
from functions.relay.link import MAX_POSTS
from functions.relay.service import TARGET_TIMEOUT
from tests.helpers.sam_template import of_type, resolve_resources, source, strings
from tests.infra.documents import DOCUMENTS, ROOT, block_commands, fenced, prose, read, section, tables
from tools import costs

MANUAL = "docs/operations.md"
TEXT = prose(read(MANUAL))
QUOTAS = "Quotas, and what they mean"
PRICES = "Prices"

#: The account's own share of a second, in invocations for each unit. Source: Lambda developer guide,
#: "Understanding Lambda function scaling".
INVOCATIONS_OF_A_UNIT = 10

#: Connections that share a relay, where the tables say how many.
SHARING = 32

#: What AWS charges where the functions run on the template's default.
CHARGES = us_east_1(source()["Parameters"]["Architecture"]["Default"])

#: What a handler is busy with one message, in seconds.
HANDLER_SECONDS = 0.025


def number(text: str) -> float:
    """The first number of a cell, without its commas."""
    found = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    assert found, text
    return float(found.group().replace(",", ""))


def throttle(route: str) -> tuple[int, int]:
    """Rate and burst of a route, as deployed."""
    stage = of_type(resolve_resources(), "AWS::ApiGatewayV2::Stage")
    (settings,) = stage.values()
    default = settings["DefaultRouteSettings"]
    chosen = settings.get("RouteSettings", {}).get(route, default)
    return int(chosen["ThrottlingRateLimit"]), int(chosen["ThrottlingBurstLimit"])


def code_text() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "functions").rglob("*.py"))


# -- quotas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["$connect", "$default"])
def test_the_throttles_are_the_templates(route: str) -> None:
    rows = {row[0]: row for row in tables(MANUAL, QUOTAS)[0]}
    rate, burst = throttle(route)
    assert rows[f"throttle of {route}, in template.yaml"][1] == f"{rate:,} a second, bursts of {burst:,}"


def test_a_message_holds_what_the_protocol_says() -> None:
    row = tables(MANUAL, QUOTAS)[0][-1][:-1]
    assert row[-1] == (
        f"{constants.MAX_PAYLOAD:,} bytes of data in a message of {constants.MAX_MESSAGE:,} characters"
    )


def test_sessions_and_messages_follow_from_the_accounts_units() -> None:
    rows = tables(MANUAL, QUOTAS)[1]
    assert len(rows) == 3
    for row in rows:
        units, sessions, connections, handlers, by_time, by_rate, messages, speed = map(number, row)
        assert connections == sessions * SHARING
        assert sessions == handlers == units / 2
        assert by_time == handlers / HANDLER_SECONDS
        assert by_rate == units * INVOCATIONS_OF_A_UNIT
        assert messages == min(by_time, by_rate, throttle("$default")[0])
        assert speed == pytest.approx(messages * constants.MAX_PAYLOAD / 1e6, rel=0.01)
    default = source()["Parameters"]["MaxSessions"]["Default"]
    assert number(rows[0][1]) == default
    assert f"The default of `MaxSessions` is still {default}, since" in TEXT


def test_a_program_takes_the_places_that_the_manual_says() -> None:
    words = prose(section(MANUAL, QUOTAS))
    assert f"one place for up to {SHARING} of them" in words
    assert LIFE_LEFT == 1 / 3
    assert "one more when its relay has less than a third of its life left" in words
    assert max(constants.GOAWAY_BEFORE) == 30
    assert "fail from half a minute before its end" in words


def test_a_sessions_speed_is_what_is_under_way_by_the_round_trip() -> None:
    to_target, from_target, query = tables(MANUAL, QUOTAS)[2]
    flight = constants.DIALER_FLIGHT[1]
    assert to_target[1].startswith(f"{flight} messages x {constants.MAX_PAYLOAD:,} bytes")
    assert number(from_target[1]) == constants.DEFAULT_CAPACITY
    for column, trip in ((2, 0.06), (3, 0.1)):
        assert number(to_target[column]) == round(flight * constants.MAX_PAYLOAD / trip / 1e6, 1)
        assert number(from_target[column]) == round(constants.DEFAULT_CAPACITY / trip / 1e6, 1)
        assert number(query[column]) == math.floor(1 / trip)
    assert f"begins with {constants.DIALER_FLIGHT[0]} messages ({constants.RELAY_FLIGHT[0]} from" in TEXT
    assert f"share {MAX_IN_FLIGHT} messages" in TEXT
    posts = MAX_POSTS * constants.MAX_PAYLOAD / 0.024 / 1e6
    assert f"{MAX_POSTS} x {constants.MAX_PAYLOAD:,} bytes / 24 ms for a post = {posts:.1f} MB/s" in TEXT
    memory = source()["Parameters"]["RelayMemory"]["Default"]
    assert f"a relay of {memory} MB has {memory} / 1,769 = {memory / 1769:.0%}".replace("%", " %") in TEXT


# -- prices -----------------------------------------------------------------------------------


def test_a_sessions_price_is_what_the_audit_record_would_say() -> None:
    rows = tables(MANUAL, PRICES)[2]
    assert len(rows) == 4
    for name, seconds, to_target, from_target, *dollars in rows:
        costs_of_both = [
            audit.estimated_cost(
                seconds=number(seconds),
                dialer_bytes=int(number(to_target)),
                relay_bytes=int(number(from_target)),
                slots=1,  # MaxSessions is set, unless somebody sets it to 0
                nat=nat,
                prices=CHARGES,
            )
            for nat in (False, True)
        ]
        assert list(map(float, dollars)) == [float(f"{cost:.2g}") for cost in costs_of_both], name


def test_what_sharing_a_relay_saves_is_what_the_audit_records_would_say() -> None:
    rows = tables(MANUAL, PRICES)[3]
    assert len(rows) == 4
    for name, seconds, shared, together, own, apart in rows:
        for nat in (False, True):  # with so few bytes it is all the same
            each = audit.estimated_cost(
                seconds=number(seconds),
                dialer_bytes=20_000,
                relay_bytes=20_000,
                slots=1,
                nat=nat,
                prices=CHARGES,
            )
            assert float(together) == float(f"{each * number(shared):.2g}"), name
            assert float(apart) == float(f"{each * number(own):.2g}"), name
    assert number(rows[3][1]) == RELAY_IDLE_SECONDS


def test_a_querys_price_is_three_messages_and_an_invocation() -> None:
    memory = source()["Parameters"]["DefaultMemory"]["Default"] / 1024
    run_time = memory * HANDLER_SECONDS * CHARGES.lambda_gb_second
    each = 3 * CHARGES.websocket_message + CHARGES.lambda_request + run_time
    assert f"${each * 1e6:.2f} for a million" in TEXT


def test_bytes_cost_what_base64_makes_of_them() -> None:
    internet = CHARGES.internet_byte * 1e9 * 4 / 3
    assert f"1 GB from the target is {4 / 3:.2f} GB from API Gateway to the dialer: ${internet:.2f}" in TEXT
    assert "100 GB a month are free, which are 75 GB of data" in TEXT
    a_gb = {"seconds": 100.0, "dialer_bytes": 0, "relay_bytes": 10**9, "slots": 1, "nat": False}
    share = internet / audit.estimated_cost(**a_gb, prices=CHARGES)  # type: ignore[arg-type]
    assert share == pytest.approx(3 / 4, abs=0.02)
    assert f"between the relay and API Gateway: ${CHARGES.nat_byte * 1e9 * 4 / 3:.2f} a GB of data" in TEXT
    assert (
        f"at $0.01 a GB it would be ${0.01 * 4 / 3:.3f}, at the price of the internet ${internet:.2f}" in TEXT
    )


def test_a_nat_gateway_is_paid_for_with_its_address() -> None:
    idle = {row[0].partition(",")[0]: row[1] for row in tables(MANUAL, PRICES)[0]}
    assert idle["NAT gateway"] == f"{CHARGES.nat_month:.2f}"
    shapes = {row[0]: row[2] for row in tables(MANUAL, "Network shapes and their price")[0]}
    assert shapes["NAT gateway"] == (
        f"${CHARGES.nat_hour} an hour and ${CHARGES.address_hour} for its address, "
        f"${CHARGES.nat_month:.2f} a month, in each zone; ${CHARGES.nat_byte * 1e9:.3f} per GB on the wire, "
        f"either way, which is ${CHARGES.nat_byte * 1e9 * 4 / 3:.2f} per GB of data"
    )


def test_what_is_logged_costs_what_the_manual_says() -> None:
    (row,) = [row for row in tables(MANUAL, PRICES)[1] if row[0].startswith("logs")]
    assert f"about {audit.LOG_BYTES / 1000:g} KB a session" in row[0]
    assert (
        f"{LAMBDA_LOG_BYTES / 1000:g} KB that Lambda itself writes for each connect and disconnect" in row[0]
    )
    assert source()["Resources"]["DefaultFunction"]["Properties"]["LoggingConfig"]["SystemLogLevel"] == "WARN"
    assert row[1] == f"{CHARGES.log_byte * 1e9:.2f} a GB"


def test_every_price_that_is_reckoned_with_is_shown_with_its_source() -> None:
    rows = tables(MANUAL, PRICES)[4]
    figures = set(Prices._fields) - {"region", "architecture", "as_of"}
    assert len(rows) == len(figures) + 1, "of Lambda's time there are two"
    assert all("aws.amazon.com/" in row[2] for row in rows)
    months = {"11": "November"}
    year, month = CHARGES.as_of.split("-")
    assert f"Prices: {CHARGES.region}, {months[month]} {year}, without free tiers." in TEXT


def alarms() -> dict[str, dict[str, Any]]:
    return of_type(resolve_resources(), "AWS::CloudWatch::Alarm")


def metrics_watched(alarm: dict[str, Any]) -> int:
    return len([each for each in alarm["Metrics"] if "MetricStat" in each]) if "Metrics" in alarm else 1


def test_idle_the_alarms_and_the_secret_are_what_costs() -> None:
    rows = {row[0]: row[1] for row in tables(MANUAL, PRICES)[0]}
    watched = sum(metrics_watched(each) for each in alarms().values())
    price = CHARGES.alarm_metric_month
    row = f"alarms, ${price:.2f} for each of the {watched} metrics they watch"
    assert rows[row] == f"{watched * price:.2f}"
    assert rows["the keys' secret"] == f"{CHARGES.secret_month:.2f}"
    least = CHARGES.secret_month + watched * price
    assert f"[${least:.2f} a month](../operations.md#prices)" in read("docs/guides/moving.md")
    dashboard = rows["dashboard: the first three of an account are free"]
    assert dashboard == f"0 or {CHARGES.dashboard_month:.2f}"
    assert len(of_type(resolve_resources(), "AWS::SecretsManager::Secret")) == 1


# -- alarms and metrics -----------------------------------------------------------------------


def test_the_manual_has_every_alarm_with_its_threshold_and_metrics() -> None:
    rows = {row[0]: row for row in tables(MANUAL, "Alarms and the dashboard")[0]}
    assert set(rows) == set(alarms())
    for name, alarm in alarms().items():
        assert int(rows[name][2]) == metrics_watched(alarm), name
        if name == "DialLatencyAlarm":
            assert f"over {alarm['Threshold'] / 1000:g} s" in rows[name][1]
            assert f"more than {TARGET_TIMEOUT:g} s is a failed session" in rows[name][3]
        elif name != "SessionLimitAlarm":
            assert re.search(rf"\b{alarm['Threshold']}\b", rows[name][1]), name


def test_the_price_of_the_metrics_is_of_all_of_them() -> None:
    assert f"each of {len(Metric)}, by the hour" in TEXT
    assert f"metrics: {CHARGES.metric_month:.2f} a month for each of {len(Metric)}" in TEXT
    assert f"| {len(Metric) * CHARGES.metric_month:.2f} at most |" in TEXT
    assert f"namespace `{NAMESPACE}`" in TEXT


def test_every_metric_is_on_the_dashboard_or_in_an_alarm() -> None:
    shown = {
        name for text in strings(resolve_resources()) for name in re.findall(r'\["Emissary", "(\w+)"', text)
    }
    shown |= {
        each["MetricName"]
        for alarm in alarms().values()
        for each in [alarm, *(m.get("MetricStat", {}).get("Metric", {}) for m in alarm.get("Metrics", []))]
        if each.get("Namespace") == NAMESPACE
    }
    assert shown == {metric.title for metric in Metric}


# -- records ----------------------------------------------------------------------------------


def record_fields() -> set[str]:
    """What audit.record gives to the log line."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(audit))) if isinstance(node, ast.Call)]
    (line,) = [
        call for call in calls
        if call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == "session ended"
    ]  # fmt: skip
    return {str(keyword.arg) for keyword in line.keywords}


def test_the_manual_has_every_field_of_the_audit_record() -> None:
    told = {name for row in tables(MANUAL, "Audit records")[0] for name in row[0].split(", ")}
    assert told == record_fields()


def test_figures_are_believed_up_to_what_the_gateway_lets_through() -> None:
    assert throttle("$default") == (MAX_MESSAGE_RATE, MAX_MESSAGE_RATE)
    assert f"more was reported than {MAX_MESSAGE_RATE:,} messages a second" in TEXT


def test_the_query_asks_for_fields_that_are_logged() -> None:
    (query,) = [text for text in fenced(MANUAL, "") if text.startswith("fields ")]
    asked = re.split(r",\s*", query.splitlines()[0].removeprefix("fields "))
    assert set(asked) - {"@timestamp"} <= record_fields()
    assert set(asked) - {"@timestamp", "session"} <= logs.FIELDS
    assert 'message = "session ended"' in query


@pytest.mark.parametrize(
    "message",
    [
        "session ended",
        "both connections gone",
        "relay launched",
        "request refused",
        "not connected",
        "connection ended",
    ],
)
def test_a_log_line_that_is_named_is_written(message: str) -> None:
    assert f"`{message}`" in TEXT or f'"{message}"' in TEXT
    assert f'"{message}"' in code_text()


def test_what_a_relay_tells_of_its_connections_costs_what_the_manual_says() -> None:
    words = prose(section(MANUAL, "Shared sessions"))
    (cost,) = [each for each in costs.load() if "CONNECTIONS" in each.message]
    assert f"each is [${cost.dollars:.2f} for a million](security.md#what-each-message-costs)" in words
    interval = constants.CONNECTIONS_INTERVAL
    assert f"when that changes, {interval:g} s late at most" in words
    told = f"in {RELAY_TIME / 60:g} minutes (`RelayTimeout`) there are {RELAY_TIME / interval:g} at most"
    assert told in words
    assert cost.message.endswith(f"one in {interval:g} s at most")


def test_a_shared_session_is_found_by_the_name_that_the_manual_says() -> None:
    assert f"the reserved name `{SHARED_TARGET}`, by which one filter finds them all" in TEXT


def test_records_are_kept_as_long_as_the_manual_says() -> None:
    days = RECORD_TIME / 86_400
    assert f"of each session for {days:g} days" in TEXT
    assert f"{days:g} days after a session's end" in TEXT


def test_keys_are_remembered_as_long_as_the_manual_says() -> None:
    rotation = prose(section(MANUAL, "Rotate the keys"))
    assert keys.MAX_AGE == 300
    assert "Functions cache the secret for up to 5 minutes" in rotation
    assert keys.MAX_STALE == 3600
    assert "for an hour at most" in rotation


def test_the_first_steps_name_what_a_stack_has() -> None:
    outputs = source()["Outputs"]
    for name in ("RelaySecurityGroupId", "DoctorCommand", "WebSocketUrl", "KeySecretArn", "TableName"):
        assert name in outputs
        assert f"output `{name}`" in TEXT


@pytest.mark.parametrize("output", source()["Outputs"])
def test_an_output_is_used_where_its_table_does_not_stand(output: str) -> None:
    assert f"`{output}`" in TEXT.replace(prose(section(MANUAL, "Outputs")), "")


def calls_of_operators(module: str) -> set[str]:
    """The methods of a boto3 client that a module of emissary_lib.operate calls."""
    tree = ast.parse((ROOT / "emissary_lib" / "operate" / f"{module}.py").read_text(encoding="utf-8"))
    called = {
        (node.func.attr, ast.unparse(node.func.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    found = {name for name, on in called if on in ("self._client", "client")} - {"get_paginator"}
    found |= set(re.findall(r'get_paginator\("(\w+)"\)', ast.unparse(tree).replace("'", '"')))
    return found


def rights_told(heading: str) -> set[str]:
    return set(re.findall(r"`([a-z-]+:[A-Z]\w+)`", section(MANUAL, heading)))


def test_the_rights_that_an_operator_needs_are_those_that_the_commands_use() -> None:
    keys_use = {f"secretsmanager:{camel(name)}" for name in calls_of_operators("keys")}
    assert rights_told("Rotate the keys") == keys_use
    table_use = {f"dynamodb:{camel(name)}" for name in calls_of_operators("sessions")}
    assert calls_of_operators("notify") == {"post_to_connection", "delete_connection"}
    assert rights_told("Incidents") == table_use | {"execute-api:ManageConnections"}


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def test_every_logical_id_in_the_manual_is_in_the_template() -> None:
    named = set(re.findall(r"--logical-resource-id (\w+)", TEXT)) | {"SessionTable", "KeySecret"}
    assert named <= set(source()["Resources"])
    assert set(re.findall(r"emissary-(\w+)-1ABCDEFGHIJK", TEXT)) <= set(source()["Resources"])


def test_a_place_is_free_when_the_manual_says() -> None:
    rows = {row[0]: row[2] for row in tables(MANUAL, "Parameters")[0]}
    launch = LaunchRecord("db.internal:5432", "hash", "hash", at=0.0, relay_time=100.0)
    assert launch.lease == 100 + 60
    assert "leased for this and a minute, from its launch on" in rows["RelayTimeout"]
    assert f"RelayGraceSeconds and {LEAVE_MARGIN:g} s after the end" in rows["MaxSessions"]
    assert f"{LAUNCH_MARGIN:g} s after its launch if the session ended before" in rows["MaxSessions"]
    assert f"tries again for {LIMIT_WAIT:g} s" in rows["MaxSessions"]


def test_the_life_of_a_tunnel_is_told_as_the_parameters() -> None:
    """A stack may say something else than its default; the other 15 minutes are those of the clock."""
    defaults = {row[0]: row[1] for row in tables(MANUAL, "Parameters")[0]}
    assert float(defaults["RelayTimeout"]) == RELAY_TIME
    heading = f"Sessions of {LONGEST_RELAY_TIME / 60:g} minutes"
    assert f"`RelayTimeout={LONGEST_RELAY_TIME:g}`" in section(MANUAL, heading)
    for document in DOCUMENTS:
        for paragraph in re.split(r"\n\n|\n(?=\||- )", read(document)):
            if f"{RELAY_TIME / 60:g} minutes" in prose(paragraph):
                assert re.search(r"RelayTimeout|clock|date|signature|psql \|", paragraph), paragraph


def test_times_in_the_prose_are_those_of_the_code() -> None:
    assert OPENING_TIME == 60
    assert DIAL_TIMEOUT == 20
    assert "until its timeout (20 s unless told otherwise)" in prose(read("docs/security.md"))


def test_the_boundary_in_the_manual_allows_what_the_roles_have_and_nothing_else() -> None:
    (document,) = map(json.loads, fenced(MANUAL, "json"))
    allowed = {action for statement in document["Statement"] for action in statement["Action"]}
    policies = [role["Policies"] for role in of_type(resolve_resources(), "AWS::IAM::Role").values()]
    managed = of_type(resolve_resources(Tracing="true"), "AWS::IAM::ManagedPolicy").values()
    granted = set()
    for policy in [*(policy for each in policies for policy in each), *managed]:
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            granted |= {actions} if isinstance(actions, str) else set(actions)
    assert allowed == granted
    assert {statement["Effect"] for statement in document["Statement"]} == {"Allow"}


def test_what_functions_in_a_vpc_would_cost_is_reckoned_right() -> None:
    told = prose(section(MANUAL, "A company's account"))
    factors = re.search(r"(\d) x (\d) zones x (\d+) hours x \$(0\.\d+) = \$(\d+\.\d+) a month", told)
    assert factors is not None
    *rest, total = map(float, factors.groups())
    assert math.prod(rest) == pytest.approx(total)


def test_answers_are_kept_where_git_does_not_look() -> None:
    """``--guided`` rewrites the file of its answers; git refuses to pull over one that it tracks."""
    deployed = [words for words in block_commands(MANUAL, "sam") if words[0] == "deploy"]
    files = {words[words.index("--config-file") + 1] for words in deployed if "--config-file" in words}
    files |= {
        word.removeprefix("file://") for words in deployed for word in words if word.startswith("file://")
    }
    assert files == {"emissary.toml", "parameters.yaml"}
    assert files <= set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())
    assert not any("--guided" in words and "--config-file" not in words for words in deployed)


#: The headings of what leads from one version to another.
WAYS: Final = ("## Upgrade", "### Back")


def steps(heading: str) -> list[str]:
    """The lines of the first block of commands below a heading, whatever commands they are."""
    block = re.search(r"```sh\n(.*?)```", read(MANUAL).split(f"\n{heading}\n", 1)[1], re.DOTALL)
    assert block is not None
    return block[1].splitlines()


@pytest.mark.parametrize("heading", WAYS)
def test_the_closing_check_is_by_the_commands_of_the_version_that_is_deployed(heading: str) -> None:
    *before, install, check = steps(heading)
    assert any(line.startswith("sam deploy ") for line in before)
    assert install == "pip install '.[aws]'"
    assert check.startswith("emissary doctor ")


def test_who_went_back_can_upgrade_again() -> None:
    """``git checkout COMMIT`` leaves git on no branch, where ``git pull`` does not know what to pull."""
    assert steps("### Back")[0] == "git checkout COMMIT"
    upgrade = steps("## Upgrade")
    assert upgrade.index("git log -1") < upgrade.index("git switch main") < upgrade.index("git pull")


def test_a_bucket_of_ones_own_takes_the_place_of_the_commands_own() -> None:
    """``sam deploy`` refuses both, and samconfig.toml has the one."""
    assert "\nresolve_s3 = true\n" in read("samconfig.toml")
    told = prose(section(MANUAL, "A company's account"))
    assert "--s3-bucket" in told
    assert told.count("--s3-bucket") == told.count("--no-resolve-s3 --s3-bucket")
    assert told.count("`s3_bucket = ") == told.count("`resolve_s3 = false`")
