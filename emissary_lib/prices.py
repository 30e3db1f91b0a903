"""What AWS charges: the one table of prices, for audit records, the local cloud's bill and the documents.

It names its region, its processor and its date, and each figure its source: AWS's price pages, read through
those who quote them. No free tier, no volume discount, no taxes. A GB is 10^9 bytes here; should AWS mean
2^30, a bill is 7 % less.
"""

from __future__ import annotations

import platform
from typing import Final, NamedTuple

#: One GB of configured memory for one second of run time, by the functions' processor, in US dollars.
#:
#: Source: aws.amazon.com/lambda/pricing, first tier.
_GB_SECOND: Final = {"arm64": 0.0000133334, "x86_64": 0.0000166667}

#: Hours that a month has on price pages.
HOURS_OF_MONTH: Final = 730

#: Bytes that Lambda itself logs of each invocation: the lines START, END and REPORT.
#:
#: Source: their form in the Lambda developer guide ("Working with Lambda function logs") is some 300 bytes;
#: CloudWatch Logs adds 26 to each event ("PutLogEvents"), and a cold start has a line and a figure more.
LAMBDA_LOG_BYTES: Final = 450

_GB: Final = 1e9


class Prices(NamedTuple):
    """One region's prices for one processor, in US dollars.

    Attributes:
        region: Where they hold.
        architecture: Of the functions: ``arm64`` or ``x86_64``.
        as_of: When they were looked up, year and month.
        websocket_message: One message unit: up to 32 KB, either way.
        websocket_connection_minute: One connection, one minute.
        lambda_request: One invocation.
        lambda_gb_second: One GB of configured memory for one second of run time.
        dynamodb_write_unit: One write of up to 1 KB (on demand).
        dynamodb_read_unit: One strongly consistent read of up to 4 KB (on demand).
        internet_byte: One byte out of AWS to the internet. The first 100 GB a month of an account are free.
        nat_byte: One byte through a NAT gateway, either way.
        nat_hour: One NAT gateway, one hour, without its address.
        address_hour: One public IPv4 address, one hour: a NAT gateway has one.
        log_byte: One byte into a log group of the standard class.
        metric_month: One metric of one's own, one month.
        alarm_metric_month: One metric that an alarm watches, one month.
        dashboard_month: One dashboard beyond an account's first three, one month.
        secret_month: One secret, one month.
    """

    region: str
    architecture: str
    as_of: str
    websocket_message: float
    websocket_connection_minute: float
    lambda_request: float
    lambda_gb_second: float
    dynamodb_write_unit: float
    dynamodb_read_unit: float
    internet_byte: float
    nat_byte: float
    nat_hour: float
    address_hour: float
    log_byte: float
    metric_month: float
    alarm_metric_month: float
    dashboard_month: float
    secret_month: float

    @property
    def nat_month(self) -> float:
        """A NAT gateway with its address, one month, without what goes through it."""
        return HOURS_OF_MONTH * (self.nat_hour + self.address_hour)

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
        # aws.amazon.com/api-gateway/pricing, "WebSocket APIs": "metered in 32 KB increments".
        websocket_message=1.00 / 1e6,
        websocket_connection_minute=0.25 / 1e6,
        # aws.amazon.com/lambda/pricing.
        lambda_request=0.20 / 1e6,
        lambda_gb_second=_GB_SECOND[architecture],
        # aws.amazon.com/dynamodb/pricing/on-demand, since November 2024.
        dynamodb_write_unit=0.625 / 1e6,
        dynamodb_read_unit=0.125 / 1e6,
        # aws.amazon.com/api-gateway/pricing, "Additional charges": data transfer out, at EC2's rates
        # (aws.amazon.com/ec2/pricing/on-demand, "Data Transfer"). Quoted for all three kinds of API by
        # amnic.com/blogs/aws-api-gateway-pricing and
        # awsforengineers.com/blog/aws-api-gateway-pricing-explained.
        internet_byte=0.09 / _GB,
        # aws.amazon.com/vpc/pricing, "NAT Gateway" and "Public IPv4 Address". Quoted, with the address, by
        # cloudburn.io/blog/aws-nat-gateway-pricing, and for both directions by
        # wring.co/blog/aws-nat-gateway-pricing-guide.
        nat_byte=0.045 / _GB,
        nat_hour=0.045,
        address_hour=0.005,
        # aws.amazon.com/cloudwatch/pricing: "Logs" (collect), "Metrics", "Alarms", "Dashboards".
        log_byte=0.50 / _GB,
        metric_month=0.30,
        alarm_metric_month=0.10,
        dashboard_month=3.00,
        # aws.amazon.com/secrets-manager/pricing.
        secret_month=0.40,
    )


#: For functions that run on this machine's processor.
HERE: Final = us_east_1(platform.machine())
