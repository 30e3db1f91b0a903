"""What the probe asks of AWS with its user's own credentials, against fakes that answer as AWS does."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Final

import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, WaiterError
from botocore.validate import validate_parameters

from tools.probe import bill
from tools.probe.account import Account
from tools.probe.connection import ProbeError

RESOURCES: Final = {"Api": "a1b2c3", "Function": "stack-Function-1", "LogGroup": "stack-LogGroup-1"}


class Waiter:
    """Waits for nothing; ``failures`` has what the waits end with, None for success."""

    def __init__(self, name: str, aws: Aws) -> None:
        self._name = name
        self._aws = aws

    def wait(self, **_arguments: Any) -> None:
        self._aws.waits.append(self._name)
        failure = self._aws.failures.pop(0) if self._aws.failures else None
        if failure is not None:
            raise failure


class Aws:
    """AWS: notes each call, which must be one that its SDK knows, and answers it or refuses it."""

    def __init__(self, answers: dict[str, Any] | None = None, refusals: dict[str, str] | None = None) -> None:
        resources = [
            {"LogicalResourceId": name, "PhysicalResourceId": each} for name, each in RESOURCES.items()
        ]
        self.answers = {"describe_stack_resources": {"StackResources": resources}, **(answers or {})}
        self.refusals = refusals or {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.waits: list[str] = []
        self.failures: list[BaseException | None] = []
        self.regions: list[str | None] = []

    def client(self, service: str, *, region_name: str | None = None) -> Client:
        self.regions.append(region_name)
        return Client(self, botocore.session.get_session().get_service_model(service))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [arguments for called, arguments in self.calls if called == name]


class Client:
    def __init__(self, aws: Aws, model: Any) -> None:
        self._aws = aws
        self._operations = {xform_name(name): model.operation_model(name) for name in model.operation_names}

    def get_waiter(self, name: str) -> Waiter:
        return Waiter(name, self._aws)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        aws, operation = self._aws, self._operations[name]

        def call(**arguments: Any) -> Any:
            validate_parameters(arguments, operation.input_shape)
            aws.calls.append((name, arguments))
            if name in aws.refusals:
                raise ClientError({"Error": {"Code": "Refused", "Message": aws.refusals[name]}}, name)
            given = aws.answers.get(name, {})
            return given(arguments) if callable(given) else given

        return call


@pytest.mark.parametrize(("now", "next_one"), [("0", "1"), ("1", "0")])
def test_an_update_is_to_the_other_revision_of_the_same_template(now: str, next_one: str) -> None:
    parameters = [{"ParameterKey": "Revision", "ParameterValue": now}]
    stack = {"Parameters": parameters, "StackStatus": "UPDATE_COMPLETE"}
    aws = Aws({"describe_stacks": {"Stacks": [stack]}})
    account = Account("probe", aws.client)
    account.begin_update()
    (update,) = aws.named("update_stack")
    assert update["UsePreviousTemplate"]
    assert update["Parameters"] == [{"ParameterKey": "Revision", "ParameterValue": next_one}]
    assert "CAPABILITY_AUTO_EXPAND" in update["Capabilities"]
    assert account.update_state() == "UPDATE_COMPLETE"


class Stack:
    """A stack whose updates are done, or rolled back, when they are waited for."""

    def __init__(self, *, rolls_back: bool = False) -> None:
        self.values = {"Revision": "0", "RolePath": "/platform/"}
        self.status = "CREATE_COMPLETE"
        self._rolls_back = rolls_back
        answers = {"describe_stacks": lambda _arguments: {"Stacks": [self.described()]}}
        self.aws = Aws({**answers, "update_stack": self.update})
        if rolls_back:
            self.aws.failures = [WaiterError("stack_update_complete", "rolled back", {})]

    def described(self) -> dict[str, Any]:
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.values.items()]
        return {"Parameters": parameters, "StackStatus": self.status}

    def update(self, arguments: dict[str, Any]) -> dict[str, Any]:
        given = {each["ParameterKey"]: each for each in arguments["Parameters"]}
        assert set(given) == set(self.values), "what is not named goes back to its default"
        assert given["RolePath"] == {"ParameterKey": "RolePath", "UsePreviousValue": True}
        self.status = "UPDATE_IN_PROGRESS"
        if not self._rolls_back:
            self.values["Revision"] = given["Revision"]["ParameterValue"]
        return {}


@pytest.mark.parametrize("done", [True, False])
def test_an_update_is_undone_when_it_is_done_and_nothing_else_is_changed(done: bool) -> None:
    stack = Stack()
    account = Account("probe", stack.aws.client)
    account.begin_update()
    assert stack.values["Revision"] == "1"
    if done:
        stack.status = "UPDATE_COMPLETE"
    account.undo_update()
    assert stack.values == {"Revision": "0", "RolePath": "/platform/"}
    assert len(stack.aws.named("update_stack")) == 2
    assert stack.aws.waits == ["stack_update_complete"] * (1 if done else 2)
    account.undo_update()
    assert len(stack.aws.named("update_stack")) == 2


def test_an_update_that_was_rolled_back_needs_no_undoing() -> None:
    stack = Stack(rolls_back=True)
    account = Account("probe", stack.aws.client)
    account.begin_update()
    account.undo_update()
    assert len(stack.aws.named("update_stack")) == 1


def test_an_update_that_never_began_is_not_undone() -> None:
    aws = Aws(refusals={"describe_stacks": "no"})
    account = Account("probe", aws.client)
    with pytest.raises(ProbeError, match="the update was refused"):
        account.begin_update()
    account.undo_update()
    assert aws.named("update_stack") == []


def test_a_revision_that_cannot_be_put_back_is_said() -> None:
    stack = Stack()
    account = Account("probe", stack.aws.client)
    account.begin_update()
    stack.status = "UPDATE_COMPLETE"
    stack.aws.refusals["update_stack"] = "no"
    with pytest.raises(ProbeError, match=r"Revision could not be put back to 0: .* no"):
        account.undo_update()


def test_a_timeout_is_put_back_although_somebody_is_tired_of_waiting() -> None:
    aws = Aws({"get_function_configuration": {"Timeout": 300}})
    aws.failures = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        Account("probe", aws.client).try_timeout(1800)
    assert [each["Timeout"] for each in aws.named("update_function_configuration")] == [1800, 300]


def test_a_timeout_that_is_taken_is_put_back() -> None:
    aws = Aws({"get_function_configuration": {"Timeout": 300}})
    assert Account("probe", aws.client).try_timeout(1800) == "ok"
    assert [each["Timeout"] for each in aws.named("update_function_configuration")] == [1800, 300]


def test_a_timeout_that_is_refused_is_told_in_the_words_of_aws() -> None:
    aws = Aws(
        {"get_function_configuration": {"Timeout": 300}},
        {"update_function_configuration": "Member must have value less than or equal to 900"},
    )
    assert "less than or equal to 900" in Account("probe", aws.client).try_timeout(1800)


def test_an_access_log_that_is_taken_is_put_off_again() -> None:
    group = {"arn": "arn:aws:logs:eu-west-1:111122223333:log-group:stack-LogGroup-1:*"}
    aws = Aws({"describe_log_groups": {"logGroups": [group]}})
    assert Account("probe", aws.client).try_access_log("{}") == "ok"
    (update,) = aws.named("update_stage")
    assert update["AccessLogSettings"] == {"DestinationArn": group["arn"][:-2], "Format": "{}"}
    assert aws.named("delete_access_log_settings") == [{"ApiId": "a1b2c3", "StageName": "probe"}]


def test_an_access_log_that_is_refused_names_the_variable() -> None:
    aws = Aws(
        {"describe_log_groups": {"logGroups": [{"arn": "arn:aws:logs"}]}},
        {"update_stage": "The following context variables are not supported: [integrationStatus]"},
    )
    assert "[integrationStatus]" in Account("probe", aws.client).try_access_log("{}")
    assert aws.named("delete_access_log_settings") == []


def test_a_metric_is_the_sum_of_what_cloudwatch_has_of_the_run() -> None:
    aws = Aws({"get_metric_statistics": {"Datapoints": [{"Sum": 1.0}, {"Sum": 2.0}]}})
    now = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)
    assert Account("probe", aws.client).metric_sum("a run", now) == 3.0
    (asked,) = aws.named("get_metric_statistics")
    assert asked["Dimensions"] == [{"Name": "Run", "Value": "a run"}]


def test_a_stack_that_cannot_be_seen_ends_the_run_before_it_has_begun() -> None:
    with pytest.raises(ProbeError, match=r"cannot see the stack probe: .*does not exist"):
        Account("probe", Aws(refusals={"describe_stack_resources": "does not exist"}).client)


def test_what_cannot_be_put_back_is_said() -> None:
    aws = Aws(
        {"describe_log_groups": {"logGroups": [{"arn": "arn:aws:logs"}]}},
        {"delete_access_log_settings": "no"},
    )
    with pytest.raises(ProbeError, match="access log is on now"):
        Account("probe", aws.client).try_access_log("{}")


def document(**changes: Any) -> dict[str, Any]:
    findings = {"day": "2026-11-29", "refused_connects": 300, "message_units": 3000, "bytes_out": 10}
    question = {"number": 15, "verdict": "not answered", "why": "", "findings": findings}
    return {"region": "eu-west-1", "summary": {}, "questions": [question], **changes}


def cost(quantity: str) -> Aws:
    groups = [{"Keys": ["EUW1-ApiGatewayMessage"], "Metrics": {"UsageQuantity": {"Amount": quantity}}}]
    return Aws({"get_cost_and_usage": {"ResultsByTime": [{"Groups": groups}]}})


def test_a_run_is_completed_from_the_bill_of_its_day_and_region() -> None:
    aws = cost("3010")
    completed = bill.completed(document(), aws.client)
    assert completed["summary"] == {"holds": 1, "does not hold": 0, "not answered": 0}
    assert completed["questions"][0]["findings"]["usage"] == {"EUW1-ApiGatewayMessage": 3010.0}
    (asked,) = aws.named("get_cost_and_usage")
    assert asked["TimePeriod"] == {"Start": "2026-11-29", "End": "2026-11-30"}
    assert {"Dimensions": {"Key": "REGION", "Values": ["eu-west-1"]}} in asked["Filter"]["And"]


@pytest.mark.parametrize(("region", "asked"), [("eu-west-1", "us-east-1"), ("cn-north-1", "cn-northwest-1")])
def test_the_bill_is_read_in_the_partition_of_the_stack(region: str, asked: str) -> None:
    aws = cost("3010")
    bill.completed(document(region=region), aws.client)
    assert aws.regions == [asked]


def test_where_there_is_no_cost_explorer_that_is_said() -> None:
    with pytest.raises(ProbeError, match="no Cost Explorer for us-gov-west-1"):
        bill.completed(document(region="us-gov-west-1"), cost("3010").client)


def with_findings(**changes: Any) -> dict[str, Any]:
    run = document()
    run["questions"][0]["findings"].update(changes)
    return run


@pytest.mark.parametrize(
    "run",
    [
        document(region=None),
        document(region=3),
        document(questions=[]),
        document(questions=None),
        document(questions=[3]),
        document(questions=[{"number": 15}]),
        document(questions=[{"number": 15, "findings": None, "verdict": "not answered"}]),
        document(questions=[*document()["questions"], {"number": 16}]),
        with_findings(day="yesterday"),
        with_findings(day=3),
        with_findings(message_units="many"),
        with_findings(throttled_units=None),
        {"questions": [{"number": 15}]},
        {},
        [],
        None,
        "text",
        3,
    ],
)
def test_what_is_no_run_on_aws_is_not_completed(run: Any) -> None:
    with pytest.raises(ProbeError, match="no run on AWS"):
        bill.completed(run, cost("1").client)
