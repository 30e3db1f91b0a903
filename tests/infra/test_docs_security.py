"""docs/security.md says what the template, the allow-list, the log and the limits really do."""

from __future__ import annotations

import fnmatch
import json
import logging
import math
import re
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.operate.keys import SECRET_BYTES
from emissary_lib.prices import LAMBDA_LOG_BYTES
from emissary_lib.protocol import constants
from emissary_lib.protocol.constants import OPENING_TIME
from emissary_lib.protocol.mux.limits import MAX_CONNECTIONS, MEMORY
from emissary_lib.protocol.targets.addresses import canonical_host
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList, Target
from functions.common import logs
from functions.common.adapters import keys
from functions.common.short_messages import ASKED_EVERY, REMEMBERED
from tests.helpers.sam_template import of_type, resolve_resources, source
from tests.infra.documents import ROOT, block_commands, fenced, prose, read, section, tables
from tests.infra.test_docs_operations import CHARGES, HANDLER_SECONDS, INVOCATIONS_OF_A_UNIT, number, throttle
from tools import costs

LOG_KEY = "arn:aws:kms:eu-west-1:111122223333:key/0123-abcd"
DOCUMENT = "docs/security.md"
TEXT = prose(read(DOCUMENT))

#: How the table of rights calls a resource of a policy.
CALLED = {
    "<KeySecret>": "the keys' secret",
    "<SessionTable.Arn>": "the sessions",
    "<SlotTable.Arn>": "the slots",
    "<RelayFunction.Arn>": "the relay",
}


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def called(resource: str) -> str:
    verb = re.search(r":<WebSocketApi>/emissary/(\w+)/@connections/\*$", resource)
    return f"connections of the stack's API, {verb.group(1)}" if verb else CALLED[resource]


def rights() -> set[tuple[str, str, frozenset[str], str]]:
    """Function, statement, actions and resource of everything that the code of a function may do."""
    resources = resolve_resources()
    found = set()
    for function, properties in of_type(resources, "AWS::Lambda::Function").items():
        role = properties["Role"].strip("<>").removesuffix(".Arn")
        for policy in resources[role]["Properties"]["Policies"]:
            for each in policy["PolicyDocument"]["Statement"]:
                for resource in as_list(each["Resource"]):
                    found.add((function, each["Sid"], frozenset(as_list(each["Action"])), called(resource)))
    return found


def test_the_table_of_rights_is_the_templates_policies() -> None:
    (table,) = tables(DOCUMENT, "What each function may do")
    told = {(function, sid, frozenset(actions.split(", ")), on) for function, sid, actions, on in table}
    assert told == rights()
    assert len(table) == len(told)


def test_the_policies_for_what_lambda_does_are_named() -> None:
    named = set(re.findall(r"`(\w+Policy)`", section(DOCUMENT, "What each function may do")))
    assert named == {n for n, r in source()["Resources"].items() if r["Type"] == "AWS::IAM::ManagedPolicy"}


def test_the_keys_are_read_by_the_functions_that_the_document_names() -> None:
    readers = {function for function, _, actions, _ in rights() if "secretsmanager:GetSecretValue" in actions}
    assert readers == {"ConnectFunction", "DefaultFunction"}
    assert "Two functions may read them, `$connect` and `$default`" in TEXT


def test_the_life_of_a_key_is_the_codes() -> None:
    words = prose(section(DOCUMENT, "Keys"))
    assert f"remember them for {keys.MAX_AGE / 60:g} minutes" in words
    assert f"at most every {keys.LOOK_INTERVAL:g} s" in words
    assert keys.MAX_STALE == 3600
    assert "old ones for at most an hour" in words
    assert f"({SECRET_BYTES} random bytes)" in words
    made = source()["Resources"]["KeySecret"]["Properties"]["GenerateSecretString"]
    length = made["PasswordLength"]
    assert f"({length} letters and digits, {math.floor(length * math.log2(62))} bits)" in words


