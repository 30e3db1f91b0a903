"""The template's parameters and outputs: each has its meaning, limits and use."""

from __future__ import annotations

import json
import re
import shlex
import string
from typing import Any

import botocore.session
import pytest

from emissary_lib.protocol.auth.keys import parse_keys
from emissary_lib.protocol.constants import MAX_MESSAGE_RATE
from emissary_lib.protocol.targets.allow_list import AllowList
from emissary_local.errors import TemplateError
from emissary_local.template.names import parameter_values
from emissary_local.template.template import read_template
from functions.common.config import ALLOWED_TARGETS, default_settings
from functions.relay.settings import RelaySettings
from tests.helpers.sam_template import (
    REQUIRED,
    TEMPLATE,
    of_type,
    outputs,
    resolve_resources,
    resolver,
    source,
    strings,
    translate_template,
)

PARAMETERS: dict[str, dict[str, Any]] = source()["Parameters"]
OUTPUTS: dict[str, dict[str, Any]] = source()["Outputs"]

ARN = "arn:aws:sns:eu-west-1:" + "1" * 12 + ":alarms"
SECRET = "arn:aws:secretsmanager:eu-west-1:" + "1" * 12 + ":secret:team/keys-AbCdEf"
BOUNDARY = "arn:aws:iam::" + "1" * 12 + ":policy/team/Boundary"
LOG_KEY = "arn:aws:kms:eu-west-1:" + "1" * 12 + ":key/0123-abcd"
CERTIFICATE = "arn:aws:acm:eu-west-1:" + "1" * 12 + ":certificate/0123-abcd"

#: Parameter -> values that are taken, values that are not.
VALUES: dict[str, tuple[list[str], list[str]]] = {
    "SecurityGroupId": (["", "sg-0123456789abcdef0", "sg-01234567"], ["sg-1", "default", "subnet-01234567"]),
    "RelayIpv6": (["true", "false"], ["True", "yes", ""]),
    "DnsServers": (["", "10.0.0.2", "10.0.0.2 fd00:ec2::253"], ["10.0.0.2,10.0.0.3", "dns.internal", " "]),
    "AllowedTargets": (
        [
            "[]",
            '[{"host":"db.internal","port":5432}]',
            ' [ {"port": [3306, "5432 - 5440"], "host": "*.internal"} ] ',
            '[{"host":"10.0.0.0/16","port":"1-65535"} ,\n{"host":"10.1.0.0/16","port":1}]',
            '[{"host":"2001:db8::/32","port":"5432"},{"host":"[::1]","port":1},{"host":"b\u00fccher.example","port":1}]',
        ],
        [
            *("", "db.internal:5432", "{}", "[{}]", '["db.internal:5432"]'),
            '[{"host":"db.internal","port":5432},]',
            '[{"host":"db.internal:5432","port":5432}]',
            '[{"host":"db:5432","port":5432}]',
            '[{"host":"https://db.internal","port":5432}]',
            "[{\u201chost\u201d:\u201cdb.internal\u201d,\u201cport\u201d:5432}]",
            "[{'host':'db.internal','port':5432}]",
            '[{"host":"db.internal","port":"postgres"}]',
            '[{"host":"db.internal","ports":5432}]',
            '[{"host":"db.internal","port":5432} {"host":"db2.internal","port":5432}]',
        ],
    ),
    "TargetPorts": (
        ["5432", "5432,3306", "1,2,3,4,5", "65535", "9999,59999,64999,65499,65529", "4430,530,1443"],
        [
            *("", "0", "05432", "65536", "66000", "70000", "99999", "100000"),
            *("443", "53", "443,5432", "5432,443", "5432,53,3306", "5432,5432", "3306,5432,3306"),
            *("5432, 3306", "1,2,3,4,5,6", "5432-5440", "5432,", ",5432"),
        ],
    ),
    "KeySecretArn": (
        ["", SECRET],
        ["team/keys", SECRET.removesuffix("-AbCdEf"), SECRET.replace("secret:", "key:")],
    ),
    "RelayMemory": (["128", "10240"], ["127", "10241", "much"]),
    "RelayTimeout": (["60", "900", "1800"], ["59", "1801"]),
    "RelayConcurrency": (["0", "1", "1000"], ["-1", "1001", ""]),
    "RelayGraceSeconds": (["5", "300"], ["4", "301"]),
    "RelayPingSeconds": (["10", "300"], ["9", "301", "240 s"]),
    "RelayPongSeconds": (["5", "60"], ["4", "61"]),
    "DefaultMemory": (["512", "10240"], ["511"]),
    "MaxSessions": (["0", "1", "1000"], ["-1", "1001"]),
    "MaxSessionsPerKey": (["0", "1", "1000"], ["-1", "1001"]),
    "Architecture": (["arm64", "x86_64"], ["x86", ""]),
    "LogLevel": (["DEBUG", "INFO", "WARNING", "ERROR"], ["debug", "TRACE"]),
    "LogRetentionDays": (["1", "90", "731", "3653"], ["0", "2", "730", "3654", "for ever"]),
    "AccessLogs": (["true", "false"], ["1"]),
    "AlarmTopicArn": (["", ARN], ["alarms", ARN.replace("sns", "sqs")]),
    "Tracing": (["true", "false"], ["Active"]),
    "DomainName": (["", "db.example.com"], ["example", "DB.example.com", "wss://db.example.com"]),
    "CertificateArn": (["", CERTIFICATE], ["0123-abcd", CERTIFICATE.replace("acm", "iam")]),
    "HostedZoneId": (["", "Z0123456789ABCDEFGHIJ"], ["example.com", "/hostedzone/Z0"]),
    "DisableExecuteApiEndpoint": (["true", "false"], ["yes"]),
    "PermissionsBoundaryArn": (
        ["", BOUNDARY, "arn:aws-cn:iam::aws:policy/PowerUserAccess"],
        ["Boundary", BOUNDARY.replace("policy", "role")],
    ),
    "RolePath": (["", "/", "/platform/", "/a/b-1/"], ["platform", "/platform", "platform/", "/a b/", "//"]),
    "LogKmsKeyArn": (["", LOG_KEY], [LOG_KEY.replace("key/", "alias/"), "0123-abcd"]),
    "IpAddressType": (["dualstack", "ipv4"], ["ipv6", ""]),
    "DefaultThrottle": (["10", "2000"], ["9", "2001"]),
}

