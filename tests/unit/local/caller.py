"""Somebody who calls the endpoint of DynamoDB and Lambda with an SDK."""

from __future__ import annotations

from typing import Any, cast

import boto3
from botocore.config import Config

from emissary_local.lambda_.variables import Identities

IDENTITIES = Identities.draw(["ClientRole"])


def client_of(url: str, service: str, *, attempts: int = 1, **config: Any) -> Any:
    """A client of ``service`` at ``url`` that signs as ``ClientRole``; the rest is botocore's ``Config``."""
    credentials = IDENTITIES.by_function["ClientRole"]
    return cast(Any, boto3).client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token,
        config=Config(retries={"total_max_attempts": attempts}, **config),
    )
