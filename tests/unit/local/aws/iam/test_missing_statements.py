"""The project's own template with one statement struck out: what that one allowed is refused, by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from emissary_local.aws.iam.privileges import Privileges
from emissary_local.aws.iam.report import Permission
from emissary_local.template.sam import load_and_translate
from emissary_local.template.template import read_document

TEMPLATE: Final = Path(__file__).resolve().parents[5] / "template.yaml"
PARAMETERS: Final = {"AllowedTargets": "[]"}
DOCUMENT: Final = load_and_translate(TEMPLATE)


def privileges(document: Mapping[str, Any]) -> Privileges:
    return Privileges(read_document(TEMPLATE, document, PARAMETERS).functions.values())


def inline() -> list[Permission]:
    """Every statement of a role's own policies: what the functions' code may do."""
    return [each for each in privileges(DOCUMENT).permissions() if each.policy.startswith("Policies[")]


def calls(permission: Permission) -> list[tuple[str, str]]:
    """A call for each action and resource."""
    return [
        (action, resource.replace("*", "x"))
        for action in permission.actions
        for resource in permission.resources
    ]


def struck(function: str, name: str) -> dict[str, Any]:
    """The template without one statement."""
    document = copy.deepcopy(DOCUMENT)
    (role, _) = document["Resources"][function]["Properties"]["Role"]["Fn::GetAtt"]
    removed = 0
    for policy in document["Resources"][role]["Properties"]["Policies"]:
        statements = policy["PolicyDocument"]["Statement"]
        kept = [each for each in statements if each["Sid"] != name]
        removed += len(statements) - len(kept)
        # AWS refuses a policy without statements.
        policy["PolicyDocument"]["Statement"] = kept or [
            {"Effect": "Allow", "Action": "none:Nothing", "Resource": "arn:aws:none:::none"}
        ]
    assert removed == 1
    return document


@pytest.mark.parametrize("permission", inline(), ids=lambda each: f"{each.function}-{each.name}")
def test_what_a_struck_statement_allowed_is_refused(permission: Permission) -> None:
    whole = privileges(DOCUMENT)
    less = privileges(struck(permission.function, permission.name))
    for action, resource in calls(permission):
        assert whole.refusal(permission.function, action, resource) is None
        refusal = less.refusal(permission.function, action, resource)
        assert refusal is not None
        assert refusal.startswith(
            f"{permission.function} may not {action} on {resource}: "
            "no statement of its policies in template.yaml allows it"
        )