#: Of AWS's own types, which AWS checks itself.
OF_AWS = {"VpcId", "SubnetIds"}


def egress(**parameters: str) -> set[tuple[str, int, str]]:
    """Protocol, port and where to, of what the group made for the relay lets out."""
    (group,) = of_type(resolve_resources(**parameters), "AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    for rule in group["SecurityGroupEgress"]:
        assert int(rule["FromPort"]) == int(rule["ToPort"])
        assert rule["Description"]
        assert len({"CidrIp", "CidrIpv6"} & set(rule)) == 1
    return {
        (rule["IpProtocol"], int(rule["FromPort"]), rule.get("CidrIp") or rule["CidrIpv6"])
        for rule in group["SecurityGroupEgress"]
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_says_what_it_is_and_what_it_may_be(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter["Description"].endswith(".")
    if name not in OF_AWS and not parameter.get("NoEcho"):
        assert parameter["ConstraintDescription"]
        assert {"AllowedPattern", "AllowedValues", "MinValue"} & set(parameter)


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, (good, _) in VALUES.items() for v in good])
def test_a_good_value_is_taken(name: str, value: str) -> None:
    assert parameter_values(PARAMETERS, {**REQUIRED, name: value})[name] == value


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, (_, bad) in VALUES.items() for v in bad])
def test_a_bad_value_is_refused_with_the_words_of_the_template(name: str, value: str) -> None:
    wanted = re.escape(PARAMETERS[name]["ConstraintDescription"])
    with pytest.raises(TemplateError, match=rf"the parameter '{name}': .*want {wanted}"):
        parameter_values(PARAMETERS, {**REQUIRED, name: value})


