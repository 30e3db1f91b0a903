"""What is read of a template, and how a bad one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.specs import Route
from emissary_local.template.template import read_template
from tests.unit.local.template.stacks import STACK, read


def test_function_without_settings_has_lambdas_defaults(tmp_path: Path) -> None:
    spec = read(tmp_path, STACK).functions["F"]
    assert (spec.timeout, spec.memory, spec.reserved_concurrency) == (3.0, 128, None)
    assert (spec.retry_attempts, spec.event_age) == (2, 21_600.0)
    assert spec.task_root == tmp_path
    assert spec.arn == f"arn:aws:lambda:us-east-1:123456789012:function:{spec.name}"


def test_settings_and_variables_of_a_function_are_read(tmp_path: Path) -> None:
    own = (
        "      Timeout: 7\n      MemorySize: '512'\n"
        "      Environment: {Variables: {A: 1, B: yes, C: !Ref AWS::Region}}\n"
    )
    spec = read(tmp_path, STACK + own).functions["F"]
    assert (spec.timeout, spec.memory) == (7.0, 512)
    assert spec.environment == {"A": "1", "B": "true", "C": "us-east-1"}


@pytest.mark.parametrize("name", ["!Ref F", "!GetAtt F.Arn"])
def test_asynchronous_settings_are_read(tmp_path: Path, name: str) -> None:
    text = STACK + (
        "      ReservedConcurrentExecutions: 5\n"
        "  Config:\n    Type: AWS::Lambda::EventInvokeConfig\n    Properties:\n"
        f"      FunctionName: {name}\n      Qualifier: $LATEST\n      DestinationConfig: {{}}\n"
        "      MaximumRetryAttempts: 0\n      MaximumEventAgeInSeconds: 60\n"
    )
    spec = read(tmp_path, text).functions["F"]
    assert (spec.retry_attempts, spec.event_age, spec.reserved_concurrency) == (0, 60.0, 5)


def test_table_becomes_the_arguments_of_create_table(tmp_path: Path) -> None:
    text = (
        STACK + "  T:\n    Type: AWS::DynamoDB::Table\n    Properties:\n      TableName: sessions\n"
        "      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]\n"
        "      KeySchema: [{AttributeName: pk, KeyType: HASH}]\n"
        "      TimeToLiveSpecification: {AttributeName: gone, Enabled: true}\n"
    )
    table = read(tmp_path, text).tables["T"]
    assert table.definition["TableName"] == table.name == "sessions"
    assert table.definition["BillingMode"] == "PAY_PER_REQUEST"
    assert table.ttl_attribute == "gone"


def test_capacities_of_a_table_that_are_text_become_numbers(tmp_path: Path) -> None:
    text = (
        "Parameters: {Units: {Type: Number, Default: 5}}\n"
        + STACK + "  T:\n    Type: AWS::DynamoDB::Table\n    Properties:\n"
        "      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]\n"
        "      KeySchema: [{AttributeName: pk, KeyType: HASH}]\n"
        "      ProvisionedThroughput: {ReadCapacityUnits: !Ref Units, WriteCapacityUnits: '7'}\n"
    )  # fmt: skip
    given = read(tmp_path, text).tables["T"].definition["ProvisionedThroughput"]
    assert given == {"ReadCapacityUnits": 5, "WriteCapacityUnits": 7}


def test_secrets_are_read(tmp_path: Path) -> None:
    text = """
  Keys:
    Type: AWS::SecretsManager::Secret
    Properties: {Name: keys, SecretString: !Sub "in ${AWS::Region}"}
"""
    secret = read(tmp_path, STACK + text).secrets["Keys"]
    assert secret.arn == "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"
    assert (secret.name, secret.value) == ("keys", "in us-east-1")


def test_what_changes_nothing_for_a_run_is_passed_over_unresolved(tmp_path: Path) -> None:
    text = """
  Alarm: {Type: AWS::CloudWatch::Alarm, Properties: {Threshold: !GetAtt Nobody.Knows}}
  Group: {Type: AWS::Logs::LogGroup}
  Net: {Type: AWS::EC2::VPC}
