"""Which permissions DynamoDB requests need."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emissary_local.aws.iam.dynamodb import permissions

T = "arn:aws:dynamodb:us-east-1:123456789012:table/"


@pytest.mark.parametrize(
    ("operation", "request_", "needed"),
    [
        ("GetItem", {"TableName": "t"}, [("dynamodb:GetItem", f"{T}t")]),
        ("GetItem", {"TableName": f"{T}t"}, [("dynamodb:GetItem", f"{T}t")]),
        ("Query", {"TableName": "t", "IndexName": "i"}, [("dynamodb:Query", f"{T}t/index/i")]),
        ("ListTables", {}, [("dynamodb:ListTables", "*")]),
        ("ListTagsOfResource", {"ResourceArn": f"{T}t"}, [("dynamodb:ListTagsOfResource", f"{T}t")]),
        (
            "BatchGetItem",
            {"RequestItems": {"a": {}, "b": {}}},
            [("dynamodb:BatchGetItem", f"{T}a"), ("dynamodb:BatchGetItem", f"{T}b")],
        ),
        (
            "TransactWriteItems",
            {
                "TransactItems": [
                    {"ConditionCheck": {"TableName": "a"}},
                    {"Put": {"TableName": "a"}},
                    {"Update": {"TableName": "a"}},
                    {"Delete": {"TableName": "b"}},
                    {"Put": {"TableName": "a"}},
                ]
            },
            [
                ("dynamodb:ConditionCheckItem", f"{T}a"),
                ("dynamodb:PutItem", f"{T}a"),
                ("dynamodb:UpdateItem", f"{T}a"),
                ("dynamodb:DeleteItem", f"{T}b"),
            ],
        ),
        (
            "TransactGetItems",
            {"TransactItems": [{"Get": {"TableName": "a"}}]},
            [("dynamodb:GetItem", f"{T}a")],
        ),
    ],
)
def test_request_needs(operation: str, request_: dict[str, Any], needed: list[tuple[str, str]]) -> None:
    assert permissions(operation, json.dumps(request_).encode()) == needed


@pytest.mark.parametrize("operation", ["ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction"])
def test_partiql_cannot_be_told(operation: str) -> None:
    with pytest.raises(LookupError, match="PartiQL"):
        permissions(operation, b"{}")


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("GetItem", b"nonsense"),
        ("GetItem", b"[]"),
        ("GetItem", b'{"TableName": 1}'),
        ("TransactWriteItems", b"{}"),
        ("TransactWriteItems", b'{"TransactItems": [{}]}'),
        ("TransactWriteItems", b'{"TransactItems": [{"Put": {"TableName": "a"}, "Delete": {}}]}'),
        ("TransactWriteItems", b'{"TransactItems": [{"Drop": {"TableName": "a"}}]}'),
        ("BatchGetItem", b"{}"),
    ],
)
def test_malformed_request_is_refused(operation: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"malformed|Expecting value|values to unpack"):
        permissions(operation, body)
