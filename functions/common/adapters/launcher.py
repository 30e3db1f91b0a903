"""Starts relays by an asynchronous Lambda invocation.

Source: Lambda API reference, Invoke (InvocationType ``Event``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from functions.common.adapters.service import NoAnswerError, Service, ServiceError
from functions.common.errors import LaunchError


class LambdaLauncher:
    """:class:`ports.RelayLauncher` over Lambda.

    Args:
        service: Lambda.
        function: The relay's name or ARN.
    """

    def __init__(self, service: Service, function: str) -> None:
        self._service = service
        self._path = f"/2015-03-31/functions/{quote(function, safe='')}/invocations"

    def launch(self, event: Mapping[str, Any]) -> None:
        """See :meth:`ports.RelayLauncher.launch`.

        A request that is tried again may start two relays; they have the same token, and only one of
        them can claim.
        """
        payload = json.dumps(event, separators=(",", ":")).encode("ascii")
        try:
            self._service.post(self._path, {"X-Amz-Invocation-Type": "Event"}, payload)
        except ServiceError as exc:
            raise LaunchError(f"Lambda refused to start the relay: {exc.code}") from exc
        except NoAnswerError as exc:
            raise LaunchError(f"Lambda did not answer: {exc}") from exc
