"""Starts relays by an asynchronous Lambda invocation.

Source: Lambda API reference, Invoke (InvocationType ``Event``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from functions.common.errors import LaunchError


class LambdaLauncher:
    """:class:`ports.RelayLauncher` over Lambda.

    Args:
        client: A botocore Lambda client.
        function: The relay's name or ARN.
    """

    def __init__(self, client: Any, function: str) -> None:
        self._client = client
        self._function = function

    def launch(self, event: Mapping[str, Any]) -> None:
        """See :meth:`ports.RelayLauncher.launch`.

        The SDK's retries may start two relays; they have the same token, and only one of them can claim.
        """
        payload = json.dumps(event, separators=(",", ":")).encode("ascii")
        try:
            self._client.invoke(FunctionName=self._function, InvocationType="Event", Payload=payload)
        except ClientError as exc:
            raise LaunchError(f"Lambda refused to start the relay: {exc.response['Error']['Code']}") from exc
        except BotoCoreError as exc:
            raise LaunchError(f"Lambda did not answer: {type(exc).__name__}") from exc
