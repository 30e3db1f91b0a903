"""Secrets Manager: versions, their stages, and errors."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_local.aws.secrets import MAX_BYTES, SecretError, SecretStore

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"


@pytest.fixture
def store() -> SecretStore:
    return SecretStore([("keys", ARN, "one"), ("empty", ARN.replace("keys", "empty"), "")], lambda: 1000.0)


def value(store: SecretStore, **asked: Any) -> str:
    return str(store.answer("GetSecretValue", {"SecretId": ARN, **asked})["SecretString"])


@pytest.mark.parametrize("name", ["keys", ARN, ARN.removesuffix("-AbCdEf")])
def test_a_secret_is_found_by_each_of_its_names(store: SecretStore, name: str) -> None:
    answer = store.answer("GetSecretValue", {"SecretId": name})
    assert (answer["ARN"], answer["Name"], answer["SecretString"]) == (ARN, "keys", "one")
    assert answer["VersionStages"] == ["AWSCURRENT"]


def test_a_new_value_makes_the_current_one_the_previous(store: SecretStore) -> None:
    store.put("keys", "two")
    store.put("keys", "three")
    assert value(store) == "three"
    assert value(store, VersionStage="AWSPREVIOUS") == "two"
    shown = store.answer("DescribeSecret", {"SecretId": "keys"})
    assert sorted(shown["VersionIdsToStages"].values()) == [["AWSCURRENT"], ["AWSPREVIOUS"]]
    assert shown["LastChangedDate"] == 1000.0


def test_a_pending_value_changes_nothing_but_its_stage(store: SecretStore) -> None:
    asked = {"SecretId": "keys", "SecretString": "two", "VersionStages": ["AWSPENDING"]}
    version = store.answer("PutSecretValue", asked)["VersionId"]
    assert value(store) == "one"
    assert value(store, VersionStage="AWSPENDING") == value(store, VersionId=version) == "two"


def test_a_put_with_the_same_token_is_done_once(store: SecretStore) -> None:
    asked = {"SecretId": "keys", "SecretString": "two", "ClientRequestToken": "t" * 32}
    assert store.answer("PutSecretValue", asked) == store.answer("PutSecretValue", asked)
    assert value(store, VersionStage="AWSPREVIOUS") == "one"
    store.put("keys", "three")
    store.answer("PutSecretValue", asked)
    assert value(store) == "three"
    with pytest.raises(SecretError) as caught:
        store.answer("PutSecretValue", {**asked, "SecretString": "other"})
    assert caught.value.kind == "ResourceExistsException"


@pytest.mark.parametrize(
    ("operation", "asked", "kind"),
    [
        ("GetSecretValue", {"SecretId": "nobody"}, "ResourceNotFoundException"),
        ("GetSecretValue", {"SecretId": "empty"}, "ResourceNotFoundException"),
        ("GetSecretValue", {"SecretId": "keys", "VersionId": "none"}, "ResourceNotFoundException"),
        ("GetSecretValue", {}, "ValidationException"),
        ("PutSecretValue", {"SecretId": "keys"}, "InvalidParameterException"),
        ("PutSecretValue", {"SecretId": "keys", "SecretString": ""}, "InvalidParameterException"),
        (
            "PutSecretValue",
            {"SecretId": "keys", "SecretString": "x" * (MAX_BYTES + 1)},
            "InvalidParameterException",
        ),
        ("DeleteSecret", {"SecretId": "keys"}, "UnknownOperationException"),
    ],
)
def test_errors_are_those_of_secrets_manager(
    store: SecretStore, operation: str, asked: dict[str, Any], kind: str
) -> None:
    with pytest.raises(SecretError) as caught:
        store.answer(operation, asked)
    assert caught.value.kind == kind
    assert value(store) == "one"