def test_every_parameter_with_a_pattern_or_limits_has_its_cases() -> None:
    secret = {name for name, parameter in PARAMETERS.items() if parameter.get("NoEcho")}
    assert set(VALUES) == set(PARAMETERS) - OF_AWS - secret


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"DomainName": "db.example.com"}, "DomainName needs CertificateArn"),
        ({"CertificateArn": CERTIFICATE}, "CertificateArn is of use only with DomainName"),
        ({"HostedZoneId": "Z0"}, "HostedZoneId is of use only with DomainName"),
        ({"DisableExecuteApiEndpoint": "true"}, "without DomainName would leave no way in"),
    ],
)
def test_values_that_do_not_go_together_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read_template(TEMPLATE, {**REQUIRED, **given})


def test_logs_can_be_kept_for_any_time_that_cloudwatch_knows() -> None:
    """As botocore's own model of CloudWatch Logs tells it (PutRetentionPolicy)."""
    shape = botocore.session.get_session().get_service_model("logs").shape_for("Days")
    told = re.search(r"Possible values are: ([\d, and]+)", shape.documentation)
    assert told is not None
    assert PARAMETERS["LogRetentionDays"]["AllowedValues"] == list(map(int, re.findall(r"\d+", told[1])))


def test_the_form_in_the_console_has_every_parameter_once_and_labelled() -> None:
    interface = source()["Metadata"]["AWS::CloudFormation::Interface"]
    shown = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(shown) == sorted(PARAMETERS)
    assert set(interface["ParameterLabels"]) == set(PARAMETERS)
    assert all(group["Label"]["default"] for group in interface["ParameterGroups"])


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_used_by_a_resource(name: str) -> None:
    document = source()
    conditions = {
        condition
        for condition, value in document["Conditions"].items()
        if name in re.findall(r"\w+", " ".join(strings(value)))
    }
    words = set(re.findall(r"\w+", " ".join(strings([document["Resources"], document["Globals"]]))))
    assert name in words or conditions & words


def test_every_condition_is_used() -> None:
    document = source()
    words = re.findall(
        r"\w+", " ".join(strings([document[part] for part in ("Resources", "Globals", "Outputs")]))
    )
    assert set(document["Conditions"]) <= set(words)


def test_every_output_says_what_it_is() -> None:
    assert all(output["Description"].endswith(".") for output in OUTPUTS.values())


# -- the network ------------------------------------------------------------------------------


def test_the_relay_gets_out_to_the_targets_dns_and_https_and_nowhere_else() -> None:
    basic = {("tcp", 443), ("udp", 53), ("tcp", 53)}
    assert egress() == {(*each, "0.0.0.0/0") for each in {*basic, ("tcp", 5432)}}
    assert egress(TargetPorts="3306,6379,1,2,65535") == {
        (*each, "0.0.0.0/0")
        for each in {*basic, ("tcp", 3306), ("tcp", 6379), ("tcp", 1), ("tcp", 2), ("tcp", 65535)}
    }


def test_a_port_that_is_let_out_anyway_cannot_be_listed_and_every_other_can() -> None:
    pattern = PARAMETERS["TargetPorts"]["AllowedPattern"]
    refused = {port for port in range(70_000) if not re.fullmatch(pattern, str(port))}
    own = {port for _, port, _ in egress()} - {int(PARAMETERS["TargetPorts"]["Default"])}
    assert refused == {0, *own, *range(65_536, 70_000)}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_with_ipv6_it_gets_out_to_the_same_over_both(count: int) -> None:
    ports = [str(5000 + index) for index in range(count)]
    rules = egress(TargetPorts=",".join(ports), RelayIpv6="true")
    over_ipv4 = {each[:2] for each in rules if each[2] == "0.0.0.0/0"}
    assert over_ipv4 == {each[:2] for each in rules if each[2] == "::/0"}
    assert {("tcp", int(port)) for port in ports} < over_ipv4
    assert len(over_ipv4) == count + 3


def test_a_group_of_ones_own_is_used_and_none_is_made() -> None:
    mine = "sg-0123456789abcdef0"
    resources = resolve_resources(SecurityGroupId=mine)
    assert not of_type(resources, "AWS::EC2::SecurityGroup")
    assert resources["RelayFunction"]["Properties"]["VpcConfig"]["SecurityGroupIds"] == [mine]
    made = resolve_resources()["RelayFunction"]["Properties"]["VpcConfig"]["SecurityGroupIds"]
    assert made == ["<RelaySecurityGroup.GroupId>"]


