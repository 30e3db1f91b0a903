"""The project's own template with one statement struck out: what that one allowed is refused, by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emissary_local.aws.iam.privileges import Privileges
from emissary_local.aws.iam.report import Permission
from emissary_local.template.sam import load_and_translate
from emissary_local.template.template import read_document

TEMPLATE: Final = Path(__file__).resolve().parents[5] / "template.yaml"
PARAMETERS: Final = {"AllowedTargets": "[]"}


def privileges(document: Mapping[str, Any]) -> Privileges:
    return Privileges(read_document(TEMPLATE, document, PARAMETERS).functions.values())


def inline(whole: Privileges) -> list[Permission]:
    """Every statement of a role's own policies: what the functions' code may do."""
    return [each for each in whole.permissions() if each.policy.startswith("Policies[")]


def calls(permission: Permission) -> list[tuple[str, str]]:
    """A call for each action and resource."""
    return [
        (action, resource.replace("*", "x"))
        for action in permission.actions
        for resource in permission.resources
    ]


def struck(document: Mapping[str, Any], function: str, name: str) -> dict[str, Any]:
    """The template without one statement."""
    changed = copy.deepcopy(dict(document))
    (role, _) = changed["Resources"][function]["Properties"]["Role"]["Fn::GetAtt"]
    removed = 0
    for policy in changed["Resources"][role]["Properties"]["Policies"]:
        statements = policy["PolicyDocument"]["Statement"]
        kept = [each for each in statements if each["Sid"] != name]
        removed += len(statements) - len(kept)
        # AWS refuses a policy without statements.
        policy["PolicyDocument"]["Statement"] = kept or [
            {"Effect": "Allow", "Action": "none:Nothing", "Resource": "arn:aws:none:::none"}
        ]
    assert removed == 1
    return changed


def test_what_a_struck_statement_allowed_is_refused() -> None:
    document = load_and_translate(TEMPLATE)
    whole = privileges(document)
    assert inline(whole)
    for permission in inline(whole):
        less = privileges(struck(document, permission.function, permission.name))
        for action, resource in calls(permission):
            assert whole.refusal(permission.function, action, resource) is None
            refusal = less.refusal(permission.function, action, resource)
            assert refusal is not None, permission
            assert refusal.startswith(
                f"{permission.function} may not {action} on {resource}: "
                "no statement of its policies in template.yaml allows it"
            )
