"""AWS for an operator: the servers of the adapters' tests, found by the SDK's own variables."""

from __future__ import annotations

import pytest

from tests.unit.functions.adapters.conftest import Dynamo, dynamo, dynamo_server, real

__all__ = ["aws", "dynamo", "dynamo_server", "real"]


@pytest.fixture
def aws(dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> Dynamo:
    """An account that boto3 finds by itself, with an empty table of sessions."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "example",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": dynamo.url,
    }.items():
        monkeypatch.setenv(name, value)
    return dynamo
