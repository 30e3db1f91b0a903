"""What SAM's translator makes of a template: its code, its parameters, its refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from emissary_local.errors import LocalCloudError, TemplateError
from emissary_local.template import sam
from emissary_local.template.specs import Route
from tests.unit.local.template.stacks import STACK, document, read

SAM = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Retries: {Type: Number, Default: 1}
Globals:
  Function:
    Runtime: python3.13
    Handler: app.handler
    Timeout: 20
    Environment: {Variables: {A: 1, B: yes}}
Resources:
  Api:
    Type: AWS::Serverless::WebSocketApi
    Properties:
      StageName: dev
      RouteSelectionExpression: \\$default
      DefaultRouteSettings: {ThrottlingBurstLimit: 20, ThrottlingRateLimit: 10}
      Routes:
        $default: {FunctionArn: !GetAtt F.Arn}
        say: {FunctionArn: !GetAtt G.Arn}
  Table: {Type: AWS::Serverless::SimpleTable}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Timeout: 7
      Environment: {Variables: {B: two, C: !Ref AWS::Region}}
      EventInvokeConfig: {MaximumRetryAttempts: !Ref Retries}
      Policies:
        - AWSLambdaBasicExecutionRole
        - DynamoDBReadPolicy: {TableName: !Ref Table}
        - Statement: [{Sid: Own, Effect: Allow, Action: x:Y, Resource: !Sub 'arn:${AWS::Partition}:x:::y'}]
  G:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: other}
"""


def test_a_template_of_sams_is_read_as_cloudformation_gets_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    template = read(tmp_path, SAM)
    function = template.functions["F"]
    assert (function.timeout, function.retry_attempts, function.task_root) == (7.0, 1, tmp_path)
    assert function.environment == {"A": "1", "B": "two", "C": "us-east-1"}
    assert template.functions["G"].task_root == tmp_path / "other"
    assert dict(template.api.routes) == {"$default": Route("F"), "say": Route("G")}
    assert (template.api.stage, template.api.route_selection) == ("dev", "\\$default")
    assert (template.api.default_throttle.burst, template.api.default_throttle.rate) == (20, 10.0)
    assert set(template.tables) == {"Table"}


def test_sams_policy_templates_become_statements(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    template = read(tmp_path, SAM)
    expanded, own, *managed = template.functions["F"].policies
    (statement,) = expanded["Statement"]
    assert "dynamodb:GetItem" in statement["Action"]
    name = template.tables["Table"].name
    assert f"arn:aws:dynamodb:us-east-1:123456789012:table/{name}" in statement["Resource"]
    assert own["Statement"][0]["Resource"] == "arn:aws:x:::y"
    assert [arn.rpartition("/")[2] for arn in managed] == ["AWSLambdaBasicExecutionRole"]


def test_parameters_that_sam_would_settle_keep_the_values_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert read(tmp_path, SAM, Retries="0").functions["F"].retry_attempts == 0


def test_a_text_is_translated_once(tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(SAM)
    before = sam._run_translator.cache_info()
    sam.load_and_translate(file)
    sam.load_and_translate(file)
    after = sam._run_translator.cache_info()
    assert after.misses - before.misses <= 1
    assert after.hits > before.hits


def test_a_template_without_the_transform_stays_as_it_is() -> None:
    plain = document(STACK)
    assert sam.translate(plain, "template.yaml") is plain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SAM.replace("Transform: AWS::Serverless-2016-10-31", ""), "Resources.Api: .* needs Transform: AWS:"),
        (SAM.replace("-2016-10-31", "-2099-01-01"), "Transform: the local cloud knows no transform but AWS:"),
        ("Transform: [AWS::LanguageExtensions]\n" + STACK, "knows no transform but AWS::Serverless-2016"),
        (SAM.replace("        $default:", "        a.b:"), "SAM refuses .*template.yaml: .*Api.*'a.b'"),
        (SAM.replace("CodeUri: other", "CodeUri: s3://bucket/key"), "can run locally, not S3Bucket, S3Key"),
        (SAM.replace("CodeUri: other", "CodeUri: absent"), "'absent' is no directory beside the template"),
        (SAM.replace("CodeUri: other", "AutoPublishAlias: live"), "does not know AWS::Lambda::[VA]"),
        (SAM.replace("CodeUri: other", "Layers: [x]"), "G.Properties.Layers: .* does not know this property"),
        (SAM.replace("Timeout: 7", "PermissionsBoundary: x"), "PermissionsBoundary: 'x' is no policy"),
    ],
)  # fmt: skip
def test_what_cannot_be_translated_or_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, text)


def test_a_translator_that_breaks_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "No module named 'samtranslator'\n")

    monkeypatch.setattr(subprocess, "run", broken)
    with pytest.raises(LocalCloudError, match="SAM's translator broke:\nNo module named 'samtranslator'"):
        sam.translate({"Transform": sam.TRANSFORM, "Resources": {}, "Description": "broken"}, "x")
