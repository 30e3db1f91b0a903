"""Latency profiles: how long each hop of the local cloud takes beyond its own work.

``none`` adds nothing. ``aws`` draws each delay from a log-normal distribution through a median and a 95th
percentile. Nobody has published the hops one by one; the table splits what has been measured end to end:

* Echo through API Gateway and Lambda, against an EC2 WebSocket server: +18 ms median, +52 ms p95
  (serialized.net, March 2021). Split between the way in (gateway to function) and the way out (post).
* The same with one DynamoDB read and one write: +13 ms median more; half of it is one request. The p95 of
  the same runs grew by 166 ms, which is not one request's doing; 20 ms is our estimate.
* An asynchronous Lambda start behind SNS: 73 ms median, 225 ms p99 (bitesizedserverless, 2022). A direct
  Event invocation has no SNS before it: 50 ms and 120 ms is our estimate.

The client's own way to the gateway is not in it.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from emissary_local.errors import SettingsError

#: The 95th percentile of the standard normal distribution.
_Z95: Final = 1.6448536269514722


class Leg(enum.Enum):
    """A part of a message's way that takes time."""

    #: From the gateway to a running function: $connect, messages, $disconnect.
    INVOKE = "invoke"
    #: From a caller of ``@connections`` to the gateway and on to the client.
    POST = "post"
    #: From an accepted asynchronous invocation to the function's start.
    ASYNC_START = "async_start"
    #: One DynamoDB request.
    DYNAMODB = "dynamodb"


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of delays.

    Attributes:
        median: Seconds.
        p95: Seconds; at least ``median``.
    """

    median: float
    p95: float


AWS: Final[Mapping[Leg, Spread]] = MappingProxyType(
    {
        Leg.INVOKE: Spread(0.010, 0.028),
        Leg.POST: Spread(0.008, 0.024),
        Leg.ASYNC_START: Spread(0.050, 0.120),
        Leg.DYNAMODB: Spread(0.006, 0.020),
    }
)

PROFILES: Final[Mapping[str, Mapping[Leg, Spread]]] = MappingProxyType(
    {"none": MappingProxyType({}), "aws": AWS}
)


class Latency:
    """Draws delays for one run; the same seed gives each leg the same delays in the same order.

    Args:
        profile: ``none`` or ``aws``.
        seed: Where the delays come from.

    Raises:
        SettingsError: If there is no such profile.
    """

    def __init__(self, profile: str = "none", seed: int = 0) -> None:
        if profile not in PROFILES:
            raise SettingsError(f"unknown latency profile {profile!r}; want one of: {', '.join(PROFILES)}")
        self._laws = {
            leg: (math.log(spread.median), math.log(spread.p95 / spread.median) / _Z95)
            for leg, spread in PROFILES[profile].items()
        }
        self._random = {leg: random.Random(f"{seed}/latency/{leg.value}") for leg in Leg}

    def delay(self, leg: Leg) -> float:
        """Seconds that this passage of ``leg`` takes; exactly 0.0 where the profile adds nothing."""
        law = self._laws.get(leg)
        return self._random[leg].lognormvariate(*law) if law else 0.0
