"""error_frames: the texts that API Gateway's users quote, byte by byte."""

from __future__ import annotations

import json

import pytest

from emissary_local.gateway.error_frames import (
    ENDPOINT_TIMED_OUT,
    FORBIDDEN,
    INTERNAL_SERVER_ERROR,
    error_frame,
    refused_upgrade,
)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            INTERNAL_SERVER_ERROR,
            b'{"message": "Internal server error", "connectionId":"C=", "requestId":"R="}',
        ),
        (
            ENDPOINT_TIMED_OUT,
            b'{"message": "Endpoint request timed out", "connectionId":"C=", "requestId":"R="}',
        ),
        (FORBIDDEN, b'{"message": "Forbidden", "connectionId":"C=", "requestId":"R="}'),
    ],
)
def test_the_frame_is_aws_own_spacing_included(message: str, text: bytes) -> None:
    assert error_frame(message, "C=", "R=") == text


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, "UnauthorizedException", "Unauthorized"),
        (403, "ForbiddenException", "Forbidden"),
        (409, "ConflictException", "Conflict"),
        (429, "TooManyRequestsException", "Too Many Requests"),
        (504, "GatewayTimeoutException", "Endpoint request timed out"),
        (418, "BadRequestException", "Bad Request"),
        (599, "InternalServerErrorException", "Internal server error"),
    ],
)
def test_every_status_has_a_type_and_a_json_body(status: int, kind: str, message: str) -> None:
    found, body = refused_upgrade(status, "C=", "R=")
    assert found == kind
    assert json.loads(body) == {"message": message, "connectionId": "C=", "requestId": "R="}


def test_a_refusal_without_a_stage_to_ask_names_no_connection() -> None:
    assert refused_upgrade(403, None, "R=") == ("ForbiddenException", b'{"message":"Forbidden"}')