"""
    assert set(read(tmp_path, STACK + text).functions) == {"F"}


def test_resource_with_a_false_condition_is_left_out(tmp_path: Path) -> None:
    text = (
        "Conditions: {Never: !Equals [a, b]}\n" + STACK
        + "  G:\n    Type: AWS::Lambda::Function\n    Condition: Never\n"
        "    Properties: {Handler: app.handler}\n"
    )  # fmt: skip
    assert set(read(tmp_path, text).functions) == {"F"}


def test_network_parameters_without_a_default_are_made_up(tmp_path: Path) -> None:
    text = (
        "Parameters:\n  Nets: {Type: 'List<AWS::EC2::Subnet::Id>'}\n"
        "  Group: {Type: 'AWS::EC2::SecurityGroup::Id'}\n"
        + STACK
        + "      Environment: {Variables: {N: !Join ['+', !Ref Nets], G: !Ref Group}}\n"
    )  # fmt: skip
    environment = read(tmp_path, text).functions["F"].environment
    first, second = environment["N"].split("+")
    assert first.startswith("subnet-0")
    assert len(first) == len("subnet-") + 17
    assert first != second
    assert environment["G"].startswith("sg-0")


@pytest.mark.parametrize(
    ("top", "given", "message"),
    [
        ("P: {Type: String}", {}, "the parameter 'P' has no default"),
        ("P: {Type: String, Default: a}", {"Q": "x"}, "the template has no parameter 'Q'"),
        ("P: {Type: String, AllowedValues: [a, b]}", {"P": "c"}, "'P': 'c' is none of: a, b"),
        ("P: {Type: Number, MinValue: 5}", {"P": "4"}, "'P': '4' breaks its MinValue of 5"),
        ("P: {Type: Number, MaxValue: 5}", {"P": "6"}, "'P': '6' breaks its MaxValue of 5"),
        ("P: {Type: Number}", {"P": "x"}, "'P': 'x' is no number"),
        ("P: {Type: String, MinLength: 2}", {"P": "a"}, "'P': 'a' breaks its MinLength of 2"),
        ("P: {Type: String, MaxLength: 2}", {"P": "abc"}, "'P': 'abc' breaks its MaxLength of 2"),
        (
            "P: {Type: String, MinLength: 2, ConstraintDescription: two letters}",
            {"P": "a"},
            r"MinLength of 2 \(want two letters\)",
        ),
        ("P: {Type: String, AllowedPattern: '[0-9]+'}", {"P": "c"}, r"'P': 'c' does not match \[0-9\]\+"),
        (
            "P: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /p}",
            {},
            "would be looked up in an account",
        ),
        ("P: {Type: String, NoEcho: true, AllowedPattern: '[0-9]+'}", {"P": "c"}, "its value does not match"),
    ],
)
def test_bad_parameter_is_refused(tmp_path: Path, top: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, f"Parameters: {{{top}}}\n" + STACK, **given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- a", "holds no mapping"),
        ("Resources: {}", "has 0 resources of type AWS::ApiGatewayV2::Api"),
        ("Resources: {A: {}}", "Resources.A: a resource needs a Type"),
        (STACK + "      Timeout: soon\n", "Resources.F.Properties.Timeout: 'soon' is no number"),
        (STACK + "      Timeout: 1\n      Timeout: 2\n", "the key 'Timeout' is there twice"),
        (
            STACK + "      Environment: {Variables: {V: !ImportValue x}}\n",
            r"Resources.F.Properties.Environment.Variables.V: the local cloud does not know Fn::ImportValue",
        ),
        (
            STACK + "      Environment: {Variables: {V: !Ref Nobody}}\n",
            r"Resources.F.Properties.Environment.Variables.V: !Ref names 'Nobody'",
        ),
        (
            STACK + "      Environment: {Variables: {V: !Sub '{{resolve:ssm:/${AWS::Region}}}'}}\n",
            r"Resources.F.Properties.Environment.Variables.V: the local cloud looks nothing up in an account",
        ),
        (
            STACK + "  Q: {Type: AWS::SQS::Queue}\n",
            "Resources.Q: the local cloud does not know AWS::SQS::Queue; it",
        ),
    ],
)
def test_bad_template_is_refused_with_cause_and_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, text)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"cannot read the template .*nothing\.yaml"):
        read_template(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("text", ["Parameters: 7", "Parameters: [a]", "Resources: text", "Mappings: [a]"])
def test_a_section_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(text)
    with pytest.raises(TemplateError, match=rf"^{text.partition(':')[0]}: want a mapping of names"):
        read_template(file)


def test_secret_variables_are_not_shown_in_a_repr(tmp_path: Path) -> None:
    assert "hush" not in repr(read(tmp_path, STACK + "      Environment: {Variables: {KEY: hush}}\n"))


def test_the_projects_own_template_can_be_read() -> None:
    path = Path(__file__).resolve().parents[4] / "template.yaml"
    template = read_template(path, {"AllowedTargets": "[]"})
    assert template.api.routes["$connect"] == Route("ConnectFunction")
    assert template.functions["RelayFunction"].retry_attempts == 0
    assert template.functions["RelayFunction"].timeout == 900.0
