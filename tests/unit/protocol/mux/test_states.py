"""The states of a connection: every step in every state."""

from __future__ import annotations

import itertools

import pytest

from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.mux.states import TRANSITIONS, ConnectionState, ConnectionStep, step

EVERY = list(itertools.product(ConnectionState, ConnectionStep))


@pytest.mark.parametrize(("state", "what"), EVERY)
def test_a_step_leads_where_the_table_says_or_nowhere(state: ConnectionState, what: ConnectionStep) -> None:
    if (state, what) in TRANSITIONS:
        assert step(state, what) is TRANSITIONS[state, what]
    else:
        with pytest.raises(LocalProtocolError, match=f"'{what.value}' cannot happen to a connection that is"):
            step(state, what)


@pytest.mark.parametrize("state", [state for state in ConnectionState if state is not ConnectionState.CLOSED])
def test_a_connection_can_be_cut_off_until_it_is_closed(state: ConnectionState) -> None:
    assert step(state, ConnectionStep.CUT_OFF) is ConnectionState.CLOSED


def test_each_direction_ends_on_its_own_in_either_order() -> None:
    for order in itertools.permutations((ConnectionStep.END_SENT, ConnectionStep.END_RECEIVED)):
        state = ConnectionState.OPEN
        for what in order:
            state = step(state, what)
        assert state is ConnectionState.ENDED


def test_nothing_follows_the_end() -> None:
    assert not any(state is ConnectionState.CLOSED for state, _ in TRANSITIONS)
