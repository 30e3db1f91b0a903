"""Launches a relay at the door, while its dialer's 101 is on its way (docs/protocol.md section 3.7)."""

from __future__ import annotations

import contextlib

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.auth.headers import OpeningHeaders
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.opening.exchange import OpeningState, evaluate
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import AllowList
from functions.common import logs
from functions.common.errors import LaunchError, LimitReachedError, StoreError
from functions.common.ports import SessionStore
from functions.common.routes.launching import LaunchRelay, PreparedLaunch


class LaunchAtTheDoor(Record):
    """Creates a session that is launched at once, if what its dialer shows is enough for that.

    Whatever is not, is left to the dialer's OPENING message, which ``$default`` answers.

    Attributes:
        allow_fault: What is wrong with the allow-list's text; then nothing is launched.
    """

    store: SessionStore
    launch: LaunchRelay
    allow: AllowList
    server_version: str
    allow_fault: str = ""

    def __call__(self, session: SessionRecord, shown: OpeningHeaders, key: Key) -> bool:
        """Create the session and launch its relay; False if nothing was done.

        Args:
            session: The session that is to be.
            shown: What its dialer has shown, the MAC of which was verified.
            key: The key of the upgrade.

        Raises:
            NonceBurntError: The nonce was used before.
            StoreError: The table could not be reached.
        """
        opening = evaluate(
            [(0, shown.stream)],
            nonce=session.nonce,
            date=session.date,
            host=session.host,
            key_id=key.key_id,
            keys=KeyRing([key]),
            allow=self.allow,
            server_version=self.server_version,
        )
        if self.allow_fault or opening.target is None or opening.state is not OpeningState.ACCEPTED:
            return False
        launch = self.launch.prepare(session, key, opening, opening.target, shown.window, session.started)
        try:
            launched = self.store.create_launched(session, launch.record)
        except LimitReachedError:
            return False
        try:
            self.launch.invoke(launched, launch)
        except LaunchError as exc:
            self._lose(launched, launch, exc)
        return True

    def _lose(self, launched: SessionRecord, launch: PreparedLaunch, cause: LaunchError) -> None:
        """The session is there, and its dialer's OPENING makes up for it: sooner, if that is noted."""
        logs.warning("relay not launched at the door", session=launched.id, cause=str(cause))
        with contextlib.suppress(StoreError):
            self.store.lose_launch(launched.id, launch.record)