def test_both_ends_of_the_way_are_dual_stack() -> None:
    resources = resolve_resources(RelayIpv6="true", DomainName="db.example.com", CertificateArn=CERTIFICATE)
    assert resources["WebSocketApi"]["Properties"]["IpAddressType"] == "dualstack"
    (settings,) = resources["CustomDomain"]["Properties"]["DomainNameConfigurations"]
    assert settings["IpAddressType"] == "dualstack"
    assert resources["RelayFunction"]["Properties"]["VpcConfig"]["Ipv6AllowedForDualStack"] == "true"


def test_where_there_are_no_dual_stack_apis_neither_end_is() -> None:
    domain = {"DomainName": "db.example.com", "CertificateArn": CERTIFICATE, "HostedZoneId": "Z0123456789"}
    resources = resolve_resources(**domain, IpAddressType="ipv4")
    assert resources["WebSocketApi"]["Properties"]["IpAddressType"] == "ipv4"
    (settings,) = resources["CustomDomain"]["Properties"]["DomainNameConfigurations"]
    assert settings["IpAddressType"] == "ipv4"
    records = resources["CustomDomainRecords"]["Properties"]["RecordSets"]
    assert [record["Type"] for record in records] == ["A"]


# -- what is made only when asked for ---------------------------------------------------------


def test_nothing_is_reserved_unless_asked_for() -> None:
    assert "ReservedConcurrentExecutions" not in resolve_resources()["RelayFunction"]["Properties"]
    relay = resolve_resources(RelayConcurrency="7")["RelayFunction"]["Properties"]
    assert relay["ReservedConcurrentExecutions"] == "7"


@pytest.mark.parametrize(("sessions", "relays", "most"), [("5", "0", 5), ("5", "3", 3), ("0", "3", 3)])
def test_the_bridge_counts_no_more_sessions_than_lambda_runs_relays(
    sessions: str, relays: str, most: int
) -> None:
    default = resolve_resources(MaxSessions=sessions, RelayConcurrency=relays)["DefaultFunction"][
        "Properties"
    ]
    variables = {**default["Environment"]["Variables"], "AWS_REGION": "eu-west-1"}
    variables[ALLOWED_TARGETS] = "[]"
    assert default_settings(variables).max_sessions == most


def test_the_throttle_of_messages_is_the_parameters() -> None:
    (stage,) = of_type(resolve_resources(DefaultThrottle="300"), "AWS::ApiGatewayV2::Stage").values()
    throttle = {name: value for name, value in stage["DefaultRouteSettings"].items() if "Throttling" in name}
    assert throttle == {"ThrottlingBurstLimit": "300", "ThrottlingRateLimit": "300"}
    most = PARAMETERS["DefaultThrottle"]["MaxValue"]
    assert most == MAX_MESSAGE_RATE, "more of a session would be taken for a lie of its side"


# -- the rules of a company's account ---------------------------------------------------------


def test_all_roles_have_the_boundary_and_the_path_or_none() -> None:
    plain, given = resolve_resources(Tracing="true"), {"PermissionsBoundaryArn": BOUNDARY, "RolePath": "/a/"}
    ruled = resolve_resources(**given, Tracing="true")
    assert len(of_type(plain, "AWS::IAM::Role")) == 4
    for role in of_type(plain, "AWS::IAM::Role").values():
        assert not {"PermissionsBoundary", "Path"} & set(role)
    for role in of_type(ruled, "AWS::IAM::Role").values():
        assert (role["PermissionsBoundary"], role["Path"]) == (BOUNDARY, "/a/")
    assert {policy["Path"] for policy in of_type(ruled, "AWS::IAM::ManagedPolicy").values()} == {"/a/"}


