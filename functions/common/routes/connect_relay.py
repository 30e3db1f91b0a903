"""A relay dials back to claim its session (docs/protocol.md section 3.4)."""

from __future__ import annotations

from emissary_lib.bridge.session import RELAY_TIME, Claim, RecordState, came_too_late, lease_after_relay
from emissary_lib.protocol.auth.macs import (
    RelayHeaders,
    relay_token_key_id,
    token_hash,
    verify_relay_token,
)
from emissary_lib.protocol.record import Record
from functions.common import logs
from functions.common.errors import ClaimRefusedError
from functions.common.events import GatewayEvent
from functions.common.ports import Clock, KeySource, SessionStore


class ConnectRelay(Record):
    """Lets exactly one relay instance hold a session.

    The token's MAC comes first: whoever only poses as a relay costs nothing at the table. A relay that comes
    when its session has ended unclaimed is refused, and its place is free: it has to show the token of a
    launch, which its dialer, whose key makes tokens too, does not have.
    """

    store: SessionStore
    keys: KeySource
    clock: Clock
    relay_time: float = RELAY_TIME

    def __call__(self, event: GatewayEvent) -> None:
        """Admit a relay; one whose session has ended, so that it can be told how.

        Raises:
            AuthenticationError: Credentials are absent, malformed or wrong.
            ClaimRefusedError: The session is not this relay's to claim.
            KeysUnavailableError: The keys cannot be had.
            StoreError: The table could not be reached.
        """
        shown = RelayHeaders.from_headers(event.headers)
        keys = self.keys.keys(relay_token_key_id(shown.relay_token))
        verify_relay_token(shown.relay_token, keys, session=shown.session)
        claim = Claim(
            session=shown.session,
            connection=event.connection_id,
            token_hash=token_hash(shown.relay_token),
            instance=shown.instance,
            epoch=shown.epoch,
            at=self.clock(),
            relay_time=self.relay_time,
        )
        try:
            state = self.store.claim(claim)
        except ClaimRefusedError as refused:
            session = refused.session
            if session is not None and came_too_late(session, claim):
                self.store.release(session, lease_after_relay(session))
            raise
        logs.info(
            "relay claimed" if state is RecordState.OPEN else "relay asks for the end",
            session=claim.session,
            instance=claim.instance,
            epoch=claim.epoch,
            connection_id=claim.connection,
        )
