"""The one table of exceptions and statuses, and how a failed message reaches its sender."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from emissary_lib.protocol.auth.macs import ClockSkewError, MissingCredentialsError, WrongHostError
from emissary_lib.protocol.errors import AuthenticationError, ConfigError, EmissaryError, FrameError
from functions.common import errors
from functions.common.responses import MessageNotHandledError, Response, status_of, to_gateway
from functions.connect import app as connect_app
from functions.default import app as default_app
from functions.disconnect import app as disconnect_app
from tests.helpers.events import load_event

STATUSES = [
    (errors.SubprotocolError("x"), 400),
    (errors.EventError("x"), 400),
    (FrameError("x"), 400),
    (MissingCredentialsError("X-Emissary-Mac", "is absent"), 401),
    (AuthenticationError("x"), 403),
    (ClockSkewError(1000.0), 403),
    (WrongHostError("x"), 421),
    (errors.NonceBurntError("x"), 409),
    (errors.ClaimRefusedError("x"), 409),
    (errors.PeerBusyError("x"), 429),
    (errors.StoreError("x"), 503),
    (errors.LaunchError("x"), 503),
    (errors.PeerUnreachableError("x"), 502),
    (ConfigError("x"), 500),
    (EmissaryError("x"), 500),
    (ZeroDivisionError("x"), 500),
]


def failing(exc: Exception) -> Any:
    def route(_event: Mapping[str, Any]) -> None:
        raise exc

    return route


@pytest.mark.parametrize(("exc", "status"), STATUSES, ids=lambda value: type(value).__name__)
def test_every_exception_has_its_status(exc: Exception, status: int) -> None:
    assert status_of(exc) == status
    assert to_gateway(failing(exc))({}, None) == {"statusCode": status}


@pytest.mark.parametrize(("exc", "status"), STATUSES, ids=lambda value: type(value).__name__)
def test_on_default_what_sending_again_may_heal_fails_the_invocation(exc: Exception, status: int) -> None:
    handler = to_gateway(failing(exc), tell_sender=True)
    if status < 429:
        assert handler({}, None) == {"statusCode": status}
    else:
        with pytest.raises(MessageNotHandledError, match=type(exc).__name__) as caught:
            handler({}, None)
        assert caught.value.__suppress_context__, "Lambda would log the cause a second time"


def test_success_is_200_with_headers_where_there_are_some() -> None:
    assert to_gateway(lambda event: None)({}, None) == {"statusCode": 200}
    expected: Response = {"statusCode": 200, "headers": {"A": "b"}}
    assert to_gateway(lambda event: {"A": "b"})({}, None) == expected


def test_a_refusal_is_one_warning_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="emissary"):
        to_gateway(failing(AuthenticationError("the cause")))(load_event("connect_dialer"), None)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "request refused")
    fields = vars(record)
    assert (fields["cause"], fields["status"], fields["route"]) == ("the cause", 403, "$connect")
    assert record.exc_info is None


def test_a_bug_is_one_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="emissary"):
        to_gateway(failing(ZeroDivisionError("x")))({}, None)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None


@pytest.mark.parametrize("event", [{}, {"requestContext": None}, {"requestContext": {}}, {"version": 2}])
def test_an_event_of_something_else_is_answered_400(event: dict[str, Any]) -> None:
    for app in (connect_app, default_app, disconnect_app):
        make: Any = app.make_handler
        assert make(lambda event: None)(event, None) == {"statusCode": 400}
