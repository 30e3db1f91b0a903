"""The dialer's link: everything goes over one WebSocket, which it replaces when that is gone."""

from __future__ import annotations

import secrets
import time

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import error_from_status
from emissary_lib.exceptions import GatewayRefusedError
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import ConnectHeaders, ResumeHeaders, resume_mac
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.transport.websocket import connect


class ResumeUpgrade:
    """Connects a session anew (docs/protocol.md section 5.2).

    Args:
        endpoint: The gateway.
        key: The key of the session.
        session: The session id.
        resume_token: From OPENED.
    """

    def __init__(self, endpoint: Endpoint, key: Key, session: str, resume_token: bytes) -> None:
        self._endpoint = endpoint
        self._key = key
        self._session = session
        self._resume_token = resume_token

    def connect(self, epoch: int, deadline: Deadline) -> MessageTransport:
        """One attempt.

        Raises:
            EmissaryError: As :func:`emissary_lib.transport.websocket.connect`; a refusal of our credentials
                as :func:`emissary_lib.client.handshake.error_from_status` has it.
            TimeoutError: The deadline passed.
        """
        nonce, date, host = secrets.token_bytes(32), http_date(time.time()), self._endpoint.host
        mac = resume_mac(self._key, date=date, nonce=nonce, host=host, session=self._session, epoch=epoch)
        headers = {
            **ConnectHeaders(self._key.key_id, date, nonce, mac).to_headers(),
            **ResumeHeaders(self._session, self._resume_token, epoch).to_headers(),
        }
        endpoint = self._endpoint
        try:
            return connect(endpoint.url, headers=headers, deadline=deadline, ssl_context=endpoint.ssl_context)
        except GatewayRefusedError as exc:
            meaning = error_from_status(exc, self._key)
            if meaning is exc:
                raise
            raise meaning from exc


class SocketLink:
    """See :class:`emissary_lib.tunnel.link.Link`; bridge and peer are both reached over the WebSocket."""

    def __init__(self, transport: MessageTransport, upgrade: ResumeUpgrade) -> None:
        self._transport = ReconnectingTransport(transport, upgrade.connect)

    def send(self, message: Outgoing) -> None:
        """Send over the newest WebSocket, whomever the message is for."""
        self._transport.send(message.text)

    def recv(self) -> str:
        """Wait for the next message on the newest WebSocket."""
        return self._transport.recv(None)

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        """Replace the WebSocket; the gateway's answers are as :meth:`ResumeUpgrade.connect` has them."""
        self._transport.reconnect(epoch, deadline)

    def drop(self) -> None:
        """End the WebSocket without a close frame; wakes :meth:`recv`."""
        self._transport.abort()

    def close(self) -> None:
        """Say goodbye, for good; also ends an attempt to reconnect that is under way."""
        self._transport.close()

    def release(self) -> None:
        """Give back the WebSocket's descriptor."""
        self._transport.release()
