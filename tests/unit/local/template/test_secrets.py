"""Secrets of a template, and the values they begin with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.secrets import SecretSpec, first_value, read_secret

KEY = {
    "SecretStringTemplate": '{"kid":1}', "GenerateStringKey": "data", "PasswordLength": 64,
    "ExcludePunctuation": True,
}  # fmt: skip


def read(**properties: Any) -> SecretSpec:
    return read_secret("Keys", "keys", "arn", properties, "there")


def test_a_password_that_is_given_is_put_in_the_form_of_the_template() -> None:
    made = first_value(read(GenerateSecretString=KEY), "given")
    assert json.loads(made) == {"kid": 1, "data": "given"}


def test_another_generated_secret_is_drawn_each_time() -> None:
    spec = read(GenerateSecretString={"ExcludePunctuation": "true"})
    one, two = (first_value(spec) for _ in range(2))
    assert one != two
    assert len(one) == len(two) == 32
    assert one.isalnum()


def test_a_value_in_the_template_is_the_value_and_is_not_shown() -> None:
    spec = read(SecretString="hush")
    assert first_value(spec) == "hush"
    assert "hush" not in repr(spec)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"KmsKeyId": "k"}, "KMS"),
        ({"GenerateSecretString": {**KEY, "ExcludePunctuation": False}}, "set ExcludePunctuation"),
        ({"GenerateSecretString": {**KEY, "IncludeSpace": True}}, "knows ExcludePunctuation, "),
        ({"GenerateSecretString": {**KEY, "SecretStringTemplate": "[]"}}, "JSON object"),
        ({"GenerateSecretString": {**KEY, "SecretStringTemplate": "{"}}, "malformed"),
        ({"GenerateSecretString": {**KEY, "PasswordLength": "long"}}, "malformed"),
        ({"GenerateSecretString": {"GenerateStringKey": "x", "ExcludePunctuation": True}}, "go together"),
    ],
)
def test_what_is_not_done_here_is_refused_by_place(properties: dict[str, Any], words: str) -> None:
    with pytest.raises(TemplateError, match=words) as caught:
        read(**properties)
    assert caught.value.where.startswith("there.")