def test_every_log_group_is_encrypted_with_the_key_that_is_given() -> None:
    groups = of_type(resolve_resources(AccessLogs="true", LogKmsKeyArn=LOG_KEY), "AWS::Logs::LogGroup")
    assert {name: group["KmsKeyId"] for name, group in groups.items()} == {
        "LogGroup": LOG_KEY,
        "AccessLogGroup": LOG_KEY,
    }
    assert "KmsKeyId" not in resolve_resources()["LogGroup"]["Properties"]


#: What has the stack's name in it -> how long it may be. CloudFormation makes the other names, which fit.
#: Sources: botocore (CreateApi, CreateSecret, Dimension); CloudWatch API reference, "PutDashboard"; Lambda
#: developer guide, "Lambda quotas" (all variables of a function together).
HOLDS_THE_NAME = {
    ("AWS::ApiGatewayV2::Api", "Name"): 128,
    ("AWS::CloudWatch::Dashboard", "DashboardName"): 255,
    ("AWS::CloudWatch::Dashboard", "DashboardBody"): 1_000_000,
    ("AWS::CloudWatch::Alarm", "Dimensions"): 1024,
    ("AWS::CloudWatch::Alarm", "Metrics"): 1024,
    ("AWS::SecretsManager::Secret", "Description"): 2048,
    ("AWS::Lambda::Function", "Environment"): 4096,
}


def test_the_longest_name_that_a_stack_can_have_fits_wherever_it_stands() -> None:
    name = "n" * 128
    resolve = resolver(REQUIRED, stack_name=name)
    for logical_id, resource in translate_template()["Resources"].items():
        for key, value in resource.get("Properties", {}).items():
            if not any("AWS::StackName" in text for text in strings(value)):
                continue
            # Metrics and dimensions hold the name alone, each in a text of its own.
            texts = list(strings(resolve.resolve(value, logical_id)))
            held = [text for text in texts if name in text]
            longest = sum(map(len, texts)) if key == "Environment" else max(map(len, held))
            assert longest <= HOLDS_THE_NAME[resource["Type"], key], (logical_id, key)


