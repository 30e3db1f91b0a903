"""The handler: it always answers, and an event that it cannot use is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_lib.protocol.wire.base64 import encode_unpadded
from functions.relay.app import KEEP_ALIVE, lambda_handler
from tests.helpers.events import RELAY_TOKEN, RESUME_TOKEN, load_event


class Context:
    """Lambda's context with some time left."""

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.mark.parametrize(
    "change", [{"version": 1}, {"session": "x"}, {"target": None}, {"relay_token": "short"}, {}]
)
def test_event_that_cannot_be_used_is_answered_and_not_logged(
    change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    # The last event is a good one, but this process has none of the relay's settings.
    caplog.set_level("DEBUG")
    assert lambda_handler({**load_event("relay_start"), **change}, Context()) == {"statusCode": 500}
    assert "the relay could not begin" in caplog.text
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    for token in (RELAY_TOKEN, RESUME_TOKEN):
        assert encode_unpadded(token) not in logged
        assert repr(token)[2:-1] not in logged


def test_keep_alive_is_answered_at_once_and_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    # This process has none of the relay's settings: whatever did more than return would fail.
    caplog.set_level("DEBUG")
    assert lambda_handler({"emissary": "keep-alive"}, Context()) == {"statusCode": 204}
    assert caplog.records == []


def test_event_that_only_holds_a_keep_alive_is_not_one() -> None:
    assert lambda_handler({**load_event("relay_start"), **KEEP_ALIVE}, Context()) == {"statusCode": 500}
