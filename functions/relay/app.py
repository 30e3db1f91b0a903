"""The Lambda function inside the VPC: one invocation serves one session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Protocol

from emissary_lib.bridge.launch import Launch
from emissary_lib.protocol.errors import EmissaryError
from functions.common import logs, metrics
from functions.common.metrics import Metric
from functions.relay import wiring

#: The event of template.yaml's schedule. That it arrives is all it is for: Lambda takes the network interface
#: from a VPC function that was idle for two weeks. Source: Lambda developer guide, "Lambda function states".
KEEP_ALIVE: Final = {"emissary": "keep-alive"}


class Context(Protocol):
    """What is used of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int:
        """Until Lambda ends the invocation, in milliseconds."""


_FUNCTION = wiring.RelayFunction(os.environ)
_FUNCTION.warm()


def lambda_handler(event: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Serve one session; the answer is for a test or a person, since asynchronous answers go nowhere."""
    if event == KEEP_ALIVE:
        return {"statusCode": 204}
    try:
        launch = Launch.parse(event)
        code = _FUNCTION.relay.serve(launch, context.get_remaining_time_in_millis() / 1000)
    except EmissaryError as exc:
        # The event holds tokens, so only the error's own text is logged.
        logs.error("the relay could not begin", exc)
        metrics.count(Metric.RELAY_ERROR)
        return {"statusCode": 500}
    if code is None:
        return {"statusCode": 409}
    return {"statusCode": 200, "code": code.name}
