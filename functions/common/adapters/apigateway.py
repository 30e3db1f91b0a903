"""``@connections``: posts to the WebSockets of one stage.

A request each, signed and on a kept connection: this is all that ``$default`` does in its hot path.

Source: API Gateway developer guide, "Use @connections commands in your backend service".
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from emissary_lib.bridge.callbacks import redirected_endpoint
from functions.common.adapters.endpoints import Origin
from functions.common.adapters.pool import Connect, ConnectionPool, Reply
from functions.common.adapters.sigv4 import Credentials, Signer
from functions.common.adapters.trust import trust
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


def callback_endpoint(domain: str, stage: str, environ: Mapping[str, str]) -> str:
    """Where ``@connections`` is: at the event's domain and stage, unless the SDK's variable redirects it."""
    return redirected_endpoint(environ) or f"https://{domain}/{stage}"


class PostToConnection:
    """:class:`ports.PeerLink` over the real API. Safe to use from several threads.

    Args:
        endpoint: ``https://domain/stage``; a local cloud may have ``http``.
        region: The API's region.
        credentials: Who signs.
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
        credentials: Credentials,
        timeout: float = READ_TIMEOUT,
        tls: ssl.SSLContext | None = None,
        connect: Connect = socket.create_connection,
    ) -> None:
        self._origin = origin = Origin(endpoint, "callback endpoint")
        self._signer = Signer(_SERVICE, region, credentials)
        self._connections = ConnectionPool(
            origin.host,
            origin.port,
            tls=(tls or trust()) if origin.secure else None,
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
        # Ids end in "=", which must be escaped in the path, and once more in what is signed.
        path = f"{self._origin.path}/@connections/{quote(connection_id, safe='')}"
        headers = self._signer.sign(method, path, {"Host": self._origin.authority}, body, time.time())
        try:
            reply = self._connections.request(method, path, body, headers)
        except (OSError, http.client.HTTPException) as exc:
            raise PeerUnreachableError(
                f"{method} @connections at {self._origin.url} was not answered: {type(exc).__name__}: {exc}"
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
