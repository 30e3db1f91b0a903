"""Question 15 a day later: what AWS has billed for the day of a run, put into that run's JSON."""

from __future__ import annotations

import datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tools.probe import report, verdicts
from tools.probe.connection import ProbeError

_NUMBER: Final = 15

#: Members of its findings that are needed.
_COUNTS: Final = ("message_units", "refused_connects", "bytes_out")

#: How regions begin in partitions without Cost Explorer's API: GovCloud is billed with the account that it is
#: paired with, and of the others nothing is known.
_WITHOUT: Final = ("us-gov-", "us-iso", "eu-isoe-", "eusc-")


def usage(client: Any, day: str, region: str) -> dict[str, float]:
    """What Cost Explorer has of API Gateway for a day, by usage type; asking costs $0.01.

    Args:
        client: The SDK's client of Cost Explorer.
        day: As in the run's JSON, ``2026-11-29``.
        region: Of the stack.

    Raises:
        ProbeError: It may not be asked.
    """
    after = datetime.date.fromisoformat(day) + datetime.timedelta(days=1)
    wanted = {"SERVICE": "Amazon API Gateway", "REGION": region}
    try:
        (found,) = client.get_cost_and_usage(
            TimePeriod={"Start": day, "End": after.isoformat()},
            Granularity="DAILY",
            Metrics=["UsageQuantity"],
            Filter={"And": [{"Dimensions": {"Key": key, "Values": [each]}} for key, each in wanted.items()]},
            GroupBy=[{"Type": "DIMENSION", "Key": "USAGE_TYPE"}],
        )["ResultsByTime"]
    except (ClientError, BotoCoreError) as exc:
        raise ProbeError(f"Cost Explorer does not tell: {exc}") from exc
    return {each["Keys"][0]: float(each["Metrics"]["UsageQuantity"]["Amount"]) for each in found["Groups"]}


def endpoint(region: str) -> str:
    """The region of the one endpoint that Cost Explorer has in a region's partition.

    Raises:
        ProbeError: It has none.

    Example:
        >>> endpoint("eu-west-1"), endpoint("cn-north-1")
        ('us-east-1', 'cn-northwest-1')
    """
    if region.startswith("cn-"):
        return "cn-northwest-1"
    if region.startswith(_WITHOUT):
        raise ProbeError(f"there is no Cost Explorer for {region}: look into the bill of the paying account")
    return "us-east-1"


def _asked(run: object) -> tuple[dict[str, Any], str]:
    """Question 15 of a run, and the region; what people may have done to the file is not believed."""
    try:
        region, questions = run["region"], run["questions"]  # type: ignore[index]
        (asked,) = (each for each in questions if each["number"] == _NUMBER)
        findings = asked["findings"]
        datetime.date.fromisoformat(findings["day"])
        sound = (
            all(type(findings[name]) is int for name in _COUNTS)
            and type(findings.get("throttled_units", 0)) is int
            and all(isinstance(each["verdict"], str) for each in questions)
            and isinstance(region, str)
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise ProbeError(f"this is no run on AWS with question {_NUMBER}; its --json is wanted")
    return asked, region


def completed(run: Any, client: Any) -> dict[str, Any]:
    """A run's JSON with question 15 answered from the bill.

    Args:
        run: The JSON, as it was parsed.
        client: Makes a client of AWS's SDK for a service, as ``boto3.client`` does.

    Raises:
        ProbeError: The run did not ask it on AWS, or Cost Explorer does not tell.
    """
    asked, region = _asked(run)
    explorer = client("ce", region_name=endpoint(region))
    findings = {**asked["findings"], "usage": usage(explorer, asked["findings"]["day"], region)}
    verdict = verdicts.bill(findings)
    answered = {**asked, "verdict": verdict.state.value, "why": verdict.why, "findings": findings}
    questions = [answered if each is asked else each for each in run["questions"]]
    return {**run, "summary": report.summary([each["verdict"] for each in questions]), "questions": questions}
