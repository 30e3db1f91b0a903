"""Policy documents: what is read, and what is refused because nobody could evaluate it."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_local.aws.iam.statements import Statement, read_statements
from emissary_local.errors import TemplateError

TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/t"
GOOD = {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": TABLE}


def read(*inline: Any, **managed: Any) -> tuple[Statement, ...]:
    return read_statements("F", inline, managed, "there")


def one(**changes: Any) -> Statement:
    given = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    (statement,) = read({"Statement": given})
    return statement


def test_statements_are_named_by_sid_or_place() -> None:
    named = {**GOOD, "Sid": "Read"}
    statements = read({"Statement": [named, GOOD]}, Logs={"Statement": [{**GOOD, "Sid": "Write"}]})
    assert [(each.policy, each.name) for each in statements] == [
        ("Policies[0]", "Read"),
        ("Policies[0]", "#2"),
        ("Logs", "Write"),
    ]


def test_statements_of_one_name_are_tell_apart_by_their_policies() -> None:
    named = {"Statement": {**GOOD, "Sid": "Read"}}
    assert [each.name for each in read(named, Other=named)] == ["Policies[0].Read", "Other.Read"]


def test_not_action_and_not_resource_speak_of_all_others() -> None:
    statement = one(Action=None, NotAction="dynamodb:Delete*", Resource=None, NotResource=TABLE)
    assert statement.applies("dynamodb:GetItem", TABLE + "2", {})
    assert not statement.applies("dynamodb:DeleteItem", TABLE + "2", {})
    assert not statement.applies("dynamodb:GetItem", TABLE, {})


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"ArnLike": {"lambda:SourceFunctionArn": "arn:aws:lambda:*:*:function:*"}}, True),
        ({"ArnLike": {"LAMBDA:sourcefunctionarn": "arn:aws:lambda:*:*:function:*"}}, True),
        ({"ArnEquals": {"lambda:SourceFunctionArn": ["arn:aws:lambda:r:1:function:g"]}}, False),
        ({"ArnNotLike": {"lambda:SourceFunctionArn": "arn:aws:lambda:*:*:function:f"}}, False),
        ({"StringEquals": {"lambda:SourceFunctionArn": "arn:aws:lambda:*:*:function:f"}}, False),
        ({"StringLike": {"lambda:SourceFunctionArn": ["no", "*:function:f"]}}, True),
        ({"StringNotEquals": {"lambda:SourceFunctionArn": "x"}}, True),
    ],
)
def test_conditions_on_the_calling_function(condition: dict[str, Any], holds: bool) -> None:
    context = {"lambda:SourceFunctionArn": "arn:aws:lambda:r:1:function:f"}
    assert one(Condition=condition).applies("dynamodb:GetItem", TABLE, context) is holds


def test_condition_on_a_key_that_is_not_in_the_call_does_not_hold() -> None:
    arn = "arn:aws:lambda:*:*:function:*"
    assert not one(Condition={"ArnLike": {"lambda:SourceFunctionArn": arn}}).applies(
        "dynamodb:GetItem", TABLE, {}
    )
    assert one(Condition={"ArnNotLike": {"lambda:SourceFunctionArn": arn}}).applies(
        "dynamodb:GetItem", TABLE, {}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Effect": "Permit"}, "Effect must be Allow or Deny"),
        ({"Effect": None}, "Effect must be Allow or Deny"),
        ({"Action": None}, "either Action or NotAction"),
        ({"NotAction": "a:b"}, "either Action or NotAction"),
        ({"Action": []}, "one or more texts"),
        ({"Action": "GetItem"}, "no action"),
        ({"Resource": "sessions"}, "neither an ARN nor"),
        ({"Resource": "arn:aws:dynamodb:::table/${aws:username}"}, "policy variables"),
        ({"Resource": [1]}, "one or more texts"),
        ({"Principal": "*"}, "has no Principal"),
        ({"Sid": "Read it"}, "letters and digits"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, "condition operator IpAddress"),
        ({"Condition": {"StringEquals": {"aws:username": "x"}}}, "condition key aws:username"),
        ({"Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": "S#*"}}}, "condition operator"),
        ({"Condition": {"StringEquals": {"lambda:SourceFunctionArn": "${x}"}}}, "without policy variables"),
        ({"Condition": {"ArnLike": {"lambda:SourceFunctionArn": "x"}}}, "neither an ARN nor"),
        ({"Condition": []}, "mapping"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_place(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TemplateError, match=words) as caught:
        one(**changes)
    assert caught.value.where.startswith("there.Policies[0].Statement[0]")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"DynamoDBCrudPolicy": {"TableName": "t"}}, "policy templates .DynamoDBCrudPolicy."),
        ("AmazonDynamoDBFullAccess", "does not know what the managed policy"),
        ("arn:aws:iam::aws:policy/AdministratorAccess", "does not know what the managed policy"),
        ({"Statement": ["x"]}, "a statement is a mapping"),
        (7, "policy templates"),
    ],
)
def test_policies_that_nobody_here_can_read_are_refused(policy: Any, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        read(policy)


def test_managed_policies_for_lambda_itself_allow_the_code_nothing() -> None:
    prefix = "arn:aws:iam::aws:policy/service-role/"
    assert read("AWSLambdaBasicExecutionRole", prefix + "AWSLambdaVPCAccessExecutionRole") == ()
