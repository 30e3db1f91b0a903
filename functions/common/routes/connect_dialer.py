"""A new dialer connects (docs/protocol.md section 3.1)."""

from __future__ import annotations

from emissary_lib.bridge.session import SessionRecord, Side, purge_time
from emissary_lib.protocol.auth.macs import (
    ConnectHeaders,
    parse_http_date,
    session_id,
    signed_host,
    verify_connect,
)
from emissary_lib.protocol.constants import OPENING_TIME
from emissary_lib.protocol.record import Record
from functions.common import logs
from functions.common.events import GatewayEvent
from functions.common.ports import Clock, KeySource, SessionStore


class ConnectDialer(Record):
    """Checks a dialer's MAC, then creates its session, which burns the nonce."""

    store: SessionStore
    keys: KeySource
    clock: Clock

    def __call__(self, event: GatewayEvent) -> None:
        """Admit a dialer.

        Raises:
            AuthenticationError: Credentials are absent, malformed or wrong.
            NonceBurntError: The nonce was used before.
            KeysUnavailableError: The keys cannot be had.
            StoreError: The table could not be reached.
        """
        now = self.clock()
        shown = ConnectHeaders.from_headers(event.headers)
        host = signed_host(event.domain)
        key = verify_connect(shown, self.keys.keys(shown.key_id), host=host, unix_now=now)
        session = SessionRecord(
            id=session_id(shown.nonce),
            key_id=key.key_id,
            nonce=shown.nonce,
            date=shown.date,
            host=host,
            started=now,
            expires=now + OPENING_TIME,
            purge_at=purge_time(date=parse_http_date(shown.date), now=now),
            dialer=Side(event.connection_id, 1),
            source=event.source,
        )
        self.store.create(session)
        logs.info(
            "dialer admitted",
            session=session.id,
            key_id=key.key_id,
            connection_id=event.connection_id,
            source=event.source,
        )
