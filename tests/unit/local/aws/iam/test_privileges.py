"""Decisions on calls: allowed by one statement and denied by none, and refusals that name what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emissary_local.aws.iam.privileges import DENIALS_KEPT, OPERATOR, Privileges
from emissary_local.errors import LocalCloudError
from emissary_local.template.specs import FunctionSpec

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/t"
OTHER = TABLE + "2"
NONE = "no statement of its policies in template.yaml allows it"
READ = {"Sid": "Read", "Effect": "Allow", "Action": ["dynamodb:GetItem", "dynamodb:Query"], "Resource": TABLE}


def privileges(*statements: Any, managed: Any = None, boundary: Any = None, **more: Any) -> Privileges:
    spec = FunctionSpec(
        "Reader", "reader", "arn:aws:lambda:us-east-1:123456789012:function:reader", "a.b", "python3.13",
        Path(), 3.0, 128, {}, policies=({"Statement": list(statements)},), managed_policies=managed or {},
        boundary=boundary,
    )  # fmt: skip
    return Privileges([spec], **more)


def test_call_that_a_statement_allows_is_allowed() -> None:
    assert privileges(READ).refusal("Reader", "dynamodb:GetItem", TABLE) is None


def test_call_that_no_statement_speaks_of_is_refused_and_the_missing_one_is_named() -> None:
    assert privileges(READ).refusal("Reader", "dynamodb:PutItem", TABLE) == (
        f"Reader may not dynamodb:PutItem on {TABLE}: {NONE}; "
        f'this one would: {{"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": "{TABLE}"}}'
    )


def test_refusal_names_the_statement_that_allows_it_elsewhere() -> None:
    assert privileges(READ).refusal("Reader", "dynamodb:GetItem", OTHER) == (
        f"Reader may not dynamodb:GetItem on {OTHER}: {NONE}; Read allows the action, but on {TABLE}"
    )


def test_a_deny_wins_over_every_allow() -> None:
    deny = {"Sid": "Never", "Effect": "Deny", "Action": "*", "Resource": "*"}
    refusal = privileges(READ, deny).refusal("Reader", "dynamodb:GetItem", TABLE)
    assert refusal is not None
    assert "the statement Never of its policies in template.yaml denies it" in refusal


def test_statements_of_managed_policies_count_too() -> None:
    deny = {"Sid": "Never", "Effect": "Deny", "Action": "dynamodb:Get*", "Resource": "*"}
    mixed = privileges(READ, managed={"Managed": {"Statement": deny}})
    assert mixed.refusal("Reader", "dynamodb:GetItem", TABLE) is not None
    assert mixed.refusal("Reader", "dynamodb:Query", TABLE) is None


def test_what_a_permissions_boundary_does_not_allow_is_refused_whatever_the_policies_allow() -> None:
    bounded = privileges(READ, boundary={"Statement": [{**READ, "Action": "dynamodb:Query"}]})
    assert bounded.refusal("Reader", "dynamodb:Query", TABLE) is None
    assert bounded.refusal("Reader", "dynamodb:GetItem", TABLE) == (
        f"Reader may not dynamodb:GetItem on {TABLE}: "
        "its policies do, but its permissions boundary does not allow it"
    )
    assert [denial.action for denial in bounded.denials()] == ["dynamodb:GetItem"]
    (read,) = bounded.permissions()
    assert read.actions == {"dynamodb:GetItem": 0, "dynamodb:Query": 1}, "a refused call uses no statement"


def test_a_permissions_boundary_grants_nothing() -> None:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    refusal = privileges(READ, boundary={"Statement": everything}).refusal(
        "Reader", "dynamodb:PutItem", TABLE
    )
    assert refusal is not None
    assert NONE in refusal


def test_a_deny_of_the_permissions_boundary_wins_over_its_allow() -> None:
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = {"Sid": "NoReads", "Effect": "Deny", "Action": "dynamodb:Get*", "Resource": "*"}
    bounded = privileges(READ, boundary={"Statement": [allow, deny]})
    assert bounded.refusal("Reader", "dynamodb:Query", TABLE) is None
    refusal = bounded.refusal("Reader", "dynamodb:GetItem", TABLE)
    assert refusal is not None
    assert refusal.endswith("the statement NoReads of its permissions boundary denies it")


def test_an_unknown_identity_may_nothing_and_the_operator_everything() -> None:
    assert privileges(READ).refusal("Nobody", "dynamodb:GetItem", TABLE) is not None
    assert privileges(READ).refusal(OPERATOR, "dynamodb:DeleteTable", TABLE) is None


def test_a_withdrawn_statement_is_named_until_it_is_restored() -> None:
    changed = privileges(READ)
    changed.withdraw("Reader", "Read")
    refusal = changed.refusal("Reader", "dynamodb:GetItem", TABLE)
    assert refusal is not None
    assert refusal.endswith("allows it; Read would, but is withdrawn")
    changed.restore()
    assert changed.refusal("Reader", "dynamodb:GetItem", TABLE) is None


def test_what_is_not_there_cannot_be_withdrawn() -> None:
    with pytest.raises(
        LocalCloudError, match=r"no policy has a statement Reader\.Write; there are: Reader\.Read"
    ):
        privileges(READ).withdraw("Reader", "Write")


def test_each_part_of_a_statement_is_counted_apart() -> None:
    counted = privileges({**READ, "Resource": [TABLE, OTHER]})
    for _ in range(2):
        counted.refusal("Reader", "dynamodb:GetItem", TABLE)
    (permission,) = counted.permissions()
    assert permission.actions == {"dynamodb:GetItem": 2, "dynamodb:Query": 0}
    assert permission.resources == {TABLE: 2, OTHER: 0}
    assert permission.unused == ["dynamodb:Query", OTHER]


def test_refused_calls_are_kept_and_the_first_of_a_kind_is_reported() -> None:
    reported: list[str] = []
    refused = privileges(READ, report=reported.append)
    for number in range(DENIALS_KEPT + 1):
        refused.refusal("Reader", "dynamodb:PutItem", f"{TABLE}{number}")
    denials = refused.denials()
    assert len(denials) == DENIALS_KEPT
    assert (denials[-1].function, denials[-1].action, denials[-1].resource) == (
        "Reader", "dynamodb:PutItem", f"{TABLE}{DENIALS_KEPT}"
    )  # fmt: skip
    assert len(reported) == 1
    assert reported[0].startswith(f"Reader may not dynamodb:PutItem on {TABLE}0:")
