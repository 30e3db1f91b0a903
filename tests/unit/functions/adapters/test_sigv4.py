"""The signer: AWS's published vectors, botocore's own signer for everything else, and who signs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.errors import ConfigError
from functions.common.adapters.sigv4 import Credentials, Signer, environment_credentials

#: Of AWS's test suite: credentials, moment, region, service.
SUITE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
MOMENT = 1_440_938_160.0
HOST = {"Host": "example.amazonaws.com"}


@pytest.mark.parametrize(
    ("name", "method", "headers", "body", "signed", "signature"),
    [
        (
            "get-vanilla", "GET", {}, b"", "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "post-vanilla", "POST", {}, b"", "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "post-header-key-sort", "POST", {"My-Header1": "value1"}, b"", "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "post-x-www-form-urlencoded", "POST", {"Content-Type": "application/x-www-form-urlencoded"},
            b"Param1=value1", "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)  # fmt: skip
def test_aws_s_vectors(
    name: str, method: str, headers: dict[str, str], body: bytes, signed: str, signature: str
) -> None:
    """Source: AWS Signature Version 4 test suite (``aws-sig-v4-test-suite``), by the names given here."""
    signer = Signer("service", "us-east-1", SUITE)
    result = signer.sign(method, "/", {**HOST, **headers}, body, MOMENT)
    assert result["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
        f" SignedHeaders={signed}, Signature={signature}"
    ), name
    assert result["X-Amz-Date"] == "20150830T123600Z"


TOKENS = st.text("abcXYZ019-_", min_size=1, max_size=12)
#: What is left as it is in a path, escaped bytes, and what is only escaped where it is signed.
SEGMENTS = st.lists(
    st.one_of(st.sampled_from("aZ9-_~"), st.just("%3D"), st.just("%2F"), st.sampled_from("=:@+$&,;!*'()")),
    min_size=1,
).map("".join)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(
    method=st.sampled_from(["POST", "DELETE", "GET"]),
    segments=st.lists(SEGMENTS, max_size=5),
    headers=st.dictionaries(TOKENS.map("X-Extra-{}".format), VALUES, max_size=4),
    body=st.binary(max_size=200),
    credentials=st.builds(Credentials, TOKENS, VALUES, st.one_of(st.just(""), VALUES)),
    region=TOKENS,
    service=TOKENS,
    now=st.integers(0, 2**32).map(float),
)
def test_what_is_signed_is_what_the_sdk_signs(
    method: str,
    segments: list[str],
    headers: dict[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str,
    now: float,
) -> None:
    path = "/" + "/".join(segments)
    ours = Signer(service, region, credentials).sign(
        method, path, {"Host": "host.example:8443", **_distinct(headers)}, body, now
    )
    assert ours == _as_the_sdk(method, path, _distinct(headers), body, credentials, region, service, now)


def _distinct(headers: dict[str, str]) -> dict[str, str]:
    """None twice in another case, which no request of ours has."""
    return dict({name.lower(): (name, value) for name, value in headers.items()}.values())


def _as_the_sdk(
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str,
    now: float,
) -> dict[str, str]:
    access, secret, token = credentials
    signer: Any = SigV4Auth(BotocoreCredentials(access, secret, token or None), service, region)
    request = AWSRequest(method, "https://host.example:8443" + path, headers=headers, data=body)
    # As its add_auth does, at a moment that is given.
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    request.context["timestamp"] = date
    request.headers["X-Amz-Date"] = date
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signed = signer.signed_headers(signer.headers_to_sign(request))
    shown = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={signed}, Signature={signature}"
    )
    return {"Host": "host.example:8443", **dict(request.headers.items()), "Authorization": shown}


def test_the_key_of_a_day_does_not_sign_the_next() -> None:
    kept, midnight = Signer("dynamodb", "eu-central-1", SUITE), 86_400.0 * 20_000
    for now in (midnight - 1, midnight, midnight - 1):
        fresh = Signer("dynamodb", "eu-central-1", SUITE)
        assert kept.sign("POST", "/", HOST, b"", now) == fresh.sign("POST", "/", HOST, b"", now)


def test_the_environments_credentials_sign() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    assert environment_credentials(environ) == Credentials("id", "secret", "token")
    del environ["AWS_SESSION_TOKEN"]
    assert environment_credentials(environ) == Credentials("id", "secret")


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_without_credentials_it_says_which_variables_lack(missing: str) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"} | {missing: ""}
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"):
        environment_credentials(environ)


def test_credentials_show_no_secret() -> None:
    shown = repr(Credentials("id", "hush secret", "hush token"))
    assert "id" in shown
    assert "hush" not in shown