def test_the_policy_of_a_kms_key_lets_in_the_roles_that_read_the_secret_and_nobody_else() -> None:
    statement, _ = map(json.loads, fenced(DOCUMENT, "json"))
    assert (statement["Effect"], statement["Action"]) == ("Allow", "kms:Decrypt")
    # With "*" the conditions alone decide; with the account, the roles would need rights of their own.
    assert statement["Principal"] == {"AWS": "*"}
    assert set(statement["Condition"]) == {"StringEquals", "ArnLike"}
    equal = statement["Condition"]["StringEquals"]
    assert set(equal) == {"kms:CallerAccount", "kms:ViaService"}
    service, region, domain = equal["kms:ViaService"].split(".", 2)
    assert (service, domain) == ("secretsmanager", "amazonaws.com")
    assert f"arn:aws:secretsmanager:{region}:{equal['kms:CallerAccount']}:secret:" in read(
        "docs/operations.md"
    )
    patterns = statement["Condition"]["ArnLike"]["aws:PrincipalArn"]
    resources = resolve_resources()
    roles = of_type(resources, "AWS::IAM::Role")
    assert not any("RoleName" in role or "Path" in role for role in roles.values()), (
        "CloudFormation names them"
    )
    named = {
        name: f"arn:aws:iam::{equal['kms:CallerAccount']}:role/emissary-{name}-1ABCDEFGHIJK" for name in roles
    }
    let_in = {name for name, arn in named.items() if any(fnmatch.fnmatchcase(arn, each) for each in patterns)}
    readers = {f for f, _, actions, _ in rights() if "secretsmanager:GetSecretValue" in actions}
    functions = of_type(resources, "AWS::Lambda::Function")
    assert let_in == {functions[name]["Role"].strip("<>").removesuffix(".Arn") for name in readers}
    asked = {action for _, _, actions, _ in rights() for action in actions}
    assert not any(action.startswith("kms:") for action in asked)


def test_the_policy_of_a_key_for_the_logs_is_for_the_stacks_groups() -> None:
    """Source: CloudWatch Logs user guide, "Encrypt log data in CloudWatch Logs using KMS"."""
    _, statement = map(json.loads, fenced(DOCUMENT, "json"))
    region = statement["Principal"]["Service"].removeprefix("logs.").removesuffix(".amazonaws.com")
    (pattern,) = statement["Condition"]["ArnLike"].values()
    resources = resolve_resources(AccessLogs="true", LogKmsKeyArn=LOG_KEY)
    for name, group in of_type(resources, "AWS::Logs::LogGroup").items():
        assert "LogGroupName" not in group, "CloudFormation names it"
        arn = f"arn:aws:logs:{region}:111122223333:log-group:emissary-{name}-1ABCDEFGHIJK"
        assert fnmatch.fnmatchcase(arn, pattern)


# -- the allow-list ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "meant"),
    [
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("64:ff9b::10.0.0.5", "10.0.0.5"),
    ],
)
def test_a_spelling_that_the_document_has_is_brought_to_its_form(spelling: str, meant: str) -> None:
    words = section(DOCUMENT, "The allow-list")
    assert f"`{spelling}`" in words
    assert meant in words
    assert canonical_host(spelling) == meant


def test_the_reserved_name_stands_in_no_list_as_the_document_says() -> None:
    assert f"The name `{SHARED_TARGET.host}` is reserved: no rule lets anybody dial it, on any port." in TEXT


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"]
)
def test_an_address_that_is_refused_is_let_through_only_if_it_is_listed(address: str) -> None:
    target = Target(address, 80)
    everything = '[{"host":"0.0.0.0/0","port":"1-65535"},{"host":"::/0","port":"1-65535"}]'
    assert not AllowList.parse(everything).permits(target)
    assert AllowList.parse(f'[{{"host":"{address}","port":80}}]').permits(target)


def test_a_suffix_admits_names_below_it_and_a_cidr_admits_addresses_only() -> None:
    rules = AllowList.parse('[{"host":"*.db.internal","port":5432},{"host":"10.0.0.0/16","port":5432}]')
    assert rules.permits(Target("a.db.internal", 5432))
    assert not rules.permits(Target("db.internal", 5432))
    assert rules.permits(Target("10.0.1.2", 5432))
    assert not rules.permits(Target("other.internal", 5432))


# -- logs, limits, the flood ------------------------------------------------------------------


