"""A dialer comes back to its session (docs/protocol.md section 5.2)."""

from __future__ import annotations

from emissary_lib.bridge.session import RecordState, Resume
from emissary_lib.protocol.auth.macs import (
    ClockSkewError,
    ConnectHeaders,
    ResumeHeaders,
    parse_http_date,
    signed_host,
    token_hash,
    verify_resume_mac,
)
from emissary_lib.protocol.constants import CLOCK_SKEW
from emissary_lib.protocol.errors import AuthenticationError
from emissary_lib.protocol.record import Record
from functions.common import logs
from functions.common.events import GatewayEvent
from functions.common.ports import Clock, KeySource, SessionStore


class ConnectResume(Record):
    """Checks the MAC as for a new dialer, then gives the session's dialer its new connection.

    The nonce is not burnt: the MAC covers the epoch, and no epoch is taken twice.
    """

    store: SessionStore
    keys: KeySource
    clock: Clock

    def __call__(self, event: GatewayEvent) -> None:
        """Admit a dialer that comes back; one whose session has ended, so that it can be told how.

        Raises:
            AuthenticationError: Credentials are absent, malformed or wrong.
            ClaimRefusedError: It has nothing to come back to, or has been overtaken by a later attempt.
            KeysUnavailableError: The keys cannot be had.
            StoreError: The table could not be reached.
        """
        now = self.clock()
        signed, shown = ConnectHeaders.from_headers(event.headers), ResumeHeaders.from_headers(event.headers)
        self._verify(signed, shown, event.domain, now)
        resume = Resume(
            session=shown.session,
            connection=event.connection_id,
            key_id=signed.key_id,
            token_hash=token_hash(shown.resume_token),
            epoch=shown.epoch,
            at=now,
        )
        state = self.store.resume(resume)
        logs.info(
            "dialer resumed" if state is RecordState.OPEN else "dialer asks for the end",
            session=resume.session,
            key_id=resume.key_id,
            epoch=resume.epoch,
            connection_id=resume.connection,
        )

    def _verify(self, signed: ConnectHeaders, shown: ResumeHeaders, domain: str, now: float) -> None:
        key = self.keys.keys(signed.key_id).get(signed.key_id)
        if key is None:
            raise AuthenticationError(f"key id {signed.key_id} is not known here")
        verify_resume_mac(
            signed.mac,
            key,
            date=signed.date,
            nonce=signed.nonce,
            host=signed_host(domain),
            session=shown.session,
            epoch=shown.epoch,
        )
        skew = parse_http_date(signed.date) - now
        if abs(skew) > CLOCK_SKEW:
            raise ClockSkewError(skew)
