"""A template's ``Rules``: which parameter values go together, checked before anything is made.

Source: AWS CloudFormation User Guide, "Rules section", and Template Reference, "Rule functions".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from emissary_local.errors import TemplateError
from emissary_local.template.intrinsics import Resolver

#: Functions that ask AWS for properties of what exists in an account, such as the VPC of a subnet.
_ASK_AWS: Final = frozenset({"Fn::RefAll", "Fn::ValueOf", "Fn::ValueOfAll"})


def check_rules(rules: Mapping[str, Any], resolver: Resolver) -> None:
    """Check all rules as CloudFormation does, but for assertions that ask for what exists in an account.

    Args:
        rules: The template's ``Rules`` section.
        resolver: Resolves the template's parameters.

    Raises:
        TemplateError: If an assertion does not hold, with its description; or if a rule is malformed.
    """
    for name, rule in rules.items():
        where = f"Rules.{name}"
        if not isinstance(rule, dict) or not isinstance(rule.get("Assertions"), list):
            raise TemplateError("a rule needs Assertions", where=where)
        if "RuleCondition" in rule and not resolver.truth(rule["RuleCondition"], f"{where}.RuleCondition"):
            continue
        for index, assertion in enumerate(rule["Assertions"]):
            place = f"{where}.Assertions[{index}]"
            if not isinstance(assertion, dict) or "Assert" not in assertion:
                raise TemplateError("an assertion needs Assert", where=place)
            if not _asks_aws(assertion["Assert"]) and not resolver.truth(assertion["Assert"], place):
                raise TemplateError(str(assertion.get("AssertDescription", "does not hold")), where=place)


def _asks_aws(value: Any) -> bool:
    if isinstance(value, dict):
        return any(key in _ASK_AWS or _asks_aws(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_asks_aws(inner) for inner in value)
