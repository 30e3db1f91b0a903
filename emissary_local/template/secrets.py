"""Secrets as the template describes them, and their first values.

Source: CloudFormation Template Reference, "AWS::SecretsManager::Secret" and "... GenerateSecretString".
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from emissary_local.errors import TemplateError

SECRET: Final = "AWS::SecretsManager::Secret"

_LETTERS: Final = string.ascii_letters + string.digits
_DEFAULT_LENGTH: Final = 32
_KNOWN: Final = frozenset(
    {"SecretStringTemplate", "GenerateStringKey", "PasswordLength", "ExcludePunctuation"}
)


@dataclass(frozen=True, slots=True)
class SecretSpec:
    """One secret.

    Attributes:
        logical_id: Its name in the template.
        name: Its physical name.
        arn: Its ARN.
        value: Its first value, or None if one is generated.
        object: With a generated value: the JSON object that it is put into, or None for the bare password.
        object_key: Name of the generated member of that object.
        length: Characters of the generated password.
    """

    logical_id: str
    name: str
    arn: str
    value: str | None = field(default=None, repr=False)
    object: Mapping[str, Any] | None = None
    object_key: str = ""
    length: int = _DEFAULT_LENGTH


def read_secret(
    logical_id: str, name: str, arn: str, properties: Mapping[str, Any], where: str
) -> SecretSpec:
    """Read the resolved properties of a secret.

    Raises:
        TemplateError: If they are malformed, or ask for what the local cloud does not do.
    """
    if "KmsKeyId" in properties:
        raise TemplateError(
            "the local cloud does not evaluate permissions of KMS keys", where=f"{where}.KmsKeyId"
        )
    if "SecretString" in properties:
        return SecretSpec(logical_id, name, arn, str(properties["SecretString"]))
    if "GenerateSecretString" not in properties:
        return SecretSpec(logical_id, name, arn, "")  # as on AWS: there, but without a value
    wanted, place = properties["GenerateSecretString"], f"{where}.GenerateSecretString"
    if not isinstance(wanted, dict) or set(wanted) - _KNOWN:
        raise TemplateError(f"the local cloud knows {', '.join(sorted(_KNOWN))} only", where=place)
    if wanted.get("ExcludePunctuation") not in (True, "true"):
        raise TemplateError(
            "the local cloud generates letters and digits: set ExcludePunctuation", where=place
        )
    if ("SecretStringTemplate" in wanted) != ("GenerateStringKey" in wanted):
        raise TemplateError("SecretStringTemplate and GenerateStringKey go together", where=place)
    try:
        length = int(wanted.get("PasswordLength", _DEFAULT_LENGTH))
        object_ = json.loads(wanted["SecretStringTemplate"]) if "SecretStringTemplate" in wanted else None
    except (TypeError, ValueError) as exc:
        raise TemplateError(f"a length or JSON is malformed: {exc}", where=place) from exc
    if object_ is not None and not isinstance(object_, dict):
        raise TemplateError("SecretStringTemplate must be a JSON object", where=place)
    return SecretSpec(logical_id, name, arn, None, object_, str(wanted.get("GenerateStringKey", "")), length)


def draw_password(length: int) -> str:
    """A password of ``length`` letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def first_value(spec: SecretSpec, password: str | None = None) -> str:
    """The secret's first value.

    Args:
        spec: The secret.
        password: What a generated secret gets; None: a random one.
    """
    if spec.value is not None:
        return spec.value
    if password is None:
        password = draw_password(spec.length)
    if spec.object is None:
        return password
    return json.dumps({**spec.object, spec.object_key: password}, separators=(",", ":"))
