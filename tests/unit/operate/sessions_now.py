"""A session that lives by the real clock, which the commands read."""

from __future__ import annotations

import time

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.record import replace
from functions.common.adapters.store import DynamoSessionStore
from tests.unit.functions.adapters.steps import CLAIM, LAUNCH, NEW


def alive(
    store: DynamoSessionStore, session: SessionRecord = NEW, target: str = LAUNCH.target
) -> SessionRecord:
    """Write an open session; its relay has a connection of its own unless it is that of the steps."""
    now = time.time()
    own = "" if session is NEW else session.id
    store.create(replace(session, started=now, expires=now + 60, source="203.0.113.7"))
    assert store.launch(session.id, replace(LAUNCH, at=now, target=target)).done
    relay = CLAIM.connection if session is NEW else f"relay of {own[-4:]}"
    store.claim(replace(CLAIM, session=session.id, connection=relay, at=now))
    found = store.session(session.id)
    assert found is not None
    return found
