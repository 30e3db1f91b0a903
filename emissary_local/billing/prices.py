"""What AWS charges for what the meter counts.

A price table names its region, its processor, its date and its source. It covers what is metered and nothing
else: no free tier, no volume discount, no NAT gateway, no data transfer, no logs, no taxes.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final

#: One GB of configured memory for one second of run time, by the functions' processor, in US dollars.
_GB_SECOND: Final = {"arm64": 0.0000133334, "x86_64": 0.0000166667}


@dataclass(frozen=True, slots=True)
class Prices:
    """One region's prices for one processor, in US dollars.

    Attributes:
        region: Where they hold.
        architecture: Of the functions: ``arm64`` or ``x86_64``.
        as_of: When they were looked up, year and month.
        source: Where.
        websocket_message: One message unit: up to 32 KB, either way.
        websocket_connection_minute: One connection, one minute.
        lambda_request: One invocation.
        lambda_gb_second: One GB of configured memory for one second of run time.
        dynamodb_write_unit: One write of up to 1 KB (on demand).
        dynamodb_read_unit: One strongly consistent read of up to 4 KB (on demand).
    """

    region: str
    architecture: str
    as_of: str
    source: str
    websocket_message: float
    websocket_connection_minute: float
    lambda_request: float
    lambda_gb_second: float
    dynamodb_write_unit: float
    dynamodb_read_unit: float

    def __str__(self) -> str:
        return f"{self.region}, {self.architecture}, prices of {self.as_of}, no free tier"


def us_east_1(machine: str) -> Prices:
    """The prices of us-east-1.

    Args:
        machine: What the functions run on, as ``platform.machine()`` says it.
    """
    architecture = "arm64" if machine in ("aarch64", "arm64") else "x86_64"
    return Prices(
        region="us-east-1",
        architecture=architecture,
        as_of="2026-11",
        source="aws.amazon.com: the pricing pages of API Gateway, Lambda and DynamoDB, and who quotes them",
        websocket_message=1.00 / 1e6,
        websocket_connection_minute=0.25 / 1e6,
        lambda_request=0.20 / 1e6,
        lambda_gb_second=_GB_SECOND[architecture],
        dynamodb_write_unit=0.625 / 1e6,
        dynamodb_read_unit=0.125 / 1e6,
    )


#: For functions that run on this machine, as the local cloud's do.
HERE: Final = us_east_1(platform.machine())
