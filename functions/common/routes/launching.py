"""Launches a relay: its tokens, what is stored of it, and the event (docs/protocol.md section 3.4)."""

from __future__ import annotations

from emissary_lib.bridge.launch import Launch
from emissary_lib.bridge.limits import NO_LIMITS, Limits
from emissary_lib.bridge.session import RELAY_TIME, LaunchRecord, SessionRecord
from emissary_lib.protocol.auth.headers import RELAY_TOKEN_RANDOM, SECRET_LENGTH
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import relay_token, token_hash
from emissary_lib.protocol.opening.exchange import OpeningAnswer
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.targets.allow_list import Target
from functions.common import logs
from functions.common.ports import Entropy, RelayLauncher
from functions.common.short_messages import ShortMessages


class PreparedLaunch(Record):
    """A launch that is not written yet.

    Attributes:
        record: What is stored of it.
        target: Where the relay is to connect.
        relay_token: What the relay claims with.
        resume_token: What it tells the dialer.
        opening: What the dialer has sent so far, and what is answered.
        window: The dialer's window, in bytes.
        short: Whether messages of more than one fragment are known not to pass.
    """

    record: LaunchRecord
    target: Target
    relay_token: bytes = hidden()
    resume_token: bytes = hidden()
    opening: OpeningAnswer
    window: int
    short: bool


class LaunchRelay(Record):
    """Prepares a launch, and invokes the relay once it is written."""

    launcher: RelayLauncher
    entropy: Entropy
    short_messages: ShortMessages
    limits: Limits = NO_LIMITS
    relay_time: float = RELAY_TIME

    def prepare(
        self,
        session: SessionRecord,
        key: Key,
        opening: OpeningAnswer,
        target: Target,
        window: int,
        now: float,
        *,
        short: bool = False,
    ) -> PreparedLaunch:
        """Draw the tokens.

        Args:
            session: As it is before the launch.
            key: That of the session's upgrade.
            opening: What was accepted.
            target: Its target.
            window: The dialer's window, in bytes.
            now: Seconds since 1970 UTC.
            short: Whether the dialer knows that long messages do not pass. That counts for this relay alone:
                found out by no session, it must not be remembered here for another day.

        Raises:
            StoreError: The table could not be reached.
        """
        short = self.short_messages.known() or short
        claim_token = relay_token(key, session=session.id, random=self.entropy(RELAY_TOKEN_RANDOM))
        resume_token = self.entropy(SECRET_LENGTH)
        record = LaunchRecord(
            str(target),
            token_hash(claim_token),
            token_hash(resume_token),
            now,
            self.limits.of(session.key_id),
            session.slots,
            self.relay_time,
        )
        return PreparedLaunch(record, target, claim_token, resume_token, opening, window, short)

    def invoke(self, launched: SessionRecord, launch: PreparedLaunch) -> None:
        """Invoke the relay of a session for which this launch was written.

        Raises:
            LaunchError: It could not be invoked.
        """
        event = Launch(
            session=launched.id,
            target=launch.target,
            relay_token=launch.relay_token,
            resume_token=launch.resume_token,
            server_bytes=launch.opening.server_bytes,
            client_offset=launch.opening.client_offset,
            early=launch.opening.early,
            window=launch.window,
            # Empty if the dialer has left meanwhile: the relay takes no such event.
            dialer_connection=launched.dialer.connection or "",
            dialer_epoch=launched.dialer.epoch,
            expires=launched.expires,
            host=launched.host,
            key_id=launched.key_id,
            short=launch.short,
        )
        self.launcher.launch(event.to_event())
        # Who and to where: all that the log has of a session whose end nobody reports.
        logs.info(
            "relay launched",
            session=launched.id,
            key_id=launched.key_id,
            source=launched.source,
            target=str(launch.target),
        )