def test_a_field_that_is_not_on_the_list_is_withheld(caplog: pytest.LogCaptureFixture) -> None:
    assert "written as `[withheld]`" in TEXT
    assert not logs.FIELDS & {"key", "mac", "nonce", "token", "password", "payload", "event", "body"}
    logger = logging.getLogger(logs.NAME)
    with caplog.at_level(logging.INFO, logger=logger.name):
        logs.info("a line", nonce="it-is-secret")
    (record,) = caplog.records
    assert record.__dict__["nonce"] == "[withheld]"


def test_the_limits_are_those_of_template_and_code() -> None:
    rows = dict(tables(DOCUMENT, "Limits")[0])
    for name, route in (("WebSockets from strangers", "$connect"), ("messages of all dialers", "$default")):
        rate, burst = throttle(route)
        assert rows[name] == f"{route}: {rate:,} a second, bursts of {burst:,}"
    assert number(rows["from the upgrade to a claimed session"]) == OPENING_TIME
    assert rows["an opening"].startswith(
        f"{constants.MAX_OPENING_BYTES:,} bytes; {constants.MAX_OPENING_TOTAL:,} with"
    )
    assert rows["an opening"].endswith(f"{constants.FRAGMENT_OVERHEAD} more for each piece")
    assert rows["memory of a session, each side"].endswith(
        f"window of {constants.DEFAULT_CAPACITY >> 20} MiB"
    )
    assert rows["a shared session"].startswith(
        f"{MAX_CONNECTIONS} connections at once; {MEMORY:,} bytes in the process for all of them"
    )
    named = set(re.findall(r"`([A-Z]\w+)`", section(DOCUMENT, "Limits")))
    assert named <= set(source()["Parameters"])
    longest = source()["Parameters"]["RelayTimeout"]["MaxValue"]
    assert rows["a session"] == f"RelayTimeout, at most {longest:,} s"
    assert f"more than {constants.CLOCK_SKEW / 60:g} minutes off" in TEXT


def test_the_price_of_a_flood_is_its_parts() -> None:
    rows = dict(tables(DOCUMENT, "A flood of connects")[0])
    memory = of_type(resolve_resources(), "AWS::Lambda::Function")["ConnectFunction"]["MemorySize"] / 1024
    invocations, time, log, gateway, total = rows.values()
    assert number(invocations) == pytest.approx(CHARGES.lambda_request * 1e6)
    assert number(time) == round(memory * HANDLER_SECONDS * CHARGES.lambda_gb_second * 1e6, 2)
    assert f"their time: {memory:g} GB x {HANDLER_SECONDS} s x 1,000,000 x $0.0000133334" in rows
    logged = costs.REFUSED_LOG_BYTES + LAMBDA_LOG_BYTES
    assert number(log) == round(logged * CHARGES.log_byte * 1e6, 2)
    of_both = (
        f"{costs.REFUSED_LOG_BYTES / 1000:g} KB of log that we write, and {LAMBDA_LOG_BYTES / 1000:g} KB that"
    )
    assert f"{of_both} Lambda itself does, at ${CHARGES.log_byte * 1e9:.2f} a GB" in rows
    assert gateway == f"0 to {CHARGES.websocket_message * 1e6:.2f}"
    least = number(invocations) + number(time) + number(log)
    most = least + CHARGES.websocket_message * 1e6
    assert total == f"{least:.2f} to {most:.2f}"
    rate, _ = throttle("$connect")
    day = rate * 86_400 / 1e6
    assert f"that is {day:.2f} million a day, ${day * least:.0f} to ${day * most:.0f};" in TEXT
    assert f"for 30 days, ${30 * day * least:.0f} to ${30 * day * most:.0f}." in TEXT
    assert f"Handlers need {rate} x {HANDLER_SECONDS} s = {rate * HANDLER_SECONDS:g} Lambda units" in TEXT


