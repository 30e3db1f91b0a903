"""The reader of SAM templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.template import Template, declared_parameters, read_template

BASE = """
Resources:
  Api:
    Type: AWS::Serverless::WebSocketApi
    Properties:
      StageName: dev
      RouteSelectionExpression: \\$default
      DefaultRouteSettings: {ThrottlingBurstLimit: 20, ThrottlingRateLimit: 10}
      Routes: {$default: {FunctionArn: !GetAtt F.Arn}}
"""
FUNCTION = """
  F:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
"""


def read(tmp_path: Path, text: str, **parameters: str) -> Template:
    file = tmp_path / "template.yaml"
    file.write_text(text)
    return read_template(file, parameters)


def test_function_without_settings_has_lambdas_defaults(tmp_path: Path) -> None:
    spec = read(tmp_path, BASE + FUNCTION).functions["F"]
    assert (spec.timeout, spec.memory, spec.reserved_concurrency) == (3.0, 128, None)
    assert (spec.retry_attempts, spec.event_age) == (2, 21_600.0)
    assert spec.task_root == tmp_path
    assert spec.arn == f"arn:aws:lambda:us-east-1:123456789012:function:{spec.name}"


def test_own_settings_win_over_globals_and_variables_are_merged(tmp_path: Path) -> None:
    top = "Globals: {Function: {Timeout: 20, MemorySize: 512, Environment: {Variables: {A: 1, B: yes}}}}\n"
    own = FUNCTION + "      Timeout: 7\n      Environment: {Variables: {B: two, C: !Ref AWS::Region}}\n"
    spec = read(tmp_path, top + BASE + own).functions["F"]
    assert (spec.timeout, spec.memory) == (7.0, 512)
    assert spec.environment == {"A": "1", "B": "two", "C": "us-east-1"}


def test_asynchronous_settings_are_read(tmp_path: Path) -> None:
    own = FUNCTION + (
        "      EventInvokeConfig: {MaximumRetryAttempts: 0, MaximumEventAgeInSeconds: 60}\n"
        "      ReservedConcurrentExecutions: 5\n"
    )
    spec = read(tmp_path, BASE + own).functions["F"]
    assert (spec.retry_attempts, spec.event_age, spec.reserved_concurrency) == (0, 60.0, 5)


def test_api_has_its_stage_routes_and_throttles(tmp_path: Path) -> None:
    api = read(tmp_path, BASE + FUNCTION).api
    assert (api.stage, api.route_selection, dict(api.routes)) == ("dev", "\\$default", {"$default": "F"})
    assert (api.default_throttle.burst, api.default_throttle.rate) == (20, 10.0)


def test_table_becomes_the_arguments_of_create_table(tmp_path: Path) -> None:
    text = (
        BASE + FUNCTION + "  T:\n    Type: AWS::DynamoDB::Table\n    Properties:\n      TableName: sessions\n"
        "      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]\n"
        "      KeySchema: [{AttributeName: pk, KeyType: HASH}]\n"
        "      TimeToLiveSpecification: {AttributeName: gone, Enabled: true}\n"
    )
    table = read(tmp_path, text).tables["T"]
    assert table.definition["TableName"] == table.name == "sessions"
    assert table.definition["BillingMode"] == "PAY_PER_REQUEST"
    assert table.ttl_attribute == "gone"


def test_policies_are_resolved_and_sam_policy_templates_left_raw(tmp_path: Path) -> None:
    own = FUNCTION + (
        "      Policies:\n"
        "        - DynamoDBReadPolicy: {TableName: !Ref AWS::StackName}\n"
        "        - Version: 2012-10-17\n"
        "          Statement: [{Effect: Allow, Action: x, Resource: !Sub 'arn:${AWS::Partition}:s3:::x'}]\n"
    )
    raw, document = read(tmp_path, BASE + own).functions["F"].policies
    assert raw == {"DynamoDBReadPolicy": {"TableName": "emissary-local"}}
    assert document["Statement"][0]["Resource"] == "arn:aws:s3:::x"
    assert document["Version"] == "2012-10-17", "a date must stay text"


ROLE = """
  R:
    Type: AWS::IAM::Role
    Properties:
      ManagedPolicyArns: [!Ref Elsewhere]
      Policies:
        - PolicyName: Code
          PolicyDocument: {Statement: [{Sid: One, Effect: Allow, Action: x, Resource: !Sub "${AWS::Region}"}]}
  Elsewhere:
    Type: AWS::IAM::ManagedPolicy
    Properties: {PolicyDocument: {Statement: []}}
