"""``@connections``: posts to the WebSockets of one stage.

Not boto3's client: it needs several times the CPU of a signed request on a kept connection, and this is all
that ``$default`` does in its hot path.

Source: API Gateway developer guide, "Use @connections commands in your backend service"; Signature Version 4
as in botocore, which signs here.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from emissary_lib.bridge.callbacks import redirected_endpoint
from emissary_lib.protocol.errors import ConfigError
from functions.common.adapters.pool import Connect, ConnectionPool, Reply
from functions.common.errors import (
    MessageTooLargeError,
    PeerBusyError,
    PeerError,
    PeerGoneError,
    PeerRefusedError,
    PeerUnreachableError,
)

#: Longest wait for the gateway's answer, in seconds. Posts to half-dead connections have been seen to hang.
READ_TIMEOUT: Final = 3.0

_SERVICE: Final = "execute-api"
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def callback_endpoint(domain: str, stage: str, environ: Mapping[str, str]) -> str:
    """Where ``@connections`` is: at the event's domain and stage, unless the SDK's variable redirects it."""
    return redirected_endpoint(environ) or f"https://{domain}/{stage}"


def trust(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """TLS settings that check the server against ``AWS_CA_BUNDLE``, or the system's authorities.

    OpenSSL itself reads ``SSL_CERT_FILE``. Takes some 20 ms of CPU: make one for each environment.
    """
    return ssl.create_default_context(cafile=environ.get("AWS_CA_BUNDLE") or None)


class PostToConnection:
    """:class:`ports.PeerLink` over the real API. Safe to use from several threads.

    Args:
        endpoint: ``https://domain/stage``; a local cloud may have ``http``.
        region: The API's region.
        credentials: A botocore ``Credentials``.
        timeout: Longest wait for an answer, in seconds; connecting has a limit of its own.
        tls: TLS settings; :func:`trust` if not given.
        connect: Makes the TCP connections.

    Raises:
        ConfigError: If the endpoint is no http or https URL.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        region: str,
        credentials: Any,
        timeout: float = READ_TIMEOUT,
        tls: ssl.SSLContext | None = None,
        connect: Connect = socket.create_connection,
    ) -> None:
        url = urlsplit(endpoint)
        if url.scheme not in _DEFAULT_PORTS or not url.hostname:
            raise ConfigError(f"{endpoint!r} is no callback endpoint; want https://domain/stage")
        secure = url.scheme == "https"
        self._origin = f"{url.scheme}://{url.netloc}"
        self._base = f"{url.path.rstrip('/')}/@connections/"
        self._auth = SigV4Auth(credentials, _SERVICE, region)
        self._connections = ConnectionPool(
            url.hostname,
            url.port or _DEFAULT_PORTS[url.scheme],
            tls=(tls or trust()) if secure else None,
            timeout=timeout,
            connect=connect,
        )

    def post(self, connection_id: str, message: bytes) -> None:
        """See :meth:`ports.PeerLink.post`."""
        self._call("POST", connection_id, message)

    def delete(self, connection_id: str) -> None:
        """See :meth:`ports.PeerLink.delete`."""
        try:
            self._call("DELETE", connection_id, b"")
        except PeerGoneError:
            pass

    def close(self) -> None:
        """Close the kept connections; a later post makes new ones."""
        self._connections.close()

    def _call(self, method: str, connection_id: str, body: bytes) -> None:
        # Ids end in "=", which must be escaped in the path, and once more in what is signed (botocore does).
        path = self._base + quote(connection_id, safe="")
        request = AWSRequest(method, self._origin + path, data=body)
        self._auth.add_auth(request)
        try:
            reply = self._connections.request(method, path, body, dict(request.headers.items()))
        except (OSError, http.client.HTTPException) as exc:
            raise PeerUnreachableError(
                f"{method} @connections at {self._origin} was not answered: {type(exc).__name__}: {exc}"
            ) from exc
        if not 200 <= reply.status < 300:
            raise _refusal(method, reply, len(body))


def _refusal(method: str, reply: Reply, size: int) -> PeerError:
    kind = reply.headers.get("x-amzn-ErrorType", "").partition(":")[0] or "no error type"
    text = f"{method} @connections: status {reply.status}, {kind}"
    if reply.status == 410:
        return PeerGoneError(text)
    if reply.status == 429:
        return PeerBusyError(text)
    if reply.status == 413:
        return MessageTooLargeError(
            f"{text}: the gateway takes no message of {size} bytes; API Gateway's limit is 128 KB, so see "
            "what else answers at the callback address, and what its limit is"
        )
    return PeerRefusedError(text) if 400 <= reply.status < 500 else PeerUnreachableError(text)
