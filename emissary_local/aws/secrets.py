"""Secrets Manager's answers: GetSecretValue, PutSecretValue and DescribeSecret, and nothing else.

Not moto's, though it has the stages right: it makes up ARNs of its own, where the policies name the
template's, takes values of any size, reads this machine's clock, and would answer behind DynamoDB's lock.

Source: Secrets Manager API Reference; versions and their stages as in the User Guide, "What's in a secret".
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from emissary_local.errors import LocalCloudError
from emissary_local.template import names
from emissary_local.template.secrets import SECRET

CURRENT: Final = "AWSCURRENT"
PREVIOUS: Final = "AWSPREVIOUS"

OPERATIONS: Final = ("GetSecretValue", "PutSecretValue", "DescribeSecret")

#: Largest SecretString, in bytes. Source: Secrets Manager quotas.
MAX_BYTES: Final = 65_536

_NOT_FOUND: Final = "ResourceNotFoundException"


class SecretError(LocalCloudError):
    """An error that Secrets Manager answers with.

    Attributes:
        kind: AWS's name of it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class _Version:
    value: str = field(repr=False)
    created: float
    stages: set[str]


@dataclass(slots=True)
class _Secret:
    name: str
    arn: str
    created: float
    versions: dict[str, _Version] = field(default_factory=dict)


class SecretStore:
    """The secrets of one local cloud.

    Args:
        secrets: Name, ARN and first value of each; an empty value means none yet.
        now: The clock, in seconds since 1970.

    Thread safety: none; use it on one event loop.
    """

    def __init__(self, secrets: Iterable[tuple[str, str, str]], now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._secrets: dict[str, _Secret] = {}
        for name, arn, value in secrets:
            self._secrets[arn] = _Secret(name, arn, now())
            if value:
                self.put(arn, value)

    def arn(self, secret_id: str) -> str:
        """The ARN of the secret with this name, ARN, or ARN without its last hyphen and six characters.

        For one that does not exist: what its ARN would begin with.
        """
        for arn, secret in self._secrets.items():
            if secret_id in (arn, secret.name, arn[:-7]):
                return arn
        return secret_id if secret_id.startswith("arn:") else names.attribute(SECRET, secret_id, "Arn")

    def put(self, secret_id: str, value: str) -> None:
        """Make ``value`` the current one of a secret, as an operator would.

        Raises:
            SecretError: If there is no such secret, or the value is empty or too long.
        """
        self._put(self._find(secret_id), {"SecretString": value})

    def answer(self, operation: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Args:
            operation: ``GetSecretValue``, ``PutSecretValue`` or ``DescribeSecret``.
            asked: The request.

        Raises:
            SecretError: What Secrets Manager would answer instead.
        """
        if operation not in OPERATIONS:
            raise SecretError(
                "UnknownOperationException",
                f"the local cloud's Secrets Manager knows {', '.join(OPERATIONS)}, not {operation}",
            )
        secret = self._find(secret_id_of(asked))
        if operation == "GetSecretValue":
            return self._get(secret, asked)
        if operation == "PutSecretValue":
            return self._put(secret, asked)
        return {
            "ARN": secret.arn,
            "Name": secret.name,
            "CreatedDate": secret.created,
            "LastChangedDate": max([secret.created, *(each.created for each in secret.versions.values())]),
            "VersionIdsToStages": {
                name: sorted(each.stages) for name, each in secret.versions.items() if each.stages
            },
        }

    def _find(self, secret_id: str) -> _Secret:
        secret = self._secrets.get(self.arn(secret_id))
        if secret is None:
            raise SecretError(_NOT_FOUND, "Secrets Manager can't find the specified secret.")
        return secret

    def _get(self, secret: _Secret, asked: Mapping[str, Any]) -> dict[str, Any]:
        wanted, stage = asked.get("VersionId"), asked.get("VersionStage")
        if wanted is None and stage is None:
            stage = CURRENT
        for name, version in secret.versions.items():
            if wanted in (None, name) and (stage is None or stage in version.stages):
                return {
                    "ARN": secret.arn,
                    "Name": secret.name,
                    "VersionId": name,
                    "SecretString": version.value,
                    "VersionStages": sorted(version.stages),
                    "CreatedDate": version.created,
                }
        label = f"staging label: {stage}" if wanted is None else f"VersionId: {wanted}"
        raise SecretError(_NOT_FOUND, f"Secrets Manager can't find the specified secret value for {label}")

    def _put(self, secret: _Secret, asked: Mapping[str, Any]) -> dict[str, Any]:
        value = asked.get("SecretString")
        if not isinstance(value, str) or not 0 < len(value.encode()) <= MAX_BYTES:
            raise SecretError(
                "InvalidParameterException", f"SecretString must be a text of 1 to {MAX_BYTES} bytes"
            )
        token = str(asked.get("ClientRequestToken") or uuid.uuid4())
        stages = set(asked.get("VersionStages") or [CURRENT])
        known = secret.versions.get(token)
        if known is not None and known.value != value:
            raise SecretError(
                "ResourceExistsException",
                "You can't use ClientRequestToken for two different values of one secret",
            )
        if known is None:  # else it is a repetition, which changes nothing: not even what is current by now
            known = _Version(value, self._now(), set())
            self._add(secret, token, known, stages)
        answered = {"ARN": secret.arn, "Name": secret.name, "VersionId": token}
        return {**answered, "VersionStages": sorted(known.stages)}

    def _add(self, secret: _Secret, name: str, version: _Version, stages: set[str]) -> None:
        """Add a version. A stage is at one version alone; what loses AWSCURRENT becomes the previous one."""
        former = next((each for each in secret.versions.values() if CURRENT in each.stages), None)
        if former is not None and CURRENT in stages:
            for each in secret.versions.values():
                each.stages.discard(PREVIOUS)
            former.stages.add(PREVIOUS)
        for each in secret.versions.values():
            each.stages -= stages
        version.stages |= stages
        secret.versions[name] = version


def secret_id_of(asked: Mapping[str, Any]) -> str:
    """The secret that a request is about.

    Raises:
        SecretError: If it names none.
    """
    secret_id = asked.get("SecretId")
    if not isinstance(secret_id, str) or not secret_id:
        raise SecretError("ValidationException", "SecretId must be the name or the ARN of a secret")
    return secret_id
