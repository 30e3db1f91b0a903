"""integration: what a function's answer, or its absence, means to API Gateway."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from emissary_local.gateway.integration import Answer, IntegrationError, Integrations
from emissary_local.limits import Limits
from emissary_local.ports import InvocationResult, InvocationStatus
from emissary_local.template.specs import Route
from tests.helpers.virtual_time import run_ahead


class Scripted:
    def __init__(self, result: InvocationResult | Exception | None) -> None:
        self.result = result
        self.cancelled = False

    async def invoke(self, function: str, payload: bytes) -> InvocationResult:
        if self.result is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if isinstance(self.result, Exception):
            raise self.result
        assert self.result is not None
        return self.result

    async def enqueue(self, function: str, payload: bytes) -> InvocationResult:
        raise AssertionError("not used")


def call(result: InvocationResult | Exception | None, route: str = "$default", **limits: Any) -> Answer:
    async def run() -> Answer:
        integrations = Integrations({"$default": Route("Default")}, Scripted(result), Limits(**limits))
        try:
            return await integrations.call(route, b"{}")
        finally:
            await integrations.close()

    return asyncio.run(run())


def ok(payload: bytes) -> InvocationResult:
    return InvocationResult(InvocationStatus.OK, payload)


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'{"statusCode":200}', Answer(200)),
        (b'{"statusCode":"403","headers":null}', Answer(403)),
        (
            b'{"statusCode":200,"headers":{"sec-websocket-PROTOCOL":"emissary.v2","X":"y"}}',
            Answer(200, "emissary.v2"),
        ),
        (b'{"statusCode":200,"body":"ignored"}', Answer(200)),
    ],
)
def test_a_response_object_gives_its_status_and_subprotocol(payload: bytes, answer: Answer) -> None:
    assert call(ok(payload)) == answer


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"{}", b'"200"', b'{"statusCode":null}', b"\xff"])
def test_anything_else_is_a_failure(payload: bytes) -> None:
    with pytest.raises(IntegrationError, match="no response object") as caught:
        call(ok(payload))
    assert (caught.value.status, caught.value.frame_message) == (502, "Internal server error")


@pytest.mark.parametrize(
    ("status", "http"),
    [
        (InvocationStatus.FUNCTION_ERROR, 502),
        (InvocationStatus.TIMEOUT, 502),
        (InvocationStatus.THROTTLED, 429),
    ],
)
def test_a_failed_invocation_is_named(status: InvocationStatus, http: int) -> None:
    with pytest.raises(IntegrationError, match="Default") as caught:
        call(InvocationResult(status))
    assert (caught.value.status, caught.value.frame_message) == (http, "Internal server error")


def test_a_route_without_a_function_is_forbidden() -> None:
    with pytest.raises(IntegrationError, match=r"no route \$connect") as caught:
        call(ok(b"{}"), "$connect")
    assert (caught.value.status, caught.value.frame_message) == (403, "Forbidden")


def test_past_the_integration_timeout_the_function_runs_on_until_close() -> None:
    async def run() -> bool:
        scripted = Scripted(None)
        integrations = Integrations({"$default": Route("Default")}, scripted, Limits())
        with pytest.raises(IntegrationError) as caught:
            await integrations.call("$default", b"{}")
        assert (caught.value.status, caught.value.frame_message) == (504, "Endpoint request timed out")
        assert not scripted.cancelled
        await integrations.close()
        return scripted.cancelled

    assert run_ahead(run())


def test_a_broken_invoker_is_logged_and_answered_502(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(IntegrationError) as caught:
        call(RuntimeError("fork server died"))
    assert caught.value.status == 502
    assert "fork server died" in caplog.text
