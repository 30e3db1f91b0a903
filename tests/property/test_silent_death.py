"""A WebSocket dies and nobody is told: whoever holds it finds out while the other side still waits."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Finished
from tests.helpers.link import User
from tests.property.test_resume import LIFE, SLOW, Cut, Plan, check_prefix, check_whole, drain

QUIET = User([], eof_at=700.0)


@pytest.mark.parametrize("speaks_at", [4.0, 50.0, 100.0, 200.0, 255.0, 300.0])
@pytest.mark.parametrize("speaker", Role, ids=lambda role: role.value)
@pytest.mark.parametrize("dead", Role, ids=lambda role: role.value)
def test_a_silent_death_costs_nobody_a_byte_whoever_speaks_next(
    dead: Role, speaker: Role, speaks_at: float
) -> None:
    """Symptom: a relay with nothing to send found its dead WebSocket after 270 s.

    A dialer that sent a query meanwhile resumed after 50 s, waited for the relay for the grace, and gave up.
    """
    speaking = User([(speaks_at, b"select 1")], eof_at=700.0)
    client, relay = (speaking, QUIET) if speaker is Role.DIALER else (QUIET, speaking)
    plan = Plan(1, SLOW, client, relay, [Cut(3.0, dead, 0.0, silent=True)])
    linked = plan.build()
    linked.run(LIFE)
    drain(linked)
    check_prefix(linked)
    check_whole(plan, linked)
    assert {end.events[-1] for end in linked.ends.values()} == {Finished(Code.OK)}
    assert linked.messages < 150
