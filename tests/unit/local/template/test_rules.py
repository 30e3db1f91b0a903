"""The rules of a template, which say what parameter values go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.intrinsics import load_yaml
from emissary_local.template.stack import Stack

TEMPLATE = """
Parameters:
  Domain: {Type: String, Default: ""}
  Certificate: {Type: String, Default: ""}
  Subnets: {Type: 'List<AWS::EC2::Subnet::Id>'}
Rules: %s
"""
RULES = """
  DomainHasCertificate:
    RuleCondition: !Not [!Equals [!Ref Domain, ""]]
    Assertions:
      - {Assert: !Not [!Equals [!Ref Certificate, ""]], AssertDescription: a domain needs a certificate}
"""


def read(rules: str, **parameters: str) -> None:
    Stack(Path("template.yaml"), load_yaml(TEMPLATE % rules, "template.yaml"), parameters)


@pytest.mark.parametrize("given", [{}, {"Certificate": "c"}, {"Domain": "d", "Certificate": "c"}])
def test_values_that_go_together_are_taken(given: dict[str, str]) -> None:
    read(RULES, **given)


def test_values_that_do_not_are_refused_with_the_rules_own_words() -> None:
    with pytest.raises(TemplateError, match=r"Rules.DomainHasCertificate.*: a domain needs a certificate"):
        read(RULES, Domain="d")


def test_what_only_an_account_can_tell_is_left_to_aws() -> None:
    asks = "!EachMemberEquals [!ValueOf [Subnets, VpcId], vpc-1]"
    read(f"{{R: {{Assertions: [{{Assert: {asks}}}]}}}}")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("{R: {}}", "Rules.R: a rule needs Assertions"),
        ("{R: {Assertions: [{}]}}", r"Rules.R.Assertions\[0\]: an assertion needs Assert"),
        ("{R: {Assertions: [{Assert: !Foo x}]}}", "does not know Fn::Foo"),
        ("{R: {Assertions: [{Assert: !Equals [a, b]}]}}", "does not hold"),
    ],
)
def test_malformed_rule_is_refused_with_its_place(rules: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read(rules)
