"""The rules of a template, which say what parameter values go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.template import read_template

TEMPLATE = """
Parameters:
  Domain: {Type: String, Default: ""}
  Certificate: {Type: String, Default: ""}
  Subnets: {Type: 'List<AWS::EC2::Subnet::Id>'}
Rules: %s
Resources:
  Api:
    Type: AWS::Serverless::WebSocketApi
    Properties: {RouteSelectionExpression: x, Routes: {}}
"""
RULES = """
  DomainHasCertificate:
    RuleCondition: !Not [!Equals [!Ref Domain, ""]]
    Assertions:
      - {Assert: !Not [!Equals [!Ref Certificate, ""]], AssertDescription: a domain needs a certificate}
"""


def read(tmp_path: Path, rules: str, **parameters: str) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(TEMPLATE % rules)
    read_template(file, parameters)


@pytest.mark.parametrize("given", [{}, {"Certificate": "c"}, {"Domain": "d", "Certificate": "c"}])
def test_values_that_go_together_are_taken(tmp_path: Path, given: dict[str, str]) -> None:
    read(tmp_path, RULES, **given)


def test_values_that_do_not_are_refused_with_the_rules_own_words(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"Rules.DomainHasCertificate.*: a domain needs a certificate"):
        read(tmp_path, RULES, Domain="d")


def test_what_only_an_account_can_tell_is_left_to_aws(tmp_path: Path) -> None:
    asks = "!EachMemberEquals [!ValueOf [Subnets, VpcId], vpc-1]"
    read(tmp_path, f"{{R: {{Assertions: [{{Assert: {asks}}}]}}}}")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("{R: {}}", "Rules.R: a rule needs Assertions"),
        ("{R: {Assertions: [{}]}}", r"Rules.R.Assertions\[0\]: an assertion needs Assert"),
        ("{R: {Assertions: [{Assert: !Foo x}]}}", "does not know Fn::Foo"),
        ("{R: {Assertions: [{Assert: !Equals [a, b]}]}}", "does not hold"),
    ],
)
def test_malformed_rule_is_refused_with_its_place(tmp_path: Path, rules: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, rules)
