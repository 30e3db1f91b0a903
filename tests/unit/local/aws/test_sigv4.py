"""sigv4: what botocore's own signer signs is accepted, and nothing that was changed afterwards is."""

from __future__ import annotations

import calendar
import hashlib
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from emissary_local.aws.sigv4 import Credentials, SignatureError, canonical_request, verify

KNOWN = Credentials(
    "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a+token/with=marks==", "RelayFunction"
)
BODY = b'{"hello":"world"}'

REQUESTS = {
    "post": ("execute-api", "POST", "http://127.0.0.1:8080/prod/@connections/L0SM9cOFvHcCIhw%3D", {}),
    "query": ("execute-api", "GET", "http://127.0.0.1:8080/prod/x%20y?b=2&a=%2F%2B&a=1&empty=", {}),
    "dynamodb": (
        "dynamodb",
        "POST",
        "http://127.0.0.1:8000/",
        {"X-Amz-Target": "DynamoDB_20120810.PutItem", "Content-Type": "application/x-amz-json-1.0"},
    ),
    "lambda": (
        "lambda",
        "POST",
        "http://127.0.0.1:9000/2015-03-31/functions/"
        "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Arelay/invocations",
        {"X-Amz-Invocation-Type": "Event", "X-Amz-Odd": "  two   spaces "},
    ),
}


def lookup(access_key_id: str) -> Credentials | None:
    return KNOWN if access_key_id == KNOWN.access_key_id else None


def signed(name: str, *, secret: str = KNOWN.secret_access_key, token: str | None = KNOWN.session_token,
           key: str = KNOWN.access_key_id) -> dict[str, Any]:  # fmt: skip
    """The arguments of ``verify`` for a request as botocore signs and sends it."""
    service, method, url, extra = REQUESTS[name]
    request = AWSRequest(method=method, url=url, data=BODY, headers=extra)
    SigV4Auth(BotocoreCredentials(key, secret, token), service, "us-east-1").add_auth(request)
    headers = {**dict(request.headers.items()), "Host": url.split("/")[2]}
    path, _, query = url.split("/", 3)[3].partition("?")
    date = headers["X-Amz-Date"]
    now = calendar.timegm(
        (int(date[:4]), int(date[4:6]), int(date[6:8]), int(date[9:11]), int(date[11:13]), int(date[13:15]))
    )
    return {
        "method": method, "path": "/" + path, "query": query, "headers": headers, "body": BODY,
        "credentials": lookup, "now": float(now), "service": service, "region": "us-east-1",
    }  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_signed_by_botocore_is_accepted_and_its_owner_named(name: str) -> None:
    assert verify(**signed(name)) == "RelayFunction"


def test_the_canonical_request_is_the_one_in_the_aws_guide() -> None:
    """The worked example "get-vanilla-query-order-key-case" of AWS's Signature Version 4 test suite."""
    values = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    empty = hashlib.sha256(b"").hexdigest()
    text = canonical_request("GET", "/", "Param2=value2&Param1=value1", values, ("host", "x-amz-date"), empty)
    assert text == (
        "GET\n/\nParam1=value1&Param2=value2\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\n"
        "host;x-amz-date\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_the_guides_worked_signature_verifies() -> None:
    """Signature and keys of "get-vanilla-query-order-key-case", published by AWS."""
    known = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, "suite")
    headers = {
        "Host": "example.amazonaws.com",
        "X-Amz-Date": "20150830T123600Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    }
    now = calendar.timegm((2015, 8, 30, 12, 36, 0))
    who = verify(
        "GET", "/", "Param2=value2&Param1=value1", headers, b"", lambda _: known, now, "service", "us-east-1"
    )
    assert who == "suite"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path": "/prod/@connections/L0SM9cOFvHcCIhx%3D"},
        {"path": "/prod/@connections/L0SM9cOFvHcCIhw="},
        {"query": "a=1"},
        {"body": BODY + b" "},
        {"service": "dynamodb"},
        {"region": "eu-central-1"},
    ],
    ids=str,
)
def test_anything_changed_after_signing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(**{**signed("post"), **change})
    assert caught.value.code == "InvalidSignatureException"


@pytest.mark.parametrize(("drift", "fits"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_the_clock_may_be_five_minutes_off_and_no_more(drift: int, fits: bool) -> None:
    request = signed("post")
    request["now"] += drift
    if fits:
        assert verify(**request) == "RelayFunction"
    else:
        with pytest.raises(SignatureError, match="from the service's clock"):
            verify(**request)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"secret": "another"}, "InvalidSignatureException"),
        ({"token": "another"}, "UnrecognizedClientException"),
        ({"token": None}, "UnrecognizedClientException"),
        ({"key": "AKIDUNKNOWN"}, "UnrecognizedClientException"),
    ],
    ids=str,
)
def test_wrong_credentials_are_refused(arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(**signed("post", **arguments))
    assert caught.value.code == code
    assert KNOWN.secret_access_key not in str(caught.value)


def test_an_unsigned_x_amz_header_is_refused() -> None:
    """Otherwise DynamoDB's operation name could be swapped after signing."""
    request = signed("post")
    request["headers"]["X-Amz-Target"] = "DynamoDB_20120810.DeleteTable"
    with pytest.raises(SignatureError, match=r"unsigned: x-amz-target"):
        verify(**request)


def test_a_wrong_payload_hash_header_is_refused_even_if_signed() -> None:
    service, method, url, _ = REQUESTS["post"]
    request = AWSRequest(
        method=method, url=url, data=BODY, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    )
    SigV4Auth(BotocoreCredentials(KNOWN.access_key_id, KNOWN.secret_access_key, KNOWN.session_token), service,
              "us-east-1").add_auth(request)  # fmt: skip
    arguments = signed("post")
    arguments["headers"] = {**dict(request.headers.items()), "Host": "127.0.0.1:8080"}
    with pytest.raises(SignatureError, match="SHA-256 of the payload"):
        verify(**arguments)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "MissingAuthenticationTokenException"),
        ("Bearer x", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=a/b", "IncompleteSignatureException"),
    ],
)
def test_a_missing_or_cut_authorization_header_is_named(header: str | None, code: str) -> None:
    request = signed("post")
    del request["headers"]["Authorization"]
    if header:
        request["headers"]["Authorization"] = header
    with pytest.raises(SignatureError) as caught:
        verify(**request)
    assert caught.value.code == code


def test_credentials_do_not_show_their_secrets() -> None:
    assert KNOWN.secret_access_key not in repr(KNOWN)
    assert str(KNOWN.session_token) not in repr(KNOWN)
