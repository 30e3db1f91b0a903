"""Signature Version 4: what makes a request one of ours, for AWS.

A signer of our own: it is what the standard library's ``hmac`` leaves to do. botocore's costs a function half
of its start, for all that comes with it; of the small ones on the package index AWS's own (aws-sdk-signers)
wants a Python newer than the library's lowest, and the others are months old, and one person's. What botocore
signs is what this has to give, and tests hold the two together.

Source: AWS IAM user guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from emissary_lib.protocol.errors import ConfigError

ALGORITHM: Final = "AWS4-HMAC-SHA256"

_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Credentials(NamedTuple):
    """Who signs.

    Attributes:
        access_key_id: Goes along with each request.
        secret_access_key: Signs, and never leaves.
        session_token: Goes along with credentials that run out, as a function's do; else empty.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id!r})"


def environment_credentials(environ: Mapping[str, str]) -> Credentials:
    """The function's own credentials, which Lambda keeps in its environment.

    They outlive the execution environment, so they are never renewed: Lambda ends it before. (With SnapStart
    they would be elsewhere, and would be.)

    Raises:
        ConfigError: There are none.
    """
    access_key_id, secret = (environ.get(name, "") for name in _VARIABLES)
    if not access_key_id or not secret:
        raise ConfigError(f"{' and '.join(_VARIABLES)} are not set; Lambda sets them, and so must others")
    return Credentials(access_key_id, secret, environ.get("AWS_SESSION_TOKEN", ""))


class Signer:
    """Signs requests to one service in one region. Safe to use from several threads.

    Args:
        service: Its name in signatures, such as ``dynamodb``.
        region: Such as ``eu-central-1``.
        credentials: Who signs.
    """

    def __init__(self, service: str, region: str, credentials: Credentials) -> None:
        self._service = service
        self._region = region
        self._credentials = credentials
        # A day's key takes four of a signature's five HMACs.
        self._key: tuple[str, bytes] = ("", b"")

    def sign(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> dict[str, str]:
        """The headers that the request has to be sent with: those given, and what proves who sent it.

        Args:
            method: ``POST`` and the like.
            path: As it goes out, with what it must not hold escaped; not empty, without a query, an empty
                segment, ``.`` or ``..``.
            headers: With ``Host``. Each is signed; none is ``Authorization``, or begins with ``X-Amz-Date``
                or ``X-Amz-Security-Token``. Values have no white space around them, nor two spaces in a row.
            body: What follows.
            now: Seconds since 1970 UTC. AWS takes a signature for five minutes.
        """
        credentials = self._credentials
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        whole = {**headers, "X-Amz-Date": date}
        if credentials.session_token:
            whole["X-Amz-Security-Token"] = credentials.session_token
        named = sorted((name.lower(), value) for name, value in whole.items())
        signed = ";".join(name for name, _ in named)
        canonical = "\n".join(
            (
                method,
                quote(path, safe="/~"),  # once more: only S3 signs a path as it is
                "",
                *(f"{name}:{value}" for name, value in named),
                "",
                signed,
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{date[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = self._signing_key(date[:8])
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        whole["Authorization"] = (
            f"{ALGORITHM} Credential={credentials.access_key_id}/{scope},"
            f" SignedHeaders={signed}, Signature={signature}"
        )
        return whole

    def _signing_key(self, day: str) -> bytes:
        known, key = self._key
        if known == day:
            return key
        key = f"AWS4{self._credentials.secret_access_key}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = (day, key)
        return key
