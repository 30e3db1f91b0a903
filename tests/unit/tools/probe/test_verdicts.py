"""What each kind of finding says about an assumption: as AWS may answer, not as the local cloud does."""

from __future__ import annotations

from typing import Any, Final

import pytest

from emissary_lib.exceptions import LinkClosedError
from emissary_lib.transport.close_codes import Advice, advice
from functions.common.responses import STATUS
from functions.common.routes import disconnect
from tools.probe import verdicts
from tools.probe.experiments import STATUSES
from tools.probe.verdict import State, Verdict

FRAME: Final = '{"message": "Internal server error", "connectionId":"...", "requestId":"..."}'

CLOSED: Final = {"end": "closed 1001", "after_seconds": 601.0, "answered_at_the_end": None}
REFUSED_TIMEOUT: Final = (
    "An error occurred (ValidationException) when calling the UpdateFunctionConfiguration operation: "
    "1 validation error detected: Value '1800' at 'timeout' failed to satisfy constraint: "
    "Member must have value less than or equal to 900"
)

ALIVE: Final = {"end": None, "after_seconds": None, "answered_at_the_end": True}


def message_in(size: int, frame: int, otherwise: str | None = None) -> dict[str, Any]:
    return {"characters": size, "frame": frame, "seen": None if otherwise else size, "otherwise": otherwise}


def messages_in(*, long: str | None) -> Verdict:
    cases = [
        message_in(31_000, 31_000),
        message_in(62_000, 31_000, long),
        message_in(126_000, 31_000, long),
        message_in(131_073, 32_768, "closed 1009"),
    ]
    return verdicts.messages_in({"cases": cases})


def messages_out(received: int | None, post: str = "ok") -> Verdict:
    cases = [
        {"characters": size, "post": "ok", "received": size, "frames": 1, "otherwise": None}
        for size in (31_000, 62_000)
    ]
    last = {"characters": 126_000, "post": post, "received": received, "frames": 4, "otherwise": "silence"}
    return verdicts.messages_out({"cases": [*cases, last]})


def throttled(answered: int, frames: dict[str, int], end: str | None = None) -> Verdict:
    return verdicts.throttled({"sent": 200, "answered": answered, "error_frames": frames, "end": end})


def rate(**changes: Any) -> dict[str, Any]:
    case = {
        "size": 64, "taken": 50, "received": 50, "refusals": {}, "first_refused": None, "posts_a_second": 90,
    }  # fmt: skip
    return {**case, **changes}


def rates(**changes: Any) -> Verdict:
    return verdicts.rates({"not_reading": rate(**changes), "reading": rate(), "short": rate()})


def update(state: str = "UPDATE_COMPLETE", end: str | None = None, code: int | None = None) -> Verdict:
    return verdicts.update(
        {
            "update": state, "asked": 40, "answered": 39, "error_frames": {FRAME: 1},
            "end": end, "end_code": code, "seconds": 90.0,
        }
    )  # fmt: skip


def pings(pings: dict[str, Any], silent: dict[str, Any] = CLOSED, talks: dict[str, Any] = ALIVE) -> Verdict:
    each = {"pings": pings, "silent": silent, "talks": talks}
    return verdicts.pings({"watched_seconds": 700.0, "connections": each})


def timeout(answer: str) -> Verdict:
    return verdicts.longest_timeout({"seconds": 1800, "answer": answer})


def refusal(code: str, message: str) -> str:
    """As the SDK writes it."""
    return f"An error occurred ({code}) when calling the UpdateThis operation: {message}"


def access_log(answer: str) -> Verdict:
    return verdicts.access_log({"variables": ["x"], "answer": answer})


def conditions(put_item: str) -> Verdict:
    return verdicts.conditions({"put_item": put_item, "update_item": "item", "transact_write_items": "item"})


