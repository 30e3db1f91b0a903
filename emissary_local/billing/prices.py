"""What AWS charges for what the meter counts.

A price table names its region, its date and its source. It covers what Emissary uses and nothing else: no
free tier, no volume discount, no NAT gateway, no data transfer, no logs, no taxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Prices:
    """One region's prices, in US dollars.

    Attributes:
        region: Where they hold.
        as_of: When they were looked up, year and month.
        source: Where.
        websocket_message: One message unit: up to 32 KB, either way.
        websocket_connection_minute: One connection, one minute.
        lambda_request: One invocation.
        lambda_gb_second: One GB of configured memory for one second of run time (x86; arm64 is a fifth less).
        dynamodb_write_unit: One write of up to 1 KB (on demand).
        dynamodb_read_unit: One strongly consistent read of up to 4 KB (on demand).
    """

    region: str
    as_of: str
    source: str
    websocket_message: float
    websocket_connection_minute: float
    lambda_request: float
    lambda_gb_second: float
    dynamodb_write_unit: float
    dynamodb_read_unit: float


US_EAST_1: Final = Prices(
    region="us-east-1",
    as_of="2026-11",
    source="aws.amazon.com: API Gateway, Lambda and DynamoDB pricing pages, and practitioners quoting them",
    websocket_message=1.00 / 1e6,
    websocket_connection_minute=0.25 / 1e6,
    lambda_request=0.20 / 1e6,
    lambda_gb_second=0.0000166667,
    dynamodb_write_unit=0.625 / 1e6,
    dynamodb_read_unit=0.125 / 1e6,
)
