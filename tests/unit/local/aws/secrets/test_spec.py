"""Secrets of a template, and the values they begin with."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from emissary_local.aws.secrets.spec import SecretSpec, drawn, first_value, read_secret
from emissary_local.errors import TemplateError

KEY = {
    "SecretStringTemplate": '{"kid":1}', "GenerateStringKey": "data", "PasswordLength": 64,
    "ExcludePunctuation": True,
}  # fmt: skip


def read(**properties: Any) -> SecretSpec:
    return read_secret("Keys", "keys", "arn", properties, "there")


def test_a_key_is_made_in_the_form_of_the_template() -> None:
    data = drawn()
    made = first_value(read(GenerateSecretString=KEY), 1, data)
    assert json.loads(made) == {"kid": 1, "data": data}
    assert len(base64.b64decode(data, validate=True)) == 48


def test_a_key_that_is_not_the_clouds_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"generates a key with id and length \(1, 40\)"):
        first_value(read(GenerateSecretString={**KEY, "PasswordLength": 40}), 1, drawn())
    with pytest.raises(TemplateError, match="the local cloud's key has"):
        first_value(read(GenerateSecretString=KEY), 2, drawn())


def test_another_generated_secret_is_drawn_each_time() -> None:
    spec = read(GenerateSecretString={"ExcludePunctuation": "true"})
    one, two = (first_value(spec, 1, drawn()) for _ in range(2))
    assert one != two
    assert len(one) == len(two) == 32
    assert one.isalnum()


def test_a_value_in_the_template_is_the_value_and_is_not_shown() -> None:
    spec = read(SecretString="hush")
    assert first_value(spec, 1, drawn()) == "hush"
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
