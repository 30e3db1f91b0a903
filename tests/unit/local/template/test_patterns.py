"""Wildcards of actions and ARNs."""

from __future__ import annotations

import pytest

from emissary_local.template.patterns import ArnPattern, Wildcard

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/sessions"


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("dynamodb:GetItem", "dynamodb:GetItem", True),
        ("DynamoDB:getitem", "dynamodb:GetItem", True),
        ("dynamodb:Get*", "dynamodb:GetItem", True),
        ("dynamodb:Get*", "dynamodb:BatchGetItem", False),
        ("dynamodb:?etItem", "dynamodb:GetItem", True),
        ("dynamodb:?GetItem", "dynamodb:GetItem", False),
        ("dynamodb:GetItem", "dynamodb:GetItems", False),
        ("*", "lambda:InvokeFunction", True),
        ("a.c:x", "abc:x", False),
    ],
)
def test_actions_are_compared_without_case_and_as_a_whole(pattern: str, value: str, matches: bool) -> None:
    assert Wildcard(pattern, ignore_case=True).matches(value) is matches


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        (TABLE, TABLE, True),
        (TABLE, TABLE.upper(), False),
        (TABLE, TABLE + "/index/i", False),
        (TABLE + "/index/*", TABLE + "/index/i", True),
        ("*", TABLE, True),
        ("*", "*", True),
        (TABLE, "*", False),
        ("arn:aws:dynamodb:*:*:table/*", TABLE, True),
        ("arn:aws:dynamodb:*:table/sessions", "arn:aws:dynamodb:us-east-1:1:table/sessions", None),
        ("arn:*:*:*:*:*", TABLE, True),
        ("arn:aws:*:table/sessions:x:y", TABLE, False),
        ("arn:aws:lambda:*:*:function:*", "arn:aws:lambda:r:1:function:f:live", True),
    ],
)
def test_no_wildcard_of_an_arn_reaches_over_its_parts(pattern: str, value: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(ValueError, match="neither an ARN nor"):
            ArnPattern(pattern)
    else:
        assert ArnPattern(pattern).matches(value) is matches
