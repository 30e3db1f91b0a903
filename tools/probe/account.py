"""The probe's stack as its owner sees it: what is asked of AWS with the user's own credentials."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from tools.probe import address
from tools.probe.connection import ProbeError

#: What a call may fail with.
_REFUSED: Final = (ClientError, BotoCoreError)

#: Logical ids in the template.
_API: Final = "Api"
_FUNCTION: Final = "Function"
_LOG_GROUP: Final = "LogGroup"
_STAGE: Final = "probe"

#: For an update of the stack.
_PATIENCE: Final = {"Delay": 5, "MaxAttempts": 120}

_CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]


class Account:
    """One deployed stack of ``tools/probe/template.yaml``.

    Args:
        stack: Its name.
        client: Makes a client of AWS's SDK for a service, as ``boto3.client`` does.

    Raises:
        ProbeError: There is no such stack, or it may not be seen.
    """

    def __init__(self, stack: str, client: Any) -> None:
        self._stack = stack
        self._client = client
        self._before: str | None = None
        self._cloudformation = client("cloudformation")
        try:
            resources = self._cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
            self._ids = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}
            self._function, self._api, self._group = (
                self._ids[name] for name in (_FUNCTION, _API, _LOG_GROUP)
            )
        except (*_REFUSED, KeyError) as exc:
            raise ProbeError(f"cannot see the stack {stack}: {exc}") from exc

    @property
    def api(self) -> str:
        """The id of the stack's API."""
        return str(self._api)

    # Question 11.

    def begin_update(self) -> None:
        """Begin an update that changes a setting of the function and one of the stage.

        Raises:
            ProbeError: AWS refuses it.
        """
        try:
            stack = self._describe()
            self._before = _revision(stack)
            self._set_revision(stack, "0" if self._before == "1" else "1")
        except _REFUSED as exc:
            raise ProbeError(f"the update was refused: {exc}") from exc

    def undo_update(self) -> None:
        """Put back what :meth:`begin_update` changed, if it did; blocks until both updates are done.

        Raises:
            ProbeError: It could not be put back.
        """
        if self._before is None:
            return
        try:
            if str(self._describe()["StackStatus"]).endswith("_IN_PROGRESS"):
                with contextlib.suppress(WaiterError):  # it was rolled back
                    self._await_update()
            stack = self._describe()
            if _revision(stack) != self._before:
                self._set_revision(stack, self._before)
                self._await_update()
        except _REFUSED as exc:
            raise ProbeError(f"the stack's Revision could not be put back to {self._before}: {exc}") from exc
        self._before = None

    def _set_revision(self, stack: dict[str, Any], revision: str) -> None:
        kept = [each["ParameterKey"] for each in stack.get("Parameters", ())]
        self._cloudformation.update_stack(
            StackName=self._stack,
            UsePreviousTemplate=True,
            Parameters=[
                {"ParameterKey": "Revision", "ParameterValue": revision},
                *({"ParameterKey": key, "UsePreviousValue": True} for key in kept if key != "Revision"),
            ],
            Capabilities=_CAPABILITIES,
        )

    def _await_update(self) -> None:
        self._cloudformation.get_waiter("stack_update_complete").wait(
            StackName=self._stack, WaiterConfig=_PATIENCE
        )

    def update_state(self) -> str:
        """The stack's status, such as ``UPDATE_COMPLETE``.

        Raises:
            ProbeError: It may not be seen.
        """
        try:
            return str(self._describe()["StackStatus"])
        except _REFUSED as exc:
            raise ProbeError(f"cannot see the stack {self._stack}: {exc}") from exc

    def _describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self._cloudformation.describe_stacks(StackName=self._stack)["Stacks"][0]
        return found

    # Question 14.

    def metric_sum(self, run: str, now: datetime.datetime) -> float:
        """How much the metric of one run adds up to so far, as CloudWatch knows.

        Raises:
            ProbeError: It may not be asked.
        """
        try:
            points = self._client("cloudwatch").get_metric_statistics(
                Namespace="EmissaryProbe",
                MetricName="Asked",
                Dimensions=[{"Name": "Run", "Value": run}],
                StartTime=now - datetime.timedelta(hours=1),
                EndTime=now + datetime.timedelta(minutes=5),
                Period=60,
                Statistics=["Sum"],
            )["Datapoints"]
        except _REFUSED as exc:
            raise ProbeError(f"CloudWatch does not tell: {exc}") from exc
        return float(sum(point["Sum"] for point in points))

    # Question 16.

    def try_timeout(self, seconds: int) -> str:
        """Give the function a timeout for a moment: ``ok``, or AWS's refusal in its own words."""
        client = self._client("lambda")
        try:
            before = client.get_function_configuration(FunctionName=self._function)["Timeout"]
            client.update_function_configuration(FunctionName=self._function, Timeout=seconds)
        except _REFUSED as exc:
            return str(exc)
        updated = client.get_waiter("function_updated")
        try:
            with contextlib.suppress(*_REFUSED):  # it is waited for again below
                updated.wait(FunctionName=self._function)
        finally:  # somebody who does not want to wait has it put back as well
            self._put_back_timeout(client, updated, before, seconds)
        return "ok"

    def _put_back_timeout(self, client: Any, updated: Any, before: int, seconds: int) -> None:
        try:
            updated.wait(FunctionName=self._function)
            client.update_function_configuration(FunctionName=self._function, Timeout=before)
            updated.wait(FunctionName=self._function)
        except _REFUSED as exc:
            raise ProbeError(f"the function's timeout is {seconds} s now and could not be put back") from exc

    # Question 17.

    def try_access_log(self, log_format: str) -> str:
        """Switch access logs on for a moment: ``ok``, or AWS's refusal in its own words."""
        client = self._client("apigatewayv2")
        try:
            group = self._client("logs").describe_log_groups(logGroupNamePrefix=self._group)["logGroups"][0]
            settings = {"DestinationArn": group["arn"].removesuffix(":*"), "Format": log_format}
            client.update_stage(ApiId=self._api, StageName=_STAGE, AccessLogSettings=settings)
        except _REFUSED as exc:
            return str(exc)
        except LookupError:
            return "the stack's log group is not there"
        try:
            client.delete_access_log_settings(ApiId=self._api, StageName=_STAGE)
        except _REFUSED as exc:
            raise ProbeError("the stage's access log is on now and could not be put off") from exc
        return "ok"


def is_behind(api: str, url: str, stack: str) -> bool:
    """Whether a URL is known to lead to an API of this id; False if its name is not API Gateway's own.

    Raises:
        ProbeError: It leads to another API.
    """
    found = address.api_id(url)
    if found is None:
        return False
    if found != api:
        raise ProbeError(f"the URL is of another stack than {stack}: give the output Url of that one")
    return True


def _revision(stack: dict[str, Any]) -> str:
    values = {each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", ())}
    return str(values.get("Revision", "0"))


def connect(stack: str) -> Account:
    """The stack, with the credentials and the region that the environment gives.

    Raises:
        ProbeError: There is no region, or no such stack.
    """
    try:
        return Account(stack, boto3.client)
    except BotoCoreError as exc:
        raise ProbeError(f"AWS's SDK cannot be used: {exc}") from exc