def test_what_short_messages_cost_follows_from_their_length() -> None:
    rows = {name: row for name, *row in tables(DOCUMENT, "Short messages for everybody")[0]}
    each = (constants.MAX_PAYLOAD, constants.SHORT_PAYLOAD)
    flights = (constants.DIALER_FLIGHT[1], constants.DIALER_FLIGHT[1] * constants.SHORTER)
    units = [math.ceil(base64_length(size) / (32 * 1024)) for size in each]
    assert units == [4, 1]
    memory = of_type(resolve_resources(), "AWS::Lambda::Function")["DefaultFunction"]["MemorySize"]
    invocation = CHARGES.lambda_request + float(memory) / 1024 * HANDLER_SECONDS * CHARGES.lambda_gb_second
    rate, _ = throttle("$default")
    least = 10 * INVOCATIONS_OF_A_UNIT
    assert rows["bytes in a message"] == [f"{size:,}" for size in each]
    assert rows["under way in a session"] == [
        f"{n} x {size:,} bytes = {n * size / 1e6:.2f} MB" for n, size in zip(flights, each, strict=True)
    ]
    together = rows[f"all sessions together, at $default's {rate:,} messages a second"]
    assert [number(cell) for cell in together] == [float(f"{rate * size / 1e6:.3g}") for size in each]
    slowest = rows[f"the same in an account of 10 Lambda units, at {least} a second"]
    assert [number(cell) for cell in slowest] == [float(f"{least * size / 1e6:.2g}") for size in each]
    invoked = rows["invocations of $default for a GB, dollars"]
    assert [number(cell) for cell in invoked] == [round(invocation * 1e9 / size, 3) for size in each]
    metered = rows["a GB's metered units, in and out, dollars"]
    dollars = [2 * n * CHARGES.websocket_message * 1e9 / size for n, size in zip(units, each, strict=True)]
    assert [number(cell) for cell in metered] == [round(each, 3) for each in dollars]
    total = [a + b for a, b in zip((invocation * 1e9 / size for size in each), dollars, strict=True)]
    assert 0.012 < total[1] - total[0] < 0.016, "one and a half cents more"


def base64_length(size: int) -> int:
    """Characters of a message that has so many bytes of data."""
    return constants.HEADER_CHARS + (size + 2) // 3 * 4


def test_the_item_that_is_to_be_deleted_is_where_short_messages_are_remembered() -> None:
    (words,) = (each for each in block_commands(DOCUMENT, "aws") if each[:2] == ["dynamodb", "delete-item"])
    assert json.loads(words[words.index("--key") + 1]) == items.stack_key()
    assert ASKED_EVERY == 60
    assert "Relays that start a minute later" in TEXT
    assert REMEMBERED == 86_400
    assert "`long messages do not pass`" in TEXT
    assert '"long messages do not pass"' in (ROOT / "functions/common/routes/message.py").read_text("utf-8")


def test_no_stranger_reaches_the_tables_and_no_key_holder_costs_much() -> None:
    kept = costs.load()
    strangers = [cost for cost in kept if cost.who == costs.STRANGER]
    assert len(strangers) == 6
    assert not any(cost.writes or cost.reads for cost in strangers)
    assert "No message of a stranger reads or writes anything." in TEXT
    most = max(max(cost.writes, cost.reads) for cost in kept)
    assert most <= costs.MOST_UNITS
    assert f"No message of a key holder takes more than {costs.MOST_UNITS} read or write units" in TEXT


def test_the_costs_are_reckoned_as_the_other_prices_are() -> None:
    assert HANDLER_SECONDS == costs.HANDLER_SECONDS
    functions = of_type(resolve_resources(), "AWS::Lambda::Function")
    for name in ("ConnectFunction", "DefaultFunction"):
        assert float(functions[name]["MemorySize"]) == costs.HANDLER_MEMORY * 1024
    assert f"with {costs.HANDLER_MEMORY} GB for {costs.HANDLER_SECONDS} s" in TEXT
    one = costs.Cost(costs.STRANGER, "", invocations=1, posts=0, units=1, writes=8, reads=8)
    handler = costs.HANDLER_MEMORY * costs.HANDLER_SECONDS * CHARGES.lambda_gb_second
    items = 8 * CHARGES.dynamodb_write_unit + 8 * CHARGES.dynamodb_read_unit
    dollars = CHARGES.lambda_request + CHARGES.websocket_message + items + handler
    assert one.dollars == pytest.approx(dollars * 1e6)