def whole_run_bill(quantity: float, *, refused: int = 600) -> Verdict:
    """Of a run with question 6: 180 messages were throttled, and 180 error frames said so."""
    found = {
        "day": "2026-11-29", "refused_connects": refused, "message_units": 3000, "throttled_units": 360,
        "bytes_out": 10, "usage": {"EUW1-ApiGatewayMessage": quantity},
    }  # fmt: skip
    return verdicts.bill(found)


def bill(**usage: float) -> Verdict:
    found = {"day": "2026-11-29", "refused_connects": 300, "message_units": 3000, "bytes_out": 10}
    return verdicts.bill({**found, "usage": {name.replace("_", "-"): each for name, each in usage.items()}})


def serial(**changes: int) -> Verdict:
    times = {"first_milliseconds": 40.0, "median_milliseconds": 11.0, "longest_milliseconds": 90.0}
    counts = {"taken": 100, "received": 100, "different": 100, "in_order": False}
    return verdicts.serial_posts({**counts, **times, **changes})


def names(ipv6: int) -> Verdict:
    each = {"ipv4": 3, "ipv6": ipv6}
    return verdicts.names({"name": True, "here": each, "function": each})


def deletion(code: int | None) -> Verdict:
    return verdicts.deletion(
        {"client": "closed 1000", "client_code": 1000, "disconnect_code": code, "disconnect_reason": "-"}
    )


def not_text(**changes: Any) -> Verdict:
    found = {"post": "ok", "received": "closed 1007", "intact": False, "sent_in": "closed 1003"}
    return verdicts.not_text({**found, **changes})


