"""The REQUEST authorizer of ``$connect``: a function that says who may connect.

Source: API Gateway Developer Guide, "Control access to WebSocket APIs with AWS Lambda REQUEST authorizers"
and "Output from an API Gateway Lambda authorizer". A request without an identity source is refused with 401
and the function is not asked; one that it raises ``Unauthorized`` for, too; 403 is for its policy; 500 is for
whatever else it does. Nothing is cached: WebSocket APIs do not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from emissary_local.aws.iam.statements import read_statements
from emissary_local.errors import TemplateError
from emissary_local.gateway.error_frames import FORBIDDEN, INTERNAL_SERVER_ERROR, UNAUTHORIZED
from emissary_local.gateway.integration import IntegrationError, Integrations
from emissary_local.ports import InvocationStatus
from emissary_local.template.specs import Authorizer

_log = logging.getLogger(__name__)

_INVOKE: Final = "execute-api:Invoke"


class ConnectAuthorizer:
    """Asks the authorizer's function about upgrades.

    Args:
        spec: The authorizer.
        integrations: Runs it.
        method_arn: What it is asked about: the ARN of the stage's ``$connect``.
    """

    def __init__(self, spec: Authorizer, integrations: Integrations, method_arn: str) -> None:
        self._spec = spec
        self._integrations = integrations
        self.method_arn = method_arn

    def has_identity(self, headers: Mapping[str, str], query: str) -> bool:
        """Whether a request has every identity source; header names are found in any case."""
        parameters = parse_qs(query)  # without those that are empty
        return all(headers.get(name) for name in self._spec.headers) and all(
            name in parameters for name in self._spec.parameters
        )

    async def ask(self, event: bytes) -> dict[str, Any]:
        """Have the function decide on an upgrade.

        Returns:
            ``requestContext.authorizer`` of the connection's events.

        Raises:
            IntegrationError: If it is refused (401, 403), or nobody can tell (500).
        """
        function, began = self._spec.function, time.monotonic()
        try:
            result = await self._integrations.run(function, event)
        except IntegrationError as exc:
            raise self._broken(str(exc)) from exc
        try:
            answer = json.loads(result.payload)
        except ValueError as exc:
            raise self._broken(f"{function} gave no answer: {result.status.value}") from exc
        if result.status is not InvocationStatus.OK:
            if isinstance(answer, dict) and answer.get("errorMessage") == UNAUTHORIZED:
                raise IntegrationError(401, UNAUTHORIZED, f"{function} does not know the caller")
            raise self._broken(f"{function} failed: {result.status.value}")
        allowed, context = self._read(answer)
        if not allowed:
            raise IntegrationError(403, FORBIDDEN, f"the policy of {function} does not allow it")
        return {**context, "integrationLatency": round((time.monotonic() - began) * 1000)}

    def _read(self, answer: Any) -> tuple[bool, dict[str, Any]]:
        """Whether an answer allows the connection, and what its events show of it."""
        function = self._spec.function
        try:
            principal, given = answer["principalId"], answer.get("context") or {}
            statements = read_statements(function, [answer["policyDocument"]], {}, function)
            context = {name: _text(value) for name, value in given.items()}
        except (TypeError, KeyError, AttributeError, ValueError, TemplateError) as exc:
            raise self._broken(f"the answer of {function} cannot be read: {exc!r}") from exc
        applying = [each for each in statements if each.applies(_INVOKE, self.method_arn, {})]
        allowed = bool(applying) and all(each.allows for each in applying)
        return allowed, {**context, "principalId": principal}

    def _broken(self, cause: str) -> IntegrationError:
        _log.warning("authorizer: %s", cause)
        return IntegrationError(500, INTERNAL_SERVER_ERROR, cause)


def _text(value: Any) -> str:
    """A value of the context, as events show it."""
    if not isinstance(value, str | int | float):
        raise TypeError(f"a context holds texts, numbers and truth values, not {value!r}")
    return value if isinstance(value, str) else json.dumps(value)
