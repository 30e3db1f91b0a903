"""A new dialer connects (docs/protocol.md sections 3.1 and 3.7)."""

from __future__ import annotations

from emissary_lib.bridge.session import SessionRecord, Side, purge_time
from emissary_lib.protocol.auth.macs import (
    ConnectHeaders,
    OpeningHeaders,
    parse_http_date,
    session_id,
    signed_host,
    verify_connect,
    verify_opening,
)
from emissary_lib.protocol.constants import OPENING_TIME
from emissary_lib.protocol.record import Record
from functions.common import logs
from functions.common.events import GatewayEvent
from functions.common.ports import Clock, KeySource, SessionStore
from functions.common.routes.door import LaunchAtTheDoor


class ConnectDialer(Record):
    """Checks a dialer's MACs, then creates its session, which burns the nonce, and may launch its relay."""

    store: SessionStore
    keys: KeySource
    clock: Clock
    door: LaunchAtTheDoor

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
        opening = OpeningHeaders.from_headers(event.headers)
        host = signed_host(event.domain)
        key = verify_connect(shown, self.keys.keys(shown.key_id), host=host, unix_now=now)
        if opening is not None:
            verify_opening(opening, key, date=shown.date, nonce=shown.nonce, host=host)
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
        if opening is None or not self.door(session, opening, key):
            self.store.create(session)
        logs.info(
            "dialer admitted",
            session=session.id,
            key_id=key.key_id,
            connection_id=event.connection_id,
            source=event.source,
        )
