"""A relay dials back to claim its session (docs/protocol.md section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from emissary_lib.bridge.session import RELAY_TIME, Claim, RecordState
from emissary_lib.protocol.auth.macs import RelayHeaders, token_hash
from functions.common import logs
from functions.common.events import GatewayEvent
from functions.common.ports import Clock, SessionStore


@dataclass(frozen=True, slots=True)
class ConnectRelay:
    """Lets exactly one relay instance hold a session."""

    store: SessionStore
    clock: Clock
    relay_time: float = RELAY_TIME

    def __call__(self, event: GatewayEvent) -> None:
        """Admit a relay; one whose session has ended, so that it can be told how.

        Raises:
            AuthenticationError: Credentials are absent or malformed.
            ClaimRefusedError: The session is not this relay's to claim.
            StoreError: The table could not be reached.
        """
        shown = RelayHeaders.from_headers(event.headers)
        claim = Claim(
            session=shown.session,
            connection=event.connection_id,
            token_hash=token_hash(shown.relay_token),
            instance=shown.instance,
            epoch=shown.epoch,
            at=self.clock(),
            relay_time=self.relay_time,
        )
        state = self.store.claim(claim)
        logs.info(
            "relay claimed" if state is RecordState.OPEN else "relay asks for the end",
            session=claim.session,
            instance=claim.instance,
            epoch=claim.epoch,
            connection_id=claim.connection,
        )