def test_a_secret_of_ones_own_is_the_one_that_is_read_and_none_is_made() -> None:
    made, own = resolve_resources(), resolve_resources(KeySecretArn=SECRET)
    assert of_type(made, "AWS::SecretsManager::Secret")
    assert not of_type(own, "AWS::SecretsManager::Secret")
    for resources, arn in ((made, "<KeySecret>"), (own, SECRET)):
        for name in ("Connect", "Default"):
            function, role = resources[f"{name}Function"], resources[f"{name}Role"]
            variables = function["Properties"]["Environment"]["Variables"]
            assert variables["EMISSARY_AUTH_KEYS_SECRET"] == arn
            (policy,) = role["Properties"]["Policies"]
            (read,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Sid"] == "ReadKeys"]
            assert (read["Action"], read["Resource"]) == ("secretsmanager:GetSecretValue", arn)
    assert outputs()["KeySecretArn"] == "<KeySecret>"
    assert outputs(KeySecretArn=SECRET)["KeySecretArn"] == SECRET


def test_how_the_key_is_drawn_never_changes() -> None:
    """CloudFormation draws a new key in place of all keys there are if anything in this block changes.

    Source: aws-cloudformation/cloudformation-coverage-roadmap on GitHub, on GenerateSecretString.
    """
    assert source()["Resources"]["KeySecret"]["Properties"]["GenerateSecretString"] == {
        "SecretStringTemplate": '{"kid":1}',
        "GenerateStringKey": "data",
        "PasswordLength": 64,
        "ExcludePunctuation": True,
    }


def test_the_key_that_is_drawn_is_a_key() -> None:
    """Secrets Manager adds so many letters and digits to the object; whichever they are, they are base64."""
    (secret,) = of_type(resolve_resources(), "AWS::SecretsManager::Secret").values()
    drawn = secret["GenerateSecretString"]
    assert drawn["ExcludePunctuation"] is True
    assert drawn["PasswordLength"] % 4 == 0
    alphabet = string.ascii_letters + string.digits
    text = (alphabet * 2)[: drawn["PasswordLength"]]
    key = {**json.loads(drawn["SecretStringTemplate"]), drawn["GenerateStringKey"]: text}
    (parsed,) = parse_keys(json.dumps([key]))
    assert (parsed.key_id, len(parsed.secret)) == (1, 48)


def test_the_doctors_command_has_the_address_and_fetches_the_key() -> None:
    command = outputs(KeySecretArn=SECRET)["DoctorCommand"]
    words = shlex.split(command)
    assert words[0] == "EMISSARY_URL=" + outputs()["WebSocketUrl"]
    assert f"--secret-id {SECRET} " in words[1]
    assert words[2:] == ["emissary", "doctor"]


def test_traces_are_sent_only_if_asked_for_and_allowed() -> None:
    for asked, mode in (("false", "PassThrough"), ("true", "Active")):
        resources = resolve_resources(Tracing=asked)
        for function in of_type(resources, "AWS::Lambda::Function").values():
            assert function["TracingConfig"] == {"Mode": mode}
        for role in of_type(resources, "AWS::IAM::Role").values():
            assert ("<TracesPolicy>" in role["ManagedPolicyArns"]) is (asked == "true")
        assert ("TracesPolicy" in resources) is (asked == "true")


@pytest.mark.parametrize("zone", ["", "Z0123456789"])
def test_a_domain_of_ones_own_is_the_address_everywhere(zone: str) -> None:
    given = {"DomainName": "db.example.com", "CertificateArn": CERTIFICATE, "HostedZoneId": zone}
    resources = resolve_resources(**given)
    url = outputs(**given)["WebSocketUrl"]
    assert url == "wss://db.example.com/emissary"
    relay = RelaySettings.from_env(
        {**resources["RelayFunction"]["Properties"]["Environment"]["Variables"], "AWS_REGION": "eu-west-1"}
    )
    assert relay.websocket_url == url
    # @connections is at the mapping's path; the handlers build it from the stage, so both have one name.
    mapping = resources["CustomDomainMapping"]["Properties"]
    assert (
        mapping["ApiMappingKey"]
        == relay.stage
        == source()["Resources"]["WebSocketApi"]["Properties"]["StageName"]
    )
    assert mapping["Stage"] == "<WebSocketApiemissaryStage>"
    assert ("CustomDomainRecords" in resources) is bool(zone)
    if zone:
        records = resources["CustomDomainRecords"]["Properties"]["RecordSets"]
        assert [record["Type"] for record in records] == ["A", "AAAA"]


@pytest.mark.parametrize("disabled", ["true", "false"])
def test_the_apis_own_name_answers_unless_it_is_switched_off(disabled: str) -> None:
    domain = {"DomainName": "db.example.com", "CertificateArn": CERTIFICATE}
    resources = resolve_resources(**domain, DisableExecuteApiEndpoint=disabled)
    assert resources["WebSocketApi"]["Properties"]["DisableExecuteApiEndpoint"] == disabled
    given = {**REQUIRED, **domain, "DisableExecuteApiEndpoint": disabled}
    assert read_template(TEMPLATE, given).api.stage == "emissary", "the local cloud runs it too"


def test_without_one_there_is_no_domain() -> None:
    assert not {"CustomDomain", "CustomDomainMapping", "CustomDomainRecords"} & set(resolve_resources())


def test_the_examples_in_the_descriptions_are_valid() -> None:
    (example,) = re.findall(r"\[\{.*?\}\]", PARAMETERS["AllowedTargets"]["ConstraintDescription"])
    assert " ".join(map(str, AllowList.parse(example).rules)) == "db.internal:5432"
    assert json.loads(example)[0]["port"] == int(PARAMETERS["TargetPorts"]["Default"])


def test_the_schedules_event_is_the_one_the_relay_knows() -> None:
    from functions.relay.app import KEEP_ALIVE

    (rule,) = of_type(resolve_resources(), "AWS::Events::Rule").values()
    (target,) = rule["Targets"]
    assert json.loads(target["Input"]) == KEEP_ALIVE
    days = re.fullmatch(r"rate\((\d+) days\)", rule["ScheduleExpression"])
    assert days is not None
    assert 2 * int(days[1]) < 14, "one that is missed may be made up for"
