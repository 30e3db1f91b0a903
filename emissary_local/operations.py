"""What an operator does to a running local cloud: look at permissions, take some away, rotate keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from emissary_lib.protocol.auth.keys import Key
from emissary_local.aws.iam.report import Denial, Permission


class Operations:
    """Part of :class:`emissary_local.cloud.LocalCloud`.

    Every method raises :class:`LocalCloudError` if the cloud is not running or does not answer.

    Thread safety: all methods may be called from any thread.
    """

    def permissions(self) -> list[Permission]:
        """Every statement of the functions' policies, and how many calls it has decided on so far."""
        return [Permission(**each) for each in self._command("permissions")["permissions"]]

    def denials(self) -> list[Denial]:
        """The calls of functions that were refused because no policy allows them, the latest thousand."""
        return [Denial(**each) for each in self._command("denials")["denials"]]

    def withdraw(self, function: str, statement: str) -> None:
        """Take one statement out of a function's policies, until :meth:`restore`.

        What a function has already been given it keeps: ``retire`` ends the environments that remember, for
        example, the keys.

        Args:
            function: The function's logical id.
            statement: Its ``name`` in :meth:`permissions`: its Sid.

        Raises:
            LocalCloudError: If there is no such statement.
        """
        self._command("withdraw", function=function, statement=statement)

    def restore(self) -> None:
        """Put every withdrawn statement back."""
        self._command("restore")

    def put_secret(self, value: str, secret: str | None = None) -> None:
        """Make ``value`` the current one of a secret.

        Args:
            value: The text.
            secret: Logical id, name or ARN; not needed if the template has one secret.

        Raises:
            LocalCloudError: If there is no such secret, or the value is empty or too long.
        """
        self._command("put_secret", value=value, secret=self._secret(secret))

    def rotate_keys(self, keys: Sequence[Key], secret: str | None = None) -> None:
        """Put a list of shared keys into the secret; functions see it when what they remember has aged.

        Raises:
            LocalCloudError: As :meth:`put_secret`.
        """
        self.put_secret(json.dumps([key_json(key) for key in keys]), secret)

    def _command(self, name: str, **arguments: Any) -> dict[str, Any]:
        raise NotImplementedError

    def _secret(self, given: str | None) -> str:
        raise NotImplementedError


def key_json(key: Key) -> dict[str, Any]:
    """A key in the form of ``EMISSARY_AUTH_KEYS``."""
    return {"kid": key.key_id, "data": base64.b64encode(key.secret).decode()}
