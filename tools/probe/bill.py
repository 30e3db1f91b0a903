"""Question 15 a day later: what AWS has billed for the day of a run, put into that run's JSON."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tools.probe import report, verdicts
from tools.probe.connection import ProbeError

_NUMBER: Final = 15


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


def completed(run: Mapping[str, Any], client: Any) -> dict[str, Any]:
    """A run's JSON with question 15 answered from the bill.

    Args:
        run: The JSON.
        client: Makes a client of AWS's SDK for a service, as ``boto3.client`` does.

    Raises:
        ProbeError: The run did not ask it on AWS, or Cost Explorer does not tell.
    """
    asked = [each for each in run.get("questions", ()) if each["number"] == _NUMBER and each["findings"]]
    if not asked or not run["region"]:
        raise ProbeError(f"this is no run on AWS with question {_NUMBER}; its --json is wanted")
    # Cost Explorer has one endpoint for all regions.
    explorer = client("ce", region_name="us-east-1")
    findings = {**asked[0]["findings"], "usage": usage(explorer, asked[0]["findings"]["day"], run["region"])}
    verdict = verdicts.bill(findings)
    answered = {**asked[0], "verdict": verdict.state.value, "why": verdict.why, "findings": findings}
    questions = [answered if each is asked[0] else each for each in run["questions"]]
    return {**run, "summary": report.summary([each["verdict"] for each in questions]), "questions": questions}
