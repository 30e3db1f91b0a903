"""The Lambda function behind ``$connect``: admits dialers and relays before their connection exists."""

from __future__ import annotations

import os
from collections.abc import Callable

from functions.common import wiring
from functions.common.events import GatewayEvent
from functions.common.responses import Handler, to_gateway


def make_handler(use_case: Callable[[GatewayEvent], dict[str, str]]) -> Handler:
    """The handler over a use case; tests give one over fakes."""
    return to_gateway(lambda event: use_case(GatewayEvent.parse(event)))


_FUNCTION = wiring.Connect(os.environ)
wiring.warm(_FUNCTION, os.environ)

lambda_handler = make_handler(_FUNCTION)
