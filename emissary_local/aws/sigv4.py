"""Checks AWS Signature Version 4 on a request, independently of the SDK that made it.

Source: AWS IAM User Guide, "Create a signed AWS API request". Only the ``Authorization`` header form is
known (no presigned URLs), only whole payloads (no ``UNSIGNED-PAYLOAD``, no chunks): the services the local
cloud stands in for take no other.
"""

from __future__ import annotations

import calendar
import functools
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from emissary_local.errors import LocalCloudError

ALGORITHM: Final = "AWS4-HMAC-SHA256"

#: How far a request's date may be from the service's clock, in seconds.
#:
#: Source: AWS IAM User Guide, "Troubleshoot signed requests": within five minutes.
MAX_SKEW: Final = 300.0

_SPACES: Final = re.compile(r" {2,}")
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the verifier knows about one access key.

    Attributes:
        access_key_id: The public half, as it stands in the ``Authorization`` header.
        secret_access_key: The secret half; never shown in a ``repr``.
        session_token: The token that must come, signed, with temporary credentials; None for a key
            without one.
        identity: Whose key it is; a Lambda function's logical id in the local cloud.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    identity: str


#: From an access key id to its credentials, or None when there is no such key.
CredentialsLookup = Callable[[str], Credentials | None]


class SignatureError(LocalCloudError):
    """A request is unsigned, wrongly signed, or signed too long ago.

    Attributes:
        code: AWS's name of the error, as in ``x-amzn-ErrorType`` or ``__type``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Authorization:
    access_key_id: str
    scope: str
    signed_headers: tuple[str, ...]
    signature: str


def verify(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: CredentialsLookup,
    now: float,
    service: str,
    region: str,
) -> str:
    """Check a request's signature and say who made it.

    Args:
        method: HTTP method, upper case.
        path: The path exactly as it stood in the request line, still percent-encoded. Every service but
            S3 signs that path encoded once more, so ``%3D`` is signed as ``%253D``.
        query: The part behind ``?``, exactly as sent; empty when there is none.
        headers: The request's headers; names in any case. A multi-valued mapping whose ``items()``
            repeats a name is understood.
        body: The whole payload.
        credentials: Looks up the access key.
        now: The service's clock, in seconds since 1970.
        service: The name in the credential scope: ``execute-api``, ``dynamodb`` or ``lambda``.
        region: The region in the credential scope.

    Returns:
        The identity that the credentials belong to.

    Raises:
        SignatureError: If anything is missing, unknown, too old or does not match; ``code`` tells which.
            The message never contains a secret or a signature.
    """
    values = _collect(headers)
    authorization = _parse(values.get("authorization", ""))
    date = values.get("x-amz-date", "")
    if not _DATE.fullmatch(date):
        raise SignatureError(
            "IncompleteSignatureException", "X-Amz-Date is missing or not like 20261122T101500Z."
        )
    known = credentials(authorization.access_key_id)
    if known is None:
        raise SignatureError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    _check_scope(authorization.scope, date, service, region)
    _check_clock(date, now)
    _check_signed_headers(authorization.signed_headers, values)
    _check_token(known, values)
    payload_hash = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(
        values.get("x-amz-content-sha256", payload_hash).encode(), payload_hash.encode()
    ):
        raise SignatureError(
            "InvalidSignatureException", "X-Amz-Content-Sha256 is not the SHA-256 of the payload."
        )
    canonical = canonical_request(method, path, query, values, authorization.signed_headers, payload_hash)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{ALGORITHM}\n{date}\n{authorization.scope}\n{digest}"
    key = _signing_key(known.secret_access_key, date[:8], region, service)
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), authorization.signature.encode()):
        raise SignatureError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS "
            "Secret Access Key and signing method. Consult the service documentation for details.",
        )
    return known.identity


def canonical_request(
    method: str, path: str, query: str, values: Mapping[str, str], signed: Iterable[str], payload_hash: str
) -> str:
    """The text whose hash is signed.

    Args:
        method: HTTP method.
        path: Path as sent.
        query: Query string as sent.
        values: Headers with lower-case names and trimmed values, repeated ones joined by commas.
        signed: Names of the signed headers, in the order in which they were declared.
        payload_hash: Hexadecimal SHA-256 of the payload.

    Returns:
        The canonical request of the AWS IAM User Guide.
    """
    names = list(signed)
    lines = [method, quote(_without_dots(path), safe="/~"), _canonical_query(query)]
    lines += [f"{name}:{values[name]}" for name in names]
    return "\n".join([*lines, "", ";".join(names), payload_hash])


def _collect(headers: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        text = _SPACES.sub(" ", value.strip())
        values[key] = f"{values[key]},{text}" if key in values else text
    return values


def _parse(header: str) -> _Authorization:
    if not header:
        raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise SignatureError(
            "IncompleteSignatureException", f"The Authorization header must begin with {ALGORITHM}."
        )
    parts: dict[str, str] = {}
    for item in rest.split(","):
        name, _, value = item.strip().partition("=")
        parts[name] = value
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not parts.get(name)]
    if missing:
        raise SignatureError(
            "IncompleteSignatureException", f"Authorization header requires {' and '.join(missing)}."
        )
    access_key_id, _, scope = parts["Credential"].partition("/")
    signed = tuple(parts["SignedHeaders"].split(";"))
    return _Authorization(access_key_id, scope, signed, parts["Signature"])


def _check_scope(scope: str, date: str, service: str, region: str) -> None:
    expected = f"{date[:8]}/{region}/{service}/aws4_request"
    if scope != expected:
        raise SignatureError(
            "InvalidSignatureException", f"Credential should be scoped to {expected}, not {scope}."
        )


def _check_clock(date: str, now: float) -> None:
    try:
        signed_at = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError as exc:
        raise SignatureError("IncompleteSignatureException", f"X-Amz-Date {date} is no date.") from exc
    if abs(now - signed_at) > MAX_SKEW:
        word = "expired" if signed_at < now else "not yet current"
        clock = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        raise SignatureError(
            "InvalidSignatureException",
            f"Signature {word}: {date} is more than {MAX_SKEW:.0f} s from the service's clock, {clock}.",
        )


def _check_signed_headers(signed: tuple[str, ...], values: Mapping[str, str]) -> None:
    # Every x-amz header must be covered: else the session token, or DynamoDB's operation name in
    # x-amz-target, could be changed on the way.
    required = {"host", *(name for name in values if name.startswith("x-amz-"))}
    unsigned = sorted(required.difference(signed))
    absent = sorted(set(signed).difference(values))
    if unsigned or absent or list(signed) != sorted(set(signed)):
        raise SignatureError(
            "InvalidSignatureException",
            f"SignedHeaders must be sorted, must be sent (absent: {', '.join(absent) or 'none'}) and must "
            f"cover host and every x-amz- header (unsigned: {', '.join(unsigned) or 'none'}).",
        )


def _check_token(known: Credentials, values: Mapping[str, str]) -> None:
    sent = values.get("x-amz-security-token", "")
    if not hmac.compare_digest(sent.encode(), (known.session_token or "").encode()):
        raise SignatureError(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    tail = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + tail


def _canonical_query(query: str) -> str:
    pairs: list[tuple[str, str]] = []
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        pairs.append(
            (quote(unquote_to_bytes(name), safe="-_.~"), quote(unquote_to_bytes(value), safe="-_.~"))
        )
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


@functools.lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