@pytest.mark.parametrize(
    "verdict",
    [
        messages_in(long=None),
        messages_out(126_000),
        not_text(),
        not_text(post="400 BadRequestException", received="silence"),
        verdicts.statuses({"statuses": {"401": 401, "503": 503}}),
        serial(),
        throttled(20, {FRAME: 180}),
        verdicts.failures({"fails": FRAME, "sleeps": FRAME, "after_seconds": 29.1}),
        names(ipv6=3),
        deletion(1000),
        pings(CLOSED),
        update(),
        update(end="closed 1001", code=1001),
        update(end="lost: reset"),
        update("UPDATE_ROLLBACK_COMPLETE", end="closed 1012", code=1012),
        rates(),
        rates(refusals={"429 LimitExceededException": 1}, first_refused=50),
        verdicts.conditions({"put_item": "item", "update_item": "item", "transact_write_items": "item"}),
        verdicts.metrics({"sum": 1.0, "after_seconds": 75}),
        bill(EUW1_ApiGatewayMessage=3010.0, EUW1_DataTransfer_Out_Bytes=0.04),
        whole_run_bill(2645.0),
        whole_run_bill(3005.0),
        timeout("ok"),
        access_log("ok"),
    ],
)
def test_what_is_as_assumed_holds(verdict: Verdict) -> None:
    assert verdict.state is State.HOLDS


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (messages_in(long="closed 1009"), "126,000 in frames of 31,000: closed 1009"),
        (messages_in(long="silence"), "62,000 in frames of 31,000: silence"),
        (messages_out(None, "413 PayloadTooLargeException"), "post: 413 PayloadTooLargeException"),
        (not_text(received="binary", intact=True), "then binary, the same bytes"),
        (verdicts.statuses({"statuses": {"401": 401, "409": 502}}), "409 became 502"),
        (serial(received=99, different=99), "100 taken, 99 received"),
        (serial(received=101), "101 received"),
        (throttled(40, {}, "closed 1008"), "then closed 1008"),
        (throttled(40, {FRAME: 100}, "silence"), "100 by {"),
        (throttled(20, {"Too many": 180}), "180 by Too many"),
        (verdicts.failures({"fails": FRAME, "sleeps": "silence", "after_seconds": 91.0}), "silence"),
        (names(ipv6=0), "AAAA records: 0 here, 0 in the function"),
        (deletion(1001), "$disconnect: 1001"),
        (deletion(1006), "$disconnect: 1006"),
        (pings(ALIVE), "pings: lived on"),
        (pings(CLOSED, talks=CLOSED), "messages do not keep a connection either"),
        (update(end="closed 1008", code=1008), "39 of 40 messages answered"),
        (rates(received=49), "50 taken, 49 received"),
        (rates(refusals={"410 GoneException": 1}, first_refused=50), "1 410 GoneException (first the 51.)"),
        (conditions("AccessDeniedException"), "put_item: AccessDeniedException"),
        (conditions("ConditionalCheckFailedException"), "put_item: ConditionalCheckFailedException"),
        (verdicts.metrics({"sum": 0.0, "after_seconds": 600}), "nothing after 600 s"),
        (bill(EUW1_ApiGatewayMessage=3310.0), "300 refused connects"),
        (whole_run_bill(3240.0), "what was throttled is not metered"),
        (whole_run_bill(3600.0), "what was throttled is metered"),
        (timeout(REFUSED_TIMEOUT), "1,800 s: An error occurred (ValidationException)"),
        (timeout(refusal("InvalidParameterValueException", "Timeout is too long")), "Timeout is too long"),
        (access_log(refusal("BadRequestException", "variables are not supported: [x]")), "supported: [x]"),
    ],
)
def test_what_is_otherwise_does_not_hold_and_is_shown(verdict: Verdict, said: str) -> None:
    assert verdict.state is State.FAILS
    assert said in verdict.why


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (throttled(200, {}), "nothing was throttled"),
        (verdicts.names({"name": False}), "an address for a name"),
        (deletion(None), "not called in time"),
        (pings(ALIVE, silent=ALIVE), "700 s are too short"),
        (update("UPDATE_ROLLBACK_COMPLETE"), "UPDATE_ROLLBACK_COMPLETE"),
        (
            verdicts.bill(
                {"day": "2026-11-29", "refused_connects": 300, "message_units": 3000, "bytes_out": 10}
            ),
            "3,000 units of messages if refused connects are free, 3,300 if they are metered",
        ),
        (bill(), "not complete yet"),
        (bill(EUW1_ApiGatewayMessage=90_000.0), "other WebSocket APIs"),
        (whole_run_bill(2000.0), "not complete yet"),
        (whole_run_bill(4000.0), "other WebSocket APIs"),
        (whole_run_bill(3000.0, refused=300), "too few refused connects"),
        (timeout(refusal("AccessDeniedException", "not authorized")), "another reason: An error occurred"),
        (
            timeout(refusal("ResourceConflictException", "an update of my-timeout is in progress")),
            "another reason",
        ),
        (timeout(refusal("ValidationException", "Value 'my-timeout' at 'functionName'")), "another reason"),
        (timeout("Read timeout on endpoint URL"), "another reason: Read timeout"),
        (access_log(refusal("BadRequestException", "CloudWatch Logs role ARN must be set")), "must be set"),
        (access_log(refusal("AccessDeniedException", "variable access")), "another reason"),
        (conditions("ProvisionedThroughputExceededException"), "another reason than the condition"),
        (conditions("no failure"), "another reason than the condition"),
        (messages_in(long="text: " + FRAME), "not about the length"),
        (messages_out(None, "500 InternalServerErrorException"), "another reason than the length"),
        (messages_out(None, "ReadTimeoutError"), "another reason than the length"),
    ],
)
def test_what_a_run_cannot_tell_is_not_answered(verdict: Verdict, said: str) -> None:
    assert verdict.state is State.OPEN
    assert said in verdict.why


def test_a_loss_is_what_disconnect_takes_for_one() -> None:
    assert verdicts.LOSSES == disconnect._LOST


def test_a_client_comes_back_at_once_after_what_the_probe_believes() -> None:
    assert {advice(LinkClosedError("closed", close_code=code)) for code in verdicts.COMES_BACK} == {
        Advice.AT_ONCE
    }


def test_every_status_that_connect_may_answer_is_asked_for() -> None:
    assert set(STATUS.values()) <= set(STATUSES)