"""


def test_policies_of_a_functions_role_are_its_policies(tmp_path: Path) -> None:
    own = FUNCTION + "      Role: !GetAtt R.Arn\n      Policies: [AdministratorAccess]\n" + ROLE
    (document,) = read(tmp_path, BASE + own).functions["F"].policies
    assert document["Statement"] == [
        {"Sid": "One", "Effect": "Allow", "Action": "x", "Resource": "us-east-1"}
    ]


def test_managed_policies_of_a_functions_role_are_kept_apart(tmp_path: Path) -> None:
    own = FUNCTION + "      Role: !GetAtt R.Arn\n" + ROLE
    assert read(tmp_path, BASE + own).functions["F"].managed_policies == {"Elsewhere": {"Statement": []}}


def test_managed_policies_of_aws_are_left_as_arns(tmp_path: Path) -> None:
    arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    own = FUNCTION + "      Role: !GetAtt R.Arn\n" + ROLE.replace("!Ref Elsewhere", arn)
    spec = read(tmp_path, BASE + own).functions["F"]
    assert (spec.policies[1:], spec.managed_policies) == ((arn,), {})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("      PermissionsBoundary: x\n", "PermissionsBoundary"),
        ("  P:\n    Type: AWS::IAM::Policy\n", "does not evaluate AWS::IAM::Policy"),
        (ROLE.replace("{PolicyDocument", "{Roles: [!Ref R], PolicyDocument"), "not the role in it"),
        ("      Role: !GetAtt R.Arn\n" + ROLE.replace("Policies:", "PermissionsBoundary: x\n      Policies:"),
         "PermissionsBoundary"),
    ],
)  # fmt: skip
def test_what_would_change_what_policies_mean_is_refused(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        read(tmp_path, BASE + FUNCTION + more)


def test_secrets_are_read(tmp_path: Path) -> None:
    text = """
  Keys:
    Type: AWS::SecretsManager::Secret
    Properties: {Name: keys, SecretString: !Sub "in ${AWS::Region}"}
"""
    secret = read(tmp_path, BASE + FUNCTION + text).secrets["Keys"]
    assert secret.arn == "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"
    assert (secret.name, secret.value) == ("keys", "in us-east-1")


def test_role_of_somewhere_else_is_refused(tmp_path: Path) -> None:
    own = FUNCTION + "      Role: arn:aws:iam::aws:role/other\n" + ROLE
    with pytest.raises(TemplateError, match="'arn:aws:iam::aws:role/other' is no role of this template"):
        read(tmp_path, BASE + own)


def test_resource_with_a_false_condition_is_left_out(tmp_path: Path) -> None:
    text = (
        "Conditions: {Never: !Equals [a, b]}\n" + BASE + FUNCTION
        + "  G:\n    Type: AWS::Serverless::Function\n    Condition: Never\n"
        "    Properties: {Handler: app.handler}\n"
    )  # fmt: skip
    assert set(read(tmp_path, text).functions) == {"F"}


def test_network_parameters_without_a_default_are_made_up(tmp_path: Path) -> None:
    text = (
        "Parameters:\n  Nets: {Type: 'List<AWS::EC2::Subnet::Id>'}\n"
        "  Group: {Type: 'AWS::EC2::SecurityGroup::Id'}\n"
        + BASE + FUNCTION
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
        ("P: {Type: String, NoEcho: true, AllowedPattern: '[0-9]+'}", {"P": "c"}, "its value does not match"),
    ],
)
def test_bad_parameter_is_refused(tmp_path: Path, top: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, f"Parameters: {{{top}}}\n" + BASE + FUNCTION, **given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- a", "holds no mapping"),
        ("Resources: {}", "has 0 resources of type AWS::Serverless::WebSocketApi"),
        ("Resources: {A: {}}", "Resources.A: a resource needs a Type"),
        (BASE, "names F.Arn, which the local cloud does not know"),
        (BASE + FUNCTION.replace("app.handler", "app"), "Handler must be module.function, not 'app'"),
        (BASE + FUNCTION + "      CodeUri: absent\n", "CodeUri 'absent' is no directory"),
        (BASE + FUNCTION + "      InlineCode: x\n", "only functions with a CodeUri directory"),
        (BASE + FUNCTION + "      Timeout: soon\n", "Resources.F.Properties.Timeout: 'soon' is no number"),
        (BASE + FUNCTION + "      Timeout: 1\n      Timeout: 2\n", "the key 'Timeout' is there twice"),
        (
            BASE + FUNCTION + "      Environment: {Variables: {V: !ImportValue x}}\n",
            r"Resources.F.Properties.Environment.Variables.V: the local cloud does not know Fn::ImportValue",
        ),
        (
            BASE + FUNCTION + "      Environment: {Variables: {V: !Ref Nobody}}\n",
            r"Resources.F.Properties.Environment.Variables.V: !Ref names 'Nobody'",
        ),
    ],
)
def test_bad_template_is_refused_with_cause_and_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, text)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"cannot read the template .*nothing\.yaml"):
        declared_parameters(tmp_path / "nothing.yaml")


def test_secret_variables_are_not_shown_in_a_repr(tmp_path: Path) -> None:
    own = FUNCTION + "      Environment: {Variables: {KEY: hush}}\n"
    assert "hush" not in repr(read(tmp_path, BASE + own))


def test_the_projects_own_template_can_be_read() -> None:
    path = Path(__file__).resolve().parents[4] / "template.yaml"
    template = read_template(path, {"AllowedTargets": "[]"})
    assert set(template.api.routes) == {"$connect", "$default", "$disconnect"}
    assert template.functions["RelayFunction"].retry_attempts == 0
    assert template.functions["RelayFunction"].timeout == 900.0
