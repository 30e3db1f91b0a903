"""What the dialer replaces its WebSocket with when that is gone."""

from __future__ import annotations

import os
import time

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import error_from_status
from emissary_lib.exceptions import ClockSkewError, GatewayRefusedError, LinkRefusedError
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import ConnectHeaders, ResumeHeaders, resume_mac
from emissary_lib.protocol.codes import Code
from emissary_lib.transport.backoff import may_be_the_gateways
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
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
            EmissaryError: As :func:`emissary_lib.transport.websocket.connect`.
            LinkRefusedError: Our credentials were refused, as
                :func:`emissary_lib.client.handshake.error_from_status` has it.
            TimeoutError: The deadline passed.
        """
        nonce, date, host = os.urandom(32), http_date(time.time()), self._endpoint.host
        mac = resume_mac(self._key, date=date, nonce=nonce, host=host, session=self._session, epoch=epoch)
        headers = {
            **ConnectHeaders(self._key.key_id, date, nonce, mac).to_headers(),
            **ResumeHeaders(self._session, self._resume_token, epoch).to_headers(),
        }
        endpoint = self._endpoint
        try:
            return connect(endpoint.url, headers=headers, deadline=deadline, ssl_context=endpoint.tls())
        except GatewayRefusedError as exc:
            meaning = error_from_status(exc, self._key, host)
            if meaning is exc:
                raise
            certain = isinstance(meaning, ClockSkewError) or not may_be_the_gateways(exc.http_status)
            raise LinkRefusedError(
                f"the session could not be resumed: {meaning}",
                code=Code.AUTHENTICATION_FAILED,
                certain=certain,
            ) from meaning
